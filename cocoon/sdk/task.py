"""Inputs of many units through one task: taken as there is room for them, outcomes handed on in order.

Purity: shell. Spec: docs/spec/control.md, rules CTL-7 to CTL-10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

from cocoon.core import limits
from cocoon.core.errors import UsageError
from cocoon.core.pieces import Piece, whole
from cocoon.sdk.arrays import plain_tensors
from cocoon.sdk.conversation import Call, Conversation
from cocoon.sdk.results import Outcome
from cocoon.wire.tensors import tensor_pieces

Inputs = Mapping[str, Any]


def encoded(inputs: Inputs) -> Sequence[Piece]:
    """The inputs of one unit, in pieces that lie where its arrays do."""
    return tensor_pieces(plain_tensors(inputs))


def streamed(
    conversation: Conversation, payloads: Iterator[Sequence[Piece]]
) -> Generator[Outcome, None, None]:
    """What became of each payload, in order; the next one is taken when there is room for it.

    Args:
        payloads: Encoded inputs, in pieces that may be written over when the next are asked for.
    """
    asked, is_over = deque[Call](), False
    try:
        while asked or not is_over:
            # What lies here is handed on first: then many leave together.
            while not is_over and _may_take(asked) and (room := conversation.room(asked[0] if asked else None)):
                calls, is_over = _pulled(payloads, min(room, limits.CLIENT_WINDOW_UNITS - len(asked)))
                conversation.hand_in(calls)
                asked += calls
            if asked:
                yield conversation.wait(asked[0])
                asked.popleft()
    finally:
        conversation.give_up(asked)


def _may_take(asked: Sequence[Call]) -> bool:
    """Whether none is ready, and they are not too many."""
    return not asked or (not asked[0].answered and len(asked) < limits.CLIENT_WINDOW_UNITS)


def _pulled(payloads: Iterator[Sequence[Piece]], room: int) -> tuple[list[Call], bool]:
    """The next payloads, at most so many, and whether there are no others.

    Small ones are copied. Large ones are left where the next may be written, so nothing is taken behind one.
    """
    calls: list[Call] = []
    size_bytes = 0
    while len(calls) < room and size_bytes < limits.TOGETHER_BYTES:
        if (pieces := next(payloads, None)) is None:
            return calls, True
        one_bytes = sum(map(len, pieces))
        calls.append(Call(pieces if one_bytes >= limits.SMALL_PAYLOAD_BYTES else [whole(pieces)]))
        size_bytes += one_bytes
    return calls, False


def batches(inputs: Iterable[Inputs]) -> Iterator[tuple[int, Iterator[Sequence[Piece]]]]:
    """Cut inputs into tasks: (units, their encoded inputs)."""
    payloads = map(encoded, inputs)
    if isinstance(inputs, Sized):
        for start in range(0, len(inputs), limits.UNITS_PER_TASK):
            units = min(len(inputs) - start, limits.UNITS_PER_TASK)
            yield units, _promised(payloads, units)
        return
    while batch := list(_bounded(payloads)):
        yield len(batch), iter(batch)


def _promised(payloads: Iterator[Sequence[Piece]], units: int) -> Iterator[Sequence[Piece]]:
    """The next ``units`` payloads.

    Raises:
        UsageError: there are fewer.
    """
    for unit in range(units):
        if (pieces := next(payloads, None)) is None:
            raise UsageError(f"the inputs ended after {unit} units; their length promised {units}")
        yield pieces


def _bounded(payloads: Iterator[Sequence[Piece]]) -> Iterator[Sequence[Piece]]:
    """The next few payloads, limited by number and by size; copied, because all are taken before any is sent."""
    size_bytes = 0
    for pieces in islice(payloads, limits.MAP_BATCH_UNITS):
        yield [payload := whole(pieces)]
        size_bytes += len(payload)
        if size_bytes >= limits.CLIENT_WINDOW_BYTES // 2:
            return
