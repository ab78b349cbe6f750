"""The journal's thread without trio: nobody who puts a ticket waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from cocoon.store.writer import Room, Row, Ticket, Writer


def test_a_ticket_that_comes_after_the_end_is_answered(tmp_path):
    """Between the thread's end and the moment its callers learn of it."""
    answered: list[Ticket] = []
    opened, ended = threading.Event(), threading.Event()

    def deliver(tickets: Sequence[Ticket]) -> None:
        answered.extend(tickets)

    room = Room(reserve_bytes=65_536)
    writer = Writer(
        tmp_path / "journal.db", time.time_ns, deliver, lambda error: opened.set(), room, None, ended.set
    )
    writer.start()
    assert opened.wait(60)
    first, late = Ticket((Row("k", b""),), lambda: None), Ticket((Row("k", b""),), lambda: None)
    writer.put(first)
    writer.stop()
    assert ended.wait(60)
    writer.join()
    writer.put(late)
    assert answered == [first, late]
    assert first.seqs == [1] and first.error is None
    assert late.error is not None and late.error.code == "corrupt"
