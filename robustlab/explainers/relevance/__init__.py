"""Relevance family: the score is handed back, layer by layer, to the pixels."""
