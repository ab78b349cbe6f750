"""A peer like any other, but every chunk that it serves has one wrong bit.

usage: python -m tests.loopback.lying_holder up ...     as ``cocoon up``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cocoon.cli.main import main as cocoon
from cocoon.core.ids import ModelId
from cocoon.node.sharing import ServedFrom


def main(argv: Sequence[str]) -> int:
    """The command line of ``cocoon``, with the lie built in."""
    honest = ServedFrom.read

    async def read(served: ServedFrom, model: ModelId, file: int, index: int) -> bytes:
        data = bytearray(await honest(served, model, file, index))
        data[len(data) // 2] ^= 1
        return bytes(data)

    ServedFrom.read = read  # type: ignore[method-assign]
    return cocoon(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
