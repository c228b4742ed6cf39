"""What quantus says, written down once: see make_fixtures.py."""
