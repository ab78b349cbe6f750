"""The tests; a package so that its shared parts (``tests.models``) have one name."""
