"""A chorus: the turns of one decoder, and the leases whose sequences take part in them.

The decoder steps all its sequences together, whoever asked for them. What a lease asks and
cancels goes with the next turn, and what a turn tells goes to the lease that it is for. A
lease that is slow to speak keeps the others waiting for a moment only.

Invariants
    A sequence has a number of its own in the worker, whatever its lease calls it.
    What a worker says of a sequence that nobody has is told to nobody.
    The worker has so many sequences at a time; those of the leases that have fewest begin first.

Purity: shell. Spec: docs/spec/tokens.md, rules TOK-29 to TOK-31.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from cocoon.core.errors import CocoonError, from_code
from cocoon.core.ids import LeaseId
from cocoon.core.limits import CHORUS_PATIENCE_NS, LEASE_SEQUENCES, PAYLOAD_BYTES
from cocoon.core.units import SECOND_NS
from cocoon.runtime.process import Answer, Asked, TurnReport
from cocoon.runtime.protocol import Token

#: One turn of a worker: what begins, and what is cancelled.
Work = Callable[[Sequence[Asked], Sequence[int]], Awaitable[TurnReport]]


@dataclass(slots=True, eq=False)
class _Voice:
    """What one lease has in a chorus."""

    #: Of the lease, for the worker, which shares its rows among them.
    whose: int
    line: deque[tuple[int, bytes]] = field(default_factory=deque)
    #: With the worker: its numbers of them, by those of the lease.
    singing: dict[int, int] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    told: list[Token] = field(default_factory=list)
    ended: list[tuple[int, Answer | CocoonError]] = field(default_factory=list)
    error: CocoonError | None = None
    #: Waits for the end of the turn.
    is_here: bool = False

    @property
    def has_news(self) -> bool:
        """Whether a turn told it something that it has not heard."""
        return bool(self.told or self.ended or self.error)

    @property
    def takes_part(self) -> bool:
        """Whether there is anything for it in the next turn."""
        return bool(self.line or self.singing)


class Chorus:
    """Give it a worker with ``run``; leases take part by ``turn``."""

    def __init__(self) -> None:
        """Nobody takes part."""
        self._voices: dict[LeaseId, _Voice] = {}
        #: Of the worker's numbers of sequences.
        self._owners: dict[int, tuple[LeaseId, int]] = {}
        self._count = self._leases = 0
        #: Sequences that the worker still has, and nobody wants.
        self._orphans: list[int] = []
        self._came, self._turned = trio.Event(), trio.Event()

    async def turn(self, lease: LeaseId, asked: Sequence[tuple[int, bytes]], cancelled: Sequence[int]) -> TurnReport:
        """As ``Worker.turn``, for the sequences of this lease, by its own numbers.

        Raises:
            CocoonError: what befell the worker; the sequences of this lease are lost.
        """
        voice = self._voices.get(lease)
        if voice is None:
            self._leases += 1
            voice = self._voices[lease] = _Voice(self._leases)
        voice.line += asked
        voice.cancelled += cancelled
        if not voice.has_news:                          # else it was slow, and the next turn is under way
            voice.is_here = True
            self._came.set()
            await self._turned.wait()
        if (error := voice.error) is not None:
            voice.error = None
            raise from_code(error.code, error.text)
        told, ended, voice.told, voice.ended = tuple(voice.told), tuple(voice.ended), [], []
        return TurnReport(told, ended)

    def leave(self, lease: LeaseId) -> None:
        """Nothing of this lease is wanted any more."""
        if (voice := self._voices.pop(lease, None)) is not None:
            for number in voice.singing.values():
                self._orphans.append(number)
                del self._owners[number]

    async def run(self, work: Work) -> None:
        """Turn by turn; until the worker raises what it raised."""
        while True:
            await self._until(lambda: any(voice.takes_part for voice in self._voices.values()))
            asked, cancelled = self._begin(), self._cancel()
            self._hand_out(await work(asked, cancelled))
            self._tell()
            # Whoever heard a token may cancel with the next turn, or ask for more.
            with trio.move_on_after(CHORUS_PATIENCE_NS / SECOND_NS):
                await self._until(lambda: all(voice.is_here for voice in self._voices.values() if voice.singing))

    def fail(self, error: CocoonError, *, all_wait: bool) -> set[LeaseId]:
        """The worker's sequences are lost; the leases that had some, who hear of it.

        Args:
            all_wait: Who had none waits on; else they hear of it too.
        """
        lost = {lease for lease, voice in self._voices.items() if voice.singing or not all_wait}
        for lease in lost:
            voice = self._voices[lease]
            voice.error = error
            for part in (voice.line, voice.singing, voice.cancelled, voice.told, voice.ended):
                part.clear()
        self._owners.clear()
        self._orphans.clear()
        if lost:
            self._tell()
        return lost

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._came = trio.Event()
            await self._came.wait()

    def _tell(self) -> None:
        for voice in self._voices.values():
            voice.is_here = False                       # until it comes for the next turn
        self._turned.set()
        self._turned = trio.Event()

    def _begin(self) -> list[Asked]:
        """Sequences that go to the worker now."""
        asked: list[Asked] = []
        size_bytes = 0
        while len(self._owners) < LEASE_SEQUENCES:
            waiting = [one for one in self._voices.items() if one[1].line]
            if not waiting:
                break
            lease, voice = min(waiting, key=lambda one: len(one[1].singing))
            number, payload = voice.line[0]
            size_bytes += len(payload)
            if asked and size_bytes > PAYLOAD_BYTES:
                break
            voice.line.popleft()
            self._count += 1
            voice.singing[number] = self._count
            self._owners[self._count] = lease, number
            asked.append((self._count, voice.whose, payload))
        return asked

    def _cancel(self) -> list[int]:
        """The worker's numbers of what is not wanted any more; what has not begun is cancelled when it has."""
        orphans, self._orphans = self._orphans[:LEASE_SEQUENCES], self._orphans[LEASE_SEQUENCES:]
        for voice in self._voices.values():
            begun = [number for number in voice.cancelled if number in voice.singing]
            waiting = {number for number, _ in voice.line}
            voice.cancelled = [number for number in voice.cancelled if number in waiting]
            orphans += [voice.singing[number] for number in begun]
        return orphans

    def _hand_out(self, report: TurnReport) -> None:
        for number, place, token, head in report.told:
            if (owner := self._owners.get(number)) is not None:
                self._voices[owner[0]].told.append((owner[1], place, token, head))
        for number, end in report.ended:
            if (owner := self._owners.pop(number, None)) is not None:
                voice = self._voices[owner[0]]
                voice.ended.append((owner[1], end))
                voice.singing.pop(owner[1])
