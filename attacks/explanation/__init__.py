"""Attacks that aim at the explanation of an image."""
