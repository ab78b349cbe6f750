"""``python -m cocoon`` is the command ``cocoon``.

Purity: shell.
"""

import sys

from cocoon.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
