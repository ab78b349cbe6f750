"""A composition root of the tests: the ordinary command line in a process whose machines are recorded.

    python -m tests.bridge.root TAPE up --provide

The product has no such switch; its machines are wrapped here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bridge.tape import Recorder


def main(argv: Sequence[str]) -> int:
    """Run ``cocoon`` with the words after the path of the tape."""
    from cocoon.cli.main import main as cocoon_main

    path, *words = argv
    with Path(path).open("ab") as tape:
        Recorder(tape).start()
        return cocoon_main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
