"""Perturbation family: hide parts of the image and watch the score."""
