"""Attention family: masks that the network itself has learnt, read out."""
