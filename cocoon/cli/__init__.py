"""The command line: words for people, ``--json`` for programs.

Boundary: imports the SDK and, inside command bodies, the settings, the node and
the demo. Invariant: no command module imports anything heavy at its top, so
that ``cocoon --help`` answers at once; no traceback leaves ``main``.

Purity: shell.
"""
