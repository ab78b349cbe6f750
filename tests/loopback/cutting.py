"""A composition root of the tests: the ordinary command line in a peer whose first direct connection breaks.

    python -m tests.loopback.cutting BYTES up

It is shut as a whole behind so many bytes that were written to it, as by a middlebox
that forgets it. The product has no such switch; its connection is wrapped here.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from cocoon.p2p.sockets import SocketBytes


def main(argv: Sequence[str]) -> int:
    """Run ``cocoon`` with the words after the number."""
    from cocoon.cli.main import main as cocoon_main

    left, *words = argv
    _cut_after(int(left))
    return cocoon_main(words)


def _cut_after(left_bytes: int) -> None:
    write = SocketBytes.write

    async def counted(self: SocketBytes, *pieces: bytes) -> None:
        nonlocal left_bytes
        data = b"".join(pieces)
        before, left_bytes = left_bytes, left_bytes - len(data)
        if left_bytes <= 0 < before:
            await write(self, data[:before])            # in the middle of a frame
            self._socket.shutdown(socket.SHUT_RDWR)
        else:
            await write(self, data)

    SocketBytes.write = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
