"""Attacks on the model: another network, the same pictures."""
