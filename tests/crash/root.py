"""A composition root of the tests: the ordinary command line in a process that kills itself at one named place.

    python -m tests.crash.root row:unit_accepted before 2 up --join LINK
    python -m tests.crash.root sent:RunResult after 1 up --provide

``row:NAME`` is a record of the journal (``sites.Names``): before it is handed to
the disk, or after it is durable. ``sent:NAME`` is a message to another peer,
``external:NAME`` one of the wallet to the chain: before it leaves, or after the
call that sent it returned. The product has no such switch; it is wrapped here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.crash.sites import Names, spoken

Wrapped = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Trap:
    """Dies before or after the n-th occurrence of a name."""

    name: str
    side: str
    left: int

    def around(self, inner: Wrapped, namer: Callable[..., Iterable[str]]) -> Wrapped:
        """``inner``, watched; ``namer`` says what a call of it is."""

        async def watched(*args: Any, **more: Any) -> Any:
            hit = False
            for name in namer(*args):
                if name == self.name:
                    self.left -= 1
                    hit = hit or self.left == 0
            if hit and self.side == "before":
                die()
            result = await inner(*args, **more)
            if hit:
                die()
            return result

        return watched


def die() -> None:
    """SIGKILL to ourselves: nothing runs behind it, no buffer is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def set_trap(trap: Trap) -> None:
    """Wrap every place that has a name."""
    from cocoon.ledger.chain import Chain
    from cocoon.node.link import WorkLink
    from cocoon.p2p.streams import PeerStream
    from cocoon.store.service import Journal

    names, wallet = Names(), [""]

    def rows(journal: Journal, batch: Iterable[Any]) -> list[str]:
        found = [names.of(row) for row in batch]
        for name in found:
            kind, _, intention = name.partition(":")
            if kind == "outbox_signed":
                wallet[0] = intention
        return [f"row:{name}" for name in found]

    Journal.append_many = trap.around(Journal.append_many, rows)
    WorkLink.send = trap.around(
        WorkLink.send, lambda link, message: [f"sent:{type(message).__name__}"]
    )
    PeerStream.send = trap.around(
        PeerStream.send, lambda stream, payload: [f"sent:{name}" for name in spoken(payload)]
    )
    # The wallet has one message under way at a time: the one that it signed last.
    Chain.send = trap.around(Chain.send, lambda chain, message: [f"external:{wallet[0]}"])


def main(argv: Sequence[str]) -> int:
    """``NAME SIDE N`` and the command line of ``cocoon``."""
    from cocoon.cli.main import main as cocoon

    name, side, count, *command = argv
    set_trap(Trap(name, side, int(count)))
    return cocoon(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
