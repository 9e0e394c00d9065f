"""Buses: how records travel between operators."""
