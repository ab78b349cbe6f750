"""Golden vectors: bytes that may never change, and the examples they were made from."""
