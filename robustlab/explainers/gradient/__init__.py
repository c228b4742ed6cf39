"""Gradient family: one or many backward passes to the pixels."""
