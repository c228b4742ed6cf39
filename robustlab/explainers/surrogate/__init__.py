"""Surrogate family: a simple model of the classifier around one image."""
