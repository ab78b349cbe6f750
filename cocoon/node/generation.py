"""The runs of a lease on a decoder: sequences that go on beside each other, each token told as it is made.

Results leave in the order of their numbers, as every lease's do; the tokens of a
later one were told by then.

Purity: shell. Spec: docs/spec/tokens.md, rules TOK-22 to TOK-27; leases.md, LEA-5 and LEA-6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from cocoon.core.errors import CocoonError
from cocoon.core.limits import FLIGHT_BYTES, LEASE_SEQUENCES, PAYLOAD_BYTES
from cocoon.core.machine import Event
from cocoon.core.units import MICROSECOND_NS, MILLISECOND_NS
from cocoon.core.values import replace
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.node.execution import Execution
from cocoon.node.means import Shop
from cocoon.node.models import HeldModel
from cocoon.runtime.service import Answer
from cocoon.scheduler import sale
from cocoon.wire.messages import Lease, RunToken
from cocoon.wire.signing import Signed

#: The file of a package with the bytes of its tokens (TOK-4).
PIECES_FILE = "tokens.bin"


class Generation(Execution):
    """One lease's decoder. ``speak`` does the work; ``begin`` only says what is due."""

    def __init__(
        self, shop: Shop, lease: Signed[Lease], issuer: ReceiptIssuer, news: Callable[[], trio.Event],
        post: Callable[[Event], Awaitable[bool]], close: Callable[[], Awaitable[None]],
        tell: Callable[[RunToken], None],
    ) -> None:
        """
        Args:
            tell: Lets a token leave as soon as the link takes it.
        """
        super().__init__(shop, lease, issuer, news, post, close)
        self._tell = tell
        self._line: deque[int] = deque()
        #: With the worker, ascending; and when each began.
        self._begun: dict[int, int] = {}
        #: When each of them told its first token.
        self._spoke: dict[int, int] = {}
        #: Over, behind one that is not.
        self._answers: dict[int, Answer] = {}
        self._cancelled: list[int] = []
        self._due = trio.Event()

    def begin(self, nursery: trio.Nursery, numbers: Sequence[int]) -> None:
        """These are asked for; each begins when it may, in their order."""
        self._line += numbers
        self._due.set()

    def cancel(self, number: int) -> None:
        """Have this sequence end with the token that is under way."""
        if number in self._jobs and number not in self._cancelled and len(self._cancelled) < 2 * LEASE_SEQUENCES:
            self._cancelled.append(number)
            self._due.set()

    async def speak(self) -> None:
        """Turn by turn, until the lease or its worker ends."""
        while True:
            while not (self._line or self._begun):
                self._due = trio.Event()
                await self._due.wait()
            if self._seat is None or not await self._turn():
                return

    def _with(self, number: int) -> tuple[int, int]:
        runs, units = super()._with(number)
        return runs + len(self._begun), units + sum(map(self._most, self._begun))

    def _may_start(self, number: int) -> bool:
        """Whether it may be begun beside the others now."""
        open_runs, units = self._with(number)
        return self._issuer.affordable(open_runs, units) and self._issuer.may_start(open_runs, units)

    def _pieces(self, model: HeldModel) -> Path | None:
        return model.path_of(PIECES_FILE)

    async def _turn(self) -> bool:
        """One piece or step of the worker, and what it tells; False if there will be no other one."""
        asked = await self._admitted()
        if not asked and not self._begun:
            return False
        cancelled = [number for number in self._cancelled if number in self._begun] + self._overdue()
        # Those that are to begin are cancelled when they do.
        self._cancelled = [number for number in self._cancelled if number in self._jobs and number not in self._begun]
        seat, requests = self._seat, [(number, self._jobs[number].request.inputs) for number in asked]
        assert seat is not None
        try:
            report = await seat.turn(requests, cancelled)
        except CocoonError as error:
            broken, lost = tuple(self._begun), not seat.alive
            for part in (self._begun, self._spoke, self._answers):
                part.clear()
            for number in broken:
                await self._post(sale.RunBroke(number, error.code, error.text, lost))
            return not lost
        for number, place, token, head in report.told:
            if number in self._begun:                   # a worker that was taken over may name any
                self._spoke.setdefault(number, self._shop.clock.now_ns())
                self._tell(RunToken(number=number, place=place, token=token, head=head))
        for number, end in report.ended:
            if number not in self._begun:
                continue
            if isinstance(end, Answer):
                self._answers[number] = end
            else:
                await self._broke(number, end)
        await self._finish()
        return True

    async def _admitted(self) -> list[int]:
        """Those of the line that begin now; waits only if nothing is under way."""
        asked: list[int] = []
        size_bytes = 0
        while self._line:
            if not self._begun:
                while self._finished_bytes > FLIGHT_BYTES:
                    await self._popped.wait()
                if not await self._allowed(self._line[0]):
                    return []
            elif not self._may_start(self._line[0]):
                break
            size_bytes += len(self._jobs[self._line[0]].request.inputs)
            if asked and size_bytes > PAYLOAD_BYTES:
                break
            asked.append(number := self._line.popleft())
            self._begun[number] = self._shop.clock.now_ns()
        return asked

    def _overdue(self) -> list[int]:
        """Sequences that have spoken for as long as a run may take: a run has its end, whatever it is billed for."""
        last_ns = self._shop.clock.now_ns() - self._lease.message.run_ms * MILLISECOND_NS
        return [number for number, began_ns in self._spoke.items() if began_ns <= last_ns and number in self._begun]

    async def _finish(self) -> None:
        """Results of all that are over and have no earlier one before them."""
        finished: list[int] = []
        for number, began_ns in tuple(self._begun.items()):
            if (answer := self._answers.pop(number, None)) is None:
                break
            # The worker's word, which may be any number: no longer than it was there.
            there_us = (self._shop.clock.now_ns() - began_ns) // MICROSECOND_NS
            try:
                self._make(number, replace(answer, ran_us=min(answer.ran_us, there_us)), began_ns)
            except CocoonError as error:
                await self._broke(number, error)
            else:
                self._forget(number)
                finished.append(number)
        if finished:
            await self._post(sale.RunsFinished(tuple(finished)))

    def _forget(self, number: int) -> None:
        del self._begun[number]
        self._spoke.pop(number, None)

    async def _broke(self, number: int, error: CocoonError) -> None:
        self._forget(number)
        await self._post(sale.RunBroke(number, error.code, error.text, worker_lost=False))
