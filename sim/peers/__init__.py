"""Peers made of the product's machines: what their shells do with effects, re-created on the heap."""
