"""End to end: real peers as processes on loopback, driven by the real commands."""
