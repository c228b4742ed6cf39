"""Explainers broken on purpose, each in one way: ``BROKEN`` holds (explainer, breach) per file."""
