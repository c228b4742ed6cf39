"""Timing beside peers; see `make bench`."""
