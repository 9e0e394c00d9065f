"""The fault suite: one site, many faults, and an account of every frame after each."""
