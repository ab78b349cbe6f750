"""One task as its client sees it: which units left, which came back, what may leave next.

The peer grants credit, one per unit; results come back in any order, and each is
handed on when somebody takes it. Both windows are bounded, so that a task of a million
units holds no more memory than its open ones. What is large is written where the peer
reads it, and read where the peer wrote it, if both can.

Invariants
    A unit is answered at most once, and only after it was sent.
    Every result handed on hashes to the commitment that its statement carries.

Purity: pure. Spec: docs/spec/control.md, rules CTL-7 to CTL-10 and CTL-24.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from cocoon.core import limits
from cocoon.core.errors import LimitExceeded, Malformed, from_code, wrong
from cocoon.core.pieces import Piece, whole
from cocoon.core.units import KIB
from cocoon.sdk.arena import Arena, Slot
from cocoon.sdk.fields import take_bytes, take_hex, take_int, take_maps, take_peer, take_text
from cocoon.sdk.results import Failure, Outcome, Result
from cocoon.wire.commitment import commit
from cocoon.wire.framing import together
from cocoon.wire.tensors import TensorDecoder

Message = dict[str, Any]
_U32 = (1 << 32) - 1
#: Outputs may be so much larger than those before, or than their inputs: other names, some more items.
_MORE_BYTES = 4 * KIB
#: Receipts are at most a window of units away from their results, some of them of one unit each.
_RECEIPTS_KEPT = 4 * limits.CLIENT_WINDOW_UNITS


@dataclass(slots=True)
class Flow:
    """The state of one task; ``units`` inputs at most, numbered for the caller from ``offset``.

    Attributes:
        share: Makes memory that the peer sees too; None where that cannot be done. Called at most once.
    """

    units: int
    share: Callable[[], memoryview] | None = None
    offset: int = 0
    credit: int = 0
    next_unit: int = 0
    handed: int = 0
    _open: dict[int, Piece] = field(default_factory=dict)
    _slots: dict[int, Slot] = field(default_factory=dict)
    _arena: Arena | None = None
    # Whether the peer takes memory to share, and the largest outputs so far: those to come will be like them.
    _is_taken: bool = False
    _largest_bytes: int | None = None
    _decoder: TensorDecoder = field(default_factory=TensorDecoder)
    _held: dict[int, tuple[Outcome, int]] = field(default_factory=dict)
    _bytes: int = 0
    # Weak: a result that the caller has dropped needs no receipt any more.
    _unreceipted: WeakValueDictionary[tuple[str, int], Result] = field(default_factory=WeakValueDictionary)
    # A receipt can overtake the results it covers: (lease, first number, end, hash).
    _receipts: deque[tuple[str, int, int, str]] = field(default_factory=lambda: deque(maxlen=_RECEIPTS_KEPT))
    # Of each lease, the end of what any of these covers: beyond it, where most results are, nothing is looked for.
    _receipted: dict[str, int] = field(default_factory=dict)

    def may_send(self) -> bool:
        """True if the peer has room for the next unit, and so have we."""
        # What was answered and is not taken keeps nobody from running one unit at a time.
        is_narrow = self.next_unit - self.handed < limits.CLIENT_WINDOW_UNITS
        is_light = self._bytes < limits.CLIENT_WINDOW_BYTES
        has_room = (is_narrow and is_light) or not self._open
        is_ready = self._arena is None or self._arena.ready
        return self.credit > 0 and self.next_unit < self.units and has_room and is_ready

    def send(self, payloads: Iterator[Sequence[Piece]]) -> Message | None:
        """The frame with the encoded inputs of the next units; None if none may leave now.

        Args:
            payloads: Of each unit, in pieces that are not read any more when the next is asked for.

        Raises:
            LimitExceeded: the inputs of one unit are too large.
        """
        first = self.next_unit
        units = next(together(self._next(payloads), lambda unit: len(self._open[unit])), None)
        if units is None:
            return None
        frame: Message = {"first": first, "inputs": [self._sent(unit) for unit in units]}
        if not self._slots.keys().isdisjoint(units):
            frame["rooms"] = [self._room(unit) for unit in units]
        return frame

    def _next(self, payloads: Iterator[Sequence[Piece]]) -> Iterator[int]:
        while self.may_send():
            pieces = next(payloads, None)
            if pieces is None:
                return
            if (size_bytes := sum(map(len, pieces))) > limits.PAYLOAD_BYTES:
                raise LimitExceeded(f"the inputs take {size_bytes} bytes, more than {limits.PAYLOAD_BYTES}")
            unit, self.next_unit = self.next_unit, self.next_unit + 1
            self._open[unit] = self._put(unit, pieces, size_bytes)
            self._bytes += size_bytes
            self.credit -= 1
            yield unit

    def _put(self, unit: int, pieces: Sequence[Piece], size_bytes: int) -> Piece:
        """Write the inputs of a unit into shared memory if they are large, or its outputs will be."""
        inputs_bytes = size_bytes if size_bytes >= limits.SMALL_PAYLOAD_BYTES else 0
        expected_bytes = size_bytes if self._largest_bytes is None else self._largest_bytes
        room_bytes = expected_bytes + _MORE_BYTES if expected_bytes >= limits.SMALL_PAYLOAD_BYTES else 0
        if not inputs_bytes and not room_bytes:
            return whole(pieces)
        if self._arena is None and self._is_taken and self.share is not None:
            self._arena = Arena(self.share())
        if self._arena is None or (slot := self._arena.take(inputs_bytes, room_bytes)) is None:
            return whole(pieces)
        self._slots[unit] = slot
        return self._arena.put(slot, pieces) if inputs_bytes else whole(pieces)

    def _sent(self, unit: int) -> Piece | list[int]:
        """The inputs of a unit, or where they lie and how many bytes they are."""
        slot = self._slots.get(unit)
        return [slot.at, slot.inputs_bytes] if slot is not None and slot.inputs_bytes else self._open[unit]

    def _room(self, unit: int) -> list[int]:
        """Where the outputs of a unit may be put, and how many bytes."""
        slot = self._slots.get(unit)
        return [0, 0] if slot is None else [slot.room_at, slot.room_bytes]

    def end(self) -> Message:
        """The frame that says that no unit follows."""
        self.units = self.next_unit
        return {"end": True}

    def handle(self, message: Message) -> list[int]:
        """Take one event of the peer; the units that it answers.

        Raises:
            Malformed: fields missing, or a unit that is not open.
            WrongField: outputs that do not hash to their commitment.
        """
        name = take_text(message, "event", chars=64)
        match name:
            case "licence":
                self._is_taken = message.get("shares") is True
            case "credit":
                # Wider than any honest grant, yet it keeps the sum small.
                self.credit = min(self.credit + take_int(message, "count", high=_U32), self.units)
            case "results":
                provider, lease = take_peer(message, "provider"), take_hex(message, "lease")
                answered = []
                for one in take_maps(message, "results"):
                    outputs = self._outputs(one)
                    answered.append(self._answer(self._result(one, outputs, provider, lease), len(outputs)))
                return answered
            case "failed":
                text = take_text(message, "text", chars=1 << 16)[: limits.ERROR_TEXT_CHARS]
                error = from_code(take_text(message, "code", chars=64), text)
                return [self._answer(Failure(self._unit(message) + self.offset, error), 0)]
            case "receipt":
                self._receipt(message)
        return []

    def shown(self, message: Message) -> Iterator[Message]:
        """A message that was taken, for people: one event a result, without payloads, units renumbered."""
        if message["event"] != "results":
            yield {**message, "unit": take_int(message, "unit") + self.offset} if "unit" in message else message
            return
        common = {"event": "result", "provider": message["provider"], "lease": message["lease"]}
        for one in message["results"]:
            kept = {key: value for key, value in one.items() if key not in ("outputs", "outputs_bytes", "salt")}
            yield {**common, **kept, "unit": one["unit"] + self.offset}

    def finish(self) -> None:
        """The peer says that the task is done.

        Raises:
            Malformed: a unit was not answered.
        """
        if missing := self.units - self.handed - len(self._held):
            raise Malformed(f"the local peer ended the task with {missing} of {self.units} units unanswered")

    def take(self, unit: int) -> Outcome:
        """Hand on what became of a unit that was answered; drops it from the window."""
        outcome, size_bytes = self._held.pop(unit)
        self.handed += 1
        self._bytes -= size_bytes
        return outcome

    def forget(self, unit: int) -> None:
        """Nobody takes this unit any more, if it was answered and not taken."""
        if unit in self._held:
            self.take(unit)

    def release(self) -> None:
        """Let go of shared memory: the conversation is over, whoever may still hold this task."""
        self._arena = None
        self._open.clear()

    def _unit(self, message: Message) -> int:
        unit = take_int(message, "unit", high=_U32)
        if unit not in self._open:
            raise Malformed(f"the local peer answered unit {unit}, which is not open")
        return unit

    def _answer(self, outcome: Outcome, size_bytes: int) -> int:
        unit = outcome.unit - self.offset
        self._bytes += size_bytes - len(self._open.pop(unit))
        if (slot := self._slots.pop(unit, None)) is not None and self._arena is not None:
            self._arena.free(slot)
        self._held[unit] = (outcome, size_bytes)
        return unit

    def _outputs(self, message: Message) -> Piece:
        """The outputs of a unit, which are in the message, or in the room that was given to it."""
        if "outputs" in message:
            outputs: Piece = take_bytes(message, "outputs")
        else:
            slot = self._slots.get(self._unit(message))
            if slot is None or self._arena is None:
                raise Malformed("the local peer sent no outputs for a unit")
            outputs = self._arena.outputs(slot, take_int(message, "outputs_bytes", high=slot.room_bytes))
        self._largest_bytes = max(self._largest_bytes or 0, len(outputs))
        return outputs

    def _result(self, message: Message, outputs: Piece, provider: str, lease: str) -> Result:
        unit, salt = self._unit(message), take_bytes(message, "salt", size=16)
        result = Result(
            unit=unit + self.offset,
            outputs={},
            provider=provider,
            lease=lease,
            number=take_int(message, "number", high=_U32),
            units=take_int(message, "units", high=_U32),
            price_nanoton=take_int(message, "price_nanoton"),
            input_hash=take_hex(message, "input_hash"),
            output_hash=take_hex(message, "output_hash"),
            ran_us=take_int(message, "ran_us"),
        )
        _check(salt, self._open[unit], result.input_hash, "input")
        _check(salt, outputs, result.output_hash, "output")
        result.outputs = self._decoder.decode(outputs, copied=isinstance(outputs, memoryview))
        if result.number < self._receipted.get(result.lease, 0):
            for lease, first, end, receipt in reversed(self._receipts):
                if lease == result.lease and first <= result.number < end:
                    result.receipt = receipt
                    break
        if result.receipt is None:
            self._unreceipted[(result.lease, result.number)] = result
        return result

    def _receipt(self, message: Message) -> None:
        if message.get("verified") is not True:
            return
        first = take_int(message, "first_number", high=_U32)
        end = first + take_int(message, "runs", high=limits.RUNS_PER_LEASE)
        stretch = (take_hex(message, "lease"), first, end, take_hex(message, "hash"))
        self._receipts.append(stretch)
        if len(self._receipted) > _RECEIPTS_KEPT:       # more leases than one task has
            kept = {lease for lease, _, _, _ in self._receipts}
            self._receipted = {lease: through for lease, through in self._receipted.items() if lease in kept}
        self._receipted[stretch[0]] = max(end, self._receipted.get(stretch[0], 0))
        self._cover(*stretch)

    def _cover(self, lease: str, first: int, end: int, receipt: str) -> None:
        for key in list(self._unreceipted):
            if key[0] == lease and first <= key[1] < end and (result := self._unreceipted.pop(key, None)):
                result.receipt = receipt


def _check(salt: bytes, payload: Piece, claimed: str, side: str) -> None:
    if commit(salt, payload).hash.hex() != claimed:
        raise wrong(side, f"the {side} of a run does not hash to the commitment in its statement")
