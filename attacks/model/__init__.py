"""Attacks that fine-tune the model so that its explanations lie."""
