"""Defended explanations: made harder to manipulate, some with a certificate."""
