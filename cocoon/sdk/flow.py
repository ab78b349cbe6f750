"""One task as its client sees it: which units left, which came back, what may leave next.

The peer grants credit, one per unit; results come back in any order and are
handed on in the order of the inputs. Both windows are bounded, so that a task
of a million units holds no more memory than its open ones.

Invariants
    A unit is answered at most once, and only after it was sent.
    Every result handed on hashes to the commitment that its statement carries.

Purity: pure. Spec: docs/spec/control.md, rules CTL-7 to CTL-10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from cocoon.core import limits
from cocoon.core.errors import LimitExceeded, Malformed, UsageError, from_code, wrong
from cocoon.sdk.fields import take_bytes, take_hex, take_int, take_map, take_maps, take_peer, take_text
from cocoon.sdk.results import Failure, Outcome, Result
from cocoon.wire.commitment import commit
from cocoon.wire.framing import together
from cocoon.wire.tensors import decode_tensors

Message = dict[str, Any]
_U32 = (1 << 32) - 1
#: Receipts are at most a window of units away from their results, some of them of one unit each.
_RECEIPTS_KEPT = 4 * limits.CLIENT_WINDOW_UNITS


@dataclass(slots=True)
class Flow:
    """The state of one task; ``units`` inputs, numbered for the caller from ``offset``.

    Attributes:
        is_open: It has at most so many; it ends with ``end``.
    """

    units: int
    offset: int = 0
    is_open: bool = False
    credit: int = 0
    next_unit: int = 0
    next_out: int = 0
    done: Message | None = None
    _open: dict[int, bytes] = field(default_factory=dict)
    _held: dict[int, tuple[Outcome, int]] = field(default_factory=dict)
    _bytes: int = 0
    # Weak: a result that the caller has dropped needs no receipt any more.
    _unreceipted: WeakValueDictionary[tuple[str, int], Result] = field(default_factory=WeakValueDictionary)
    # A receipt can overtake the results it covers: (lease, first number, end, hash).
    _receipts: deque[tuple[str, int, int, str]] = field(default_factory=lambda: deque(maxlen=_RECEIPTS_KEPT))

    def may_send(self) -> bool:
        """True if the peer has room for the next unit, and so have we."""
        room = self.next_unit - self.next_out < limits.CLIENT_WINDOW_UNITS
        light = self._bytes < limits.CLIENT_WINDOW_BYTES or not self._open
        return self.credit > 0 and self.next_unit < self.units and room and light

    def send(self, payloads: Iterator[bytes]) -> Message | None:
        """The frame with the encoded inputs of the next units; None if none may leave now.

        Raises:
            LimitExceeded: the inputs of one unit are too large.
            UsageError: there are fewer units than were promised.
        """
        first = self.next_unit
        part = next(together(self._next(payloads), bytes), None)
        return None if part is None else {"first": first, "inputs": part}

    def _next(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        while self.may_send():
            payload = next(payloads, None)
            if payload is None and self.is_open:
                return
            if payload is None:
                raise UsageError(f"the inputs ended after {self.next_unit} units; their length promised {self.units}")
            if len(payload) > limits.PAYLOAD_BYTES:
                raise LimitExceeded(f"the inputs take {len(payload)} bytes, more than {limits.PAYLOAD_BYTES}")
            self._open[self.next_unit] = payload
            self._bytes += len(payload)
            self.next_unit += 1
            self.credit -= 1
            yield payload

    def end(self) -> Message:
        """The frame that says that no unit follows."""
        self.units = self.next_unit
        return {"end": True}

    def handle(self, message: Message) -> None:
        """Take one event of the peer.

        Raises:
            Malformed: fields missing, or a unit that is not open.
            WrongField: outputs that do not hash to their commitment.
        """
        name = take_text(message, "event", chars=64)
        match name:
            case "credit":
                # Wider than any honest grant, yet it keeps the sum small.
                self.credit = min(self.credit + take_int(message, "count", high=_U32), self.units)
            case "results":
                provider, lease = take_peer(message, "provider"), take_hex(message, "lease")
                for one in take_maps(message, "results"):
                    self._answer(self._result(one, provider, lease), len(one["outputs"]))
            case "failed":
                text = take_text(message, "text", chars=1 << 16)[: limits.ERROR_TEXT_CHARS]
                error = from_code(take_text(message, "code", chars=64), text)
                self._answer(Failure(self._unit(message) + self.offset, error), 0)
            case "receipt":
                self._receipt(message)

    def shown(self, message: Message) -> Iterator[Message]:
        """A message that was taken, for people: one event a result, without payloads, units renumbered."""
        if message["event"] != "results":
            yield {**message, "unit": take_int(message, "unit") + self.offset} if "unit" in message else message
            return
        common = {"event": "result", "provider": message["provider"], "lease": message["lease"]}
        for one in message["results"]:
            kept = {key: value for key, value in one.items() if key not in ("outputs", "salt")}
            yield {**common, **kept, "unit": one["unit"] + self.offset}

    def finish(self, message: Message) -> None:
        """Take the peer's ``done``; every unit must have been answered by now."""
        self.done = take_map(message, "done")
        missing = self.units - self.next_out - len(self._held)
        if missing:
            raise Malformed(f"the local peer ended the task with {missing} of {self.units} units unanswered")

    def ready(self) -> Iterator[Outcome]:
        """Hand on what can be handed on in order; drops it from the window."""
        while self.next_out in self._held:
            outcome, size_bytes = self._held.pop(self.next_out)
            self.next_out += 1
            self._bytes -= size_bytes
            yield outcome

    def _unit(self, message: Message) -> int:
        unit = take_int(message, "unit", high=_U32)
        if unit not in self._open:
            raise Malformed(f"the local peer answered unit {unit}, which is not open")
        return unit

    def _answer(self, outcome: Outcome, size_bytes: int) -> None:
        unit = outcome.unit - self.offset
        self._bytes += size_bytes - len(self._open.pop(unit))
        self._held[unit] = (outcome, size_bytes)

    def _result(self, message: Message, provider: str, lease: str) -> Result:
        unit = self._unit(message)
        salt, outputs = take_bytes(message, "salt", size=16), take_bytes(message, "outputs")
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
        result.outputs = decode_tensors(outputs)
        for lease, first, end, receipt in self._receipts:
            if lease == result.lease and first <= result.number < end:
                result.receipt = receipt
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
        self._cover(*stretch)

    def _cover(self, lease: str, first: int, end: int, receipt: str) -> None:
        for key in list(self._unreceipted):
            if key[0] == lease and first <= key[1] < end and (result := self._unreceipted.pop(key, None)):
                result.receipt = receipt


def _check(salt: bytes, payload: bytes, claimed: str, side: str) -> None:
    if commit(salt, payload).hash.hex() != claimed:
        raise wrong(side, f"the {side} of a run does not hash to the commitment in its statement")
