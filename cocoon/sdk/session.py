"""A session: one task that stays open, for runs that come one by one.

A call of ``Client.run`` is a task of its own: an auction, its runs, the receipt. An
application that answers its own users has one run at a time, and wants each soon. In
a session it goes to a provider that has the model loaded; receipts follow later.

Purity: shell. Spec: docs/spec/control.md, rules CTL-7 to CTL-10.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from cocoon.core import limits
from cocoon.core.errors import CocoonError, UsageError
from cocoon.core.pieces import Piece
from cocoon.core.shared import SEALS
from cocoon.core.units import MILLISECOND_NS
from cocoon.sdk.arrays import plain_tensors
from cocoon.sdk.control import Connection, Message, error_of
from cocoon.sdk.flow import Flow
from cocoon.sdk.home import Contact
from cocoon.sdk.results import Failure, Outcome, Result
from cocoon.sdk.task import take
from cocoon.wire.tensors import tensor_pieces

Inputs = Mapping[str, Any]


class Session:
    """Made by ``Client.session``. For one thread at a time; a ``with`` block closes it."""

    def __init__(self, contact: Contact, args: Message, on_event: Callable[[dict[str, Any]], None] | None) -> None:
        """Open the task; ``args`` are those of the verb ``run``."""
        self._on_event = on_event
        self._end_ns = time.monotonic_ns() + args["deadline_ms"] * MILLISECOND_NS + limits.CONTROL_GRACE_NS
        self._connection: Connection | None = (connection := Connection(contact))
        self._flow = Flow(args["units"], connection.share if SEALS else None, is_open=True)
        connection.request("run", args)
        self._step()                                    # the auction is held while the caller prepares its first run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._hang_up()

    def run(self, inputs: Inputs) -> Result:
        """Run the model on one map of inputs.

        Its ``receipt`` comes with a later run, at the latest with ``close``.

        Raises:
            CocoonError: why this run has no result, and the session goes on; or why the task ended, and it does not.
        """
        outcome, = self._outcomes(_encoded([inputs]))
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def map(self, inputs: Iterable[Inputs]) -> Iterator[Outcome]:
        """Run the model on each, many at a time; what became of each, in order. Take all before the next call."""
        return self._outcomes(_encoded(inputs))

    def close(self) -> None:
        """Hand in no more and wait for the receipts. Safe to repeat.

        Raises:
            CocoonError: why the task did not end well.
        """
        if self._connection is not None:
            self._connection.send(self._flow.end())
            while self._flow.done is None:
                self._step()
            self._hang_up()

    def _outcomes(self, payloads: Iterator[Sequence[Piece]]) -> Iterator[Outcome]:
        connection, flow, is_over = self._open(), self._flow, False
        if flow.next_out != flow.next_unit:
            raise UsageError("results of an earlier call were not taken")
        while not is_over or flow.next_out < flow.next_unit:
            while not is_over and connection.roomy and flow.may_send():
                frame = flow.send(payloads)
                if frame is not None:
                    connection.send(frame)
                is_over = frame is None
            if not is_over and flow.next_unit == flow.units:
                is_over = next(payloads, None) is None
                if not is_over:
                    raise UsageError(f"the {flow.units} runs of this session are used up; open another one")
            if not is_over or flow.next_out < flow.next_unit:
                self._step()
                yield from flow.ready()

    def _step(self) -> None:
        """Take the next word of the peer, if it has one."""
        connection = self._open()
        try:
            message = connection.step(self._end_ns)
            if message is None:
                return
            if error := error_of(message):
                raise error
            take(self._flow, message, self._on_event)
        except CocoonError:
            self._hang_up()
            raise

    def _open(self) -> Connection:
        if self._connection is None:
            raise UsageError("the session is closed")
        return self._connection

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._flow.release()


def _encoded(inputs: Iterable[Inputs]) -> Iterator[Sequence[Piece]]:
    return (tensor_pieces(plain_tensors(one)) for one in inputs)
