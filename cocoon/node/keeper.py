"""The shell around the claims of one lane: looks at the chain, sends claims, says how they ended.

Purity: shell. Spec: docs/spec/lanes.md, rules LAN-15 to LAN-21.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, InsufficientFunds
from cocoon.core.limits import CLAIM_CARRY_NANOTON, CLAIM_WAIT_S, LANE_LOOKS
from cocoon.core.machine import DeadlinePassed
from cocoon.core.units import SECOND_NS
from cocoon.ledger.claims import (
    ClaimAsked,
    ClaimEnded,
    ClaimEvent,
    ClaimKeeper,
    LaneSeen,
    LookAtLane,
    ReportLaneLost,
    SendClaim,
)
from cocoon.ledger.escrow import LaneState, claim_body, external_claim_body, external_claim_hash
from cocoon.ledger.lanes import SoldLane
from cocoon.ledger.wallet import Outgoing, external_message
from cocoon.node.money import EscrowSeen, Money
from cocoon.telemetry.log import Log
from cocoon.wire.cells import Cell
from cocoon.wire.judged import Voucher, sign_cell


class Keeper:
    """Watches one lane that pays us. What it durably rests on, the voucher, is in the journal before it is told."""

    def __init__(
        self, money: Money, clock: Clock, log: Log, lane: SoldLane, seen: Callable[[LaneState | None], None]
    ) -> None:
        """``seen`` is told each proven state of the lane; None: it is gone."""
        self._money = money
        self._seen = seen
        self._read_ns = clock.now_ns()
        self._period_ns = money.facts.close_delay_s * SECOND_NS // LANE_LOOKS
        self._clock = clock
        self._log = log
        self.machine = ClaimKeeper(lane.escrow, lane.lane, money.facts.close_delay_s)
        self._news = trio.Event()
        self._claimed = trio.Event()

    async def run(self) -> None:
        """Watch the lane until it is gone."""
        while not self.machine.gone:
            self._news = trio.Event()
            due_ns = self.machine.deadline_ns()
            wait_s = math.inf if due_ns is None else max(0, due_ns - self._clock.now_ns()) / SECOND_NS
            with trio.move_on_after(wait_s):
                await self._news.wait()
            await self.tell(DeadlinePassed())

    async def tell(self, event: ClaimEvent | DeadlinePassed) -> None:
        """Tell the machine a fact, and do what it orders; returns when that is done."""
        for effect in self.machine.handle(self._clock.now_ns(), event):
            match effect:
                case LookAtLane():
                    await self._look()
                case SendClaim(voucher, signature):
                    await self._claim(voucher, signature)
                case ReportLaneLost(_, lane, unpaid_nanoton):
                    self._log.error("lane_lost", number=lane, total_nanoton=unpaid_nanoton)
        self._news.set()

    async def claim_now(self) -> None:
        """Claim what is due if that is worth its fee, and wait until that is in a block or refused."""
        await self.tell(ClaimAsked())
        while self.machine.claiming_seq:                # one that was under way before
            self._claimed = trio.Event()
            await self._claimed.wait()

    async def _look(self) -> None:
        machine = self.machine
        looked = await self._read()
        if looked is None:
            if self._clock.now_ns() - self._read_ns > (LANE_LOOKS - 2) * self._period_ns:
                self._seen(None)                        # its end may have been brought forward, and come
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
            body = claim_body(voucher.seq, signature, voucher.cell())
            after_lt = await self._send(voucher, signature, body)
            paid = await self._executed(voucher, body, after_lt)
        except CocoonError as error:
            self._log.warning("claim_failed", number=voucher.lane, code=error.code, text=error.text)
        await self.tell(ClaimEnded(voucher.seq, paid))
        self._claimed.set()

    async def _send(self, voucher: Voucher, signature: bytes, body: Cell) -> int:
        """Claim from the wallet or, without a coin for the gas, by a message from outside; the time it left."""
        money, escrow = self._money, self.machine.escrow
        try:
            sent = await money.ledger.submit(b"claim:" + voucher.hash(), Outgoing(escrow, CLAIM_CARRY_NANOTON, body))
        except InsufficientFunds:
            ours = sign_cell(external_claim_hash(voucher.hash()), money.provider_key)
            before = await money.ledger.account(escrow)
            await money.ledger.send_external(
                external_message(escrow, external_claim_body(ours, signature, voucher.cell()))
            )
            return before.last_lt
        return sent.lt

    async def _executed(self, voucher: Voucher, body: Cell, after_lt: int) -> bool:
        """Wait until the lane has paid the voucher, or the claim was refused."""
        money, machine = self._money, self.machine
        seen = await money.look(machine.escrow)
        end_s = seen.at_s + CLAIM_WAIT_S
        while seen.at_s < end_s:
            lane = seen.state.lanes.get(machine.lane) if seen.state is not None else None
            if lane is None or lane.paid_nanoton >= voucher.total_nanoton:
                return lane is not None
            for transaction in await money.ledger.transactions(machine.escrow, after_lt):
                if transaction.in_body == body and not transaction.success:
                    self._log.warning("claim_refused", number=machine.lane, exit_status=transaction.exit_code)
                    return False
            seen = await money.next_look(machine.escrow, seen.seqno)
        return False
