"""Tests of the node's own parts; what joins them is tested in tests/loopback."""
