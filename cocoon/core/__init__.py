"""What every other package is built from: ids, units, errors, limits, the machine contract.

Boundary: imports nothing of Cocoon. Invariant: pure, all of it.
"""
