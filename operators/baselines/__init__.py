"""Baselines that every policy is compared with, each through `camlink.operators.policy.FramePolicy`."""
