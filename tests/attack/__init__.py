"""Hostile peers against real ones: every lie is refused with its own code, and nothing else happens."""
