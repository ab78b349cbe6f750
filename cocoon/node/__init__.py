"""The composition root: builds a peer from its parts and carries effects between them.

Boundary: the only package that imports every sibling and every ``service``.
Invariant: holds no protocol rule of its own; those are in the machines.
"""
