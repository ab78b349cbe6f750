"""One task over the control socket: sends inputs as credit allows, hands results on in order.

Purity: shell. Spec: docs/spec/control.md, rules CTL-7 to CTL-10.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

from cocoon.core import limits
from cocoon.core.pieces import Piece, whole
from cocoon.core.shared import SEALS
from cocoon.core.units import MILLISECOND_NS
from cocoon.sdk.arrays import plain_tensors
from cocoon.sdk.control import Connection, Message, error_of
from cocoon.sdk.fields import plain, take_map
from cocoon.sdk.flow import Flow
from cocoon.sdk.home import Contact
from cocoon.sdk.results import Outcome
from cocoon.wire.tensors import tensor_pieces

Inputs = Mapping[str, Any]
OnEvent = Callable[[dict[str, Any]], None]


def stream(
    contact: Contact, args: Message, payloads: Iterator[Sequence[Piece]], offset: int, on_event: OnEvent | None
) -> Iterator[Outcome]:
    """Drive one task over one connection; closing the iterator closes the connection.

    Args:
        args: Of the verb ``run``.
        payloads: Encoded inputs, one per unit, in pieces.
        offset: Added to the units that the caller sees.
    """
    end_ns = time.monotonic_ns() + args["deadline_ms"] * MILLISECOND_NS + limits.CONTROL_GRACE_NS
    with Connection(contact) as connection:
        flow = Flow(args["units"], connection.share if SEALS else None, offset)
        connection.request("run", args)
        while flow.done is None:
            while connection.roomy and (frame := flow.send(payloads)) is not None:
                connection.send(frame)
            message = connection.step(end_ns)
            if message is None:
                continue
            if error := error_of(message):
                raise error
            take(flow, message, on_event)
            yield from flow.ready()


def take(flow: Flow, message: Message, on_event: OnEvent | None) -> None:
    """Let the flow take a word of the peer, and the caller hear of it."""
    if "done" in message:
        flow.finish(message)
        shown: Iterable[Message] = ({"event": "done", **take_map(message, "done")},)
    else:
        flow.handle(message)
        shown = flow.shown(message)
    if on_event is not None:
        for event in shown:
            on_event(plain(event))


def batches(inputs: Iterable[Inputs]) -> Iterator[tuple[int, Iterator[Sequence[Piece]]]]:
    """Cut inputs into tasks: (units, their encoded inputs)."""
    encoded = (tensor_pieces(plain_tensors(item)) for item in inputs)
    if isinstance(inputs, Sized):
        for start in range(0, len(inputs), limits.UNITS_PER_TASK):
            yield min(len(inputs) - start, limits.UNITS_PER_TASK), encoded
        return
    while batch := list(_bounded(encoded)):
        yield len(batch), iter(batch)


def _bounded(encoded: Iterator[Sequence[Piece]]) -> Iterator[Sequence[Piece]]:
    """The next few payloads, limited by number and by size; copied, because all are taken before any is sent."""
    size_bytes = 0
    for pieces in islice(encoded, limits.MAP_BATCH_UNITS):
        yield [payload := whole(pieces)]
        size_bytes += len(payload)
        if size_bytes >= limits.CLIENT_WINDOW_BYTES // 2:
            return
