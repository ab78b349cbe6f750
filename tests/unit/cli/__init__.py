"""Tests of the command line: real commands in real processes."""
