"""Model links: small learned mappings from one model's output space to another's."""
