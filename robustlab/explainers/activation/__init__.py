"""Activation family: images made to excite a unit. They explain a model, not an image."""
