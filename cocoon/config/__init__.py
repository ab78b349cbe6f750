"""What the user decided: settings with their origin, and the network of a home.

Boundary: reads files and the environment, starts nothing. Invariant: an
unknown name or an impossible value is refused, never ignored.
"""
