"""A composition root of the tests: the ordinary command line in a process that kills itself at one named place.

    python -m tests.crash.root row:unit_accepted before 2 up --join LINK
    python -m tests.crash.root sent:RunResult after 1 up --provide

``row:NAME`` is a record of the journal (``sites.Names``): before it is handed over, or
after it is there, written or durable as the caller wanted it. ``sent:NAME`` is a message to another peer,
``external:NAME`` one of the wallet to the chain: before it leaves, or after the
call that sent it returned. ``heard:NAME`` is a message of another peer, after it
was read. What is sent or heard again, or journalled under a key that is taken,
is not counted again. Its last word is ``died SIDE NAME`` on standard error.
The product has no such switch; it is wrapped here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.crash.sites import Names, spoken

Wrapped = Callable[..., Awaitable[Any]]
#: A name, and what it is the name of: equal if the same thing happens again.
Named = tuple[str, Any]


@dataclass(slots=True)
class Trap:
    """Dies before or after the n-th occurrence of a name."""

    name: str
    side: str
    left: int
    _seen: set[Any] = field(default_factory=set)

    def around(self, inner: Wrapped, namer: Callable[..., Iterable[Named]]) -> Wrapped:
        """``inner``, watched; ``namer`` says what a call of it is."""

        async def watched(*args: Any, **more: Any) -> Any:
            with self._at(namer(*args[:2])):
                return await inner(*args, **more)

        return watched

    def around_call(self, inner: Callable[..., Any], namer: Callable[..., Iterable[Named]]) -> Callable[..., Any]:
        """The same for a function that nobody awaits."""

        def watched(*args: Any, **more: Any) -> Any:
            with self._at(namer(*args[:2])):
                return inner(*args, **more)

        return watched

    @contextmanager
    def _at(self, named: Iterable[Named]) -> Iterator[None]:
        counts = [self._counts(name, identity) for name, identity in named]
        is_here = any(counts)
        if is_here and self.side == "before":
            self.die()
        yield
        if is_here and self.side == "after":
            self.die()

    def behind(self, inner: Wrapped, namer: Callable[..., Iterable[Named]]) -> Wrapped:
        """``inner``, watched for what it brings; ``namer`` says what that is."""

        async def watched(*args: Any, **more: Any) -> Any:
            result = await inner(*args, **more)
            counts = [self._counts(name, identity) for name, identity in namer(result)]
            if any(counts):
                self.die()
            return result

        return watched

    def _counts(self, name: str, identity: Any) -> bool:
        """Whether this is the occurrence that is waited for."""
        if name != self.name or identity in self._seen:
            return False
        self._seen.add(identity)
        self.left -= 1
        return self.left == 0

    def die(self) -> None:
        """SIGKILL to ourselves: nothing runs behind it, no buffer is flushed."""
        os.write(2, f"{last_word(self.side, self.name)}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def last_word(side: str, name: str) -> str:
    """What a peer that died there says of it."""
    return f"died {side} {name}"


def set_trap(trap: Trap) -> None:
    """Wrap every place that has a name."""
    from cocoon.ledger.chain import Chain
    from cocoon.node.link import WorkLink
    from cocoon.p2p.streams import PeerStream
    from cocoon.store.service import Journal
    from cocoon.wire.schema import pack

    names, wallet = Names(), [""]

    def rows(journal: Journal, batch: Iterable[Any]) -> list[Named]:
        found = [(names.of(row), row) for row in batch]
        for name, _ in found:
            kind, _, intention = name.partition(":")
            if kind == "outbox_signed":
                wallet[0] = intention
        return [(f"row:{name}", object() if row.unique is None else row.unique) for name, row in found]

    Journal.append_many = trap.around(Journal.append_many, rows)
    Journal.write = trap.around_call(Journal.write, rows)
    WorkLink._transmit = trap.around(
        WorkLink._transmit, lambda link, messages: [(f"sent:{type(one).__name__}", pack(one)) for one in messages]
    )
    PeerStream.send = trap.around(
        PeerStream.send, lambda stream, payload: [(f"sent:{name}", bytes(payload)) for name in spoken(payload)]
    )
    WorkLink.receive_all = trap.behind(
        WorkLink.receive_all, lambda messages: [(f"heard:{type(one).__name__}", pack(one)) for one in messages]
    )
    PeerStream.receive = trap.behind(
        PeerStream.receive, lambda payload: [(f"heard:{name}", bytes(payload)) for name in spoken(payload)]
    )
    # The wallet has one message under way at a time: the one that it signed last.
    Chain.send = trap.around(Chain.send, lambda chain, message: [(f"external:{wallet[0]}", message.hash())])


def main(argv: Sequence[str]) -> int:
    """``NAME SIDE N`` and the command line of ``cocoon``."""
    from cocoon.cli.main import main as cocoon

    name, side, count, *command = argv
    set_trap(Trap(name, side, int(count)))
    return cocoon(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
