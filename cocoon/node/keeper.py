"""The shell around the claims of one lane: looks at the chain, sends claims, says how they ended.

Purity: shell. Spec: docs/spec/lanes.md, rules LAN-15 to LAN-21.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import ChainRefused, CocoonError, InsufficientFunds
from cocoon.core.limits import CLAIM_CARRY_NANOTON, CLAIM_WAIT_S, LANE_LOOKS
from cocoon.core.machine import Effect
from cocoon.core.units import SECOND_NS
from cocoon.ledger.claims import (
    ClaimAsked,
    ClaimEnded,
    ClaimEvent,
    ClaimKeeper,
    LaneSeen,
    LaneUnseen,
    LookAtLane,
    ReportClaimed,
    ReportLaneGone,
    SendClaim,
)
from cocoon.ledger.escrow import (
    LaneState,
    claim_body,
    external_claim_body,
    external_claim_hash,
    external_due_nanoton,
)
from cocoon.ledger.till import SoldLane
from cocoon.ledger.wallet import Outgoing, external_message
from cocoon.node.driver import Driver
from cocoon.node.money import EscrowSeen, Money
from cocoon.telemetry.log import Log
from cocoon.wire.cells import Cell
from cocoon.wire.judged import Voucher, sign_cell


class Keeper:
    """Watches one lane that pays us. What it durably rests on, the voucher, is in the journal before it is told."""

    def __init__(
        self, money: Money, clock: Clock, log: Log, lane: SoldLane,
        seen: Callable[[LaneState | None], None], gone: Callable[[], Awaitable[None]],
    ) -> None:
        """``seen`` is told each proven state of the lane, None for gone; ``gone`` records that it ended."""
        self._money = money
        self._seen = seen
        self._gone = gone
        self._read_ns = clock.now_ns()
        self._period_ns = money.facts.close_delay_s * SECOND_NS // LANE_LOOKS
        self._clock = clock
        self._log = log
        self.machine = ClaimKeeper(lane.escrow, lane.lane, money.facts.close_delay_s)
        self._driver = Driver(self.machine, clock, self._perform, self._record)
        self._claimed = trio.Event()
        # A claim that the escrow did not pay in full, and when it left the wallet: the next one gets another name.
        self._failed: tuple[Voucher | None, int] = (None, 0)
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Watch the lane until it is gone."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._driver.run()
            nursery.cancel_scope.cancel()
        self._claimed.set()

    async def tell(self, event: ClaimEvent) -> None:
        """Tell the machine a fact; returns once it has it."""
        await self._driver.post(event)

    async def claim_now(self) -> None:
        """Claim what is due if that is worth its fee, and wait until that is in a block or refused."""
        claimed = self._claimed
        if await self._driver.post(ClaimAsked()):
            await claimed.wait()

    async def _record(self, effects: Sequence[Effect]) -> None:
        """A claim has a row of its own in the outbox."""
        if any(isinstance(effect, ReportLaneGone) for effect in effects):
            await self._gone()

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case LookAtLane():
                self._nursery.start_soon(self._look)
            case SendClaim(voucher, signature):
                self._nursery.start_soon(self._claim, voucher, signature)
            case ReportClaimed():
                self._claimed.set()
                self._claimed = trio.Event()
            case ReportLaneGone(unpaid_nanoton):
                if unpaid_nanoton:
                    self._log.error("lane_lost", number=self.machine.lane, total_nanoton=unpaid_nanoton)
                self._driver.stop()

    async def _look(self) -> None:
        machine = self.machine
        looked = await self._read()
        if looked is None:
            if self._clock.now_ns() - self._read_ns > (LANE_LOOKS - 2) * self._period_ns:
                self._seen(None)                        # its end may have been brought forward, and come
            await self.tell(LaneUnseen())
            return
        self._read_ns = self._clock.now_ns()
        seen, fee_nanoton = looked
        state = seen.state.lanes.get(machine.lane) if seen.state is not None else None
        expected = seen.state is not None and machine.lane < seen.state.next_lane
        if state is not None or expected:
            self._seen(state)
        await self.tell(LaneSeen(state, seen.at_s, fee_nanoton, expected))

    async def _read(self) -> tuple[EscrowSeen, int] | None:
        """The escrow and the fee of a claim; None if the chain does not give them before the next look is due."""
        with trio.move_on_after(self._period_ns / SECOND_NS):
            try:
                rules = await self._money.rules()
                return await self._money.look(self.machine.escrow), rules.claim_fee_nanoton
            except CocoonError as error:
                self._log.info("lane_not_seen", number=self.machine.lane, code=error.code)
        return None

    async def _claim(self, voucher: Voucher, signature: bytes) -> None:
        paid = False
        try:
            paid = await self._paid(voucher, signature)
        except CocoonError as error:
            self._log.warning("claim_failed", number=voucher.lane, code=error.code, text=error.text)
        await self.tell(ClaimEnded(voucher.seq, paid))

    async def _paid(self, voucher: Voucher, signature: bytes) -> bool:
        """Claim, and say whether the lane has paid the whole voucher: an escrow pays no more than it has."""
        money, escrow = self._money, self.machine.escrow
        before = await money.look(escrow)
        body = claim_body(voucher.seq, signature, voucher.cell())
        failed, failed_lt = self._failed
        name = b"claim:" + voucher.hash() + (failed_lt if failed == voucher else 0).to_bytes(8, "big")
        try:
            sent_lt = (await money.ledger.submit(name, Outgoing(escrow, CLAIM_CARRY_NANOTON, body))).lt
        except InsufficientFunds:
            sent_lt, body = before.last_lt, await self._from_outside(voucher, signature, before)
        try:
            await money.executed(escrow, sent_lt, body, before.at_s + CLAIM_WAIT_S)
        except ChainRefused:
            self._failed = (voucher, sent_lt)
            raise
        seen = await money.look(escrow)
        lane = seen.state.lanes.get(voucher.lane) if seen.state is not None else None
        if lane is not None and lane.paid_nanoton >= voucher.total_nanoton:
            return True
        self._failed = (voucher, sent_lt)
        return False

    async def _from_outside(self, voucher: Voucher, signature: bytes, seen: EscrowSeen) -> Cell:
        """Claim without a coin for the gas, which then comes out of what is due; the body that was sent."""
        money = self._money
        least_nanoton = external_due_nanoton(await money.ledger.prices(), seen.depth)
        if self.machine.due_nanoton < least_nanoton:
            raise InsufficientFunds(
                f"the wallet cannot carry a claim, and the {self.machine.due_nanoton} nanoton due are less than the "
                f"{least_nanoton} that pay for one from outside; send coins to the wallet"
            )
        ours = sign_cell(external_claim_hash(voucher.hash()), money.provider_key)
        body = external_claim_body(ours, signature, voucher.cell())
        await money.ledger.send_external(external_message(self.machine.escrow, body))
        return body
