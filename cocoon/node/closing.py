"""Closing lanes: the requester asks, the provider signs, the escrow pays and forgets the lane.

A provider that does not answer costs the requester nothing but the close delay:
the lane's expiry is brought forward, and the expired lane pruned.

Purity: shell. Protocol ``/cocoon/close/1``. Spec: docs/spec/lanes.md, rules LAN-22 to LAN-29.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

import trio

from cocoon.core.errors import CocoonError, ProviderLost, wrong
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import CLOSE_REPLY_NS, LANE_LOOKS, ORDER_CARRY_NANOTON
from cocoon.core.machine import Effect
from cocoon.core.units import SECOND_NS
from cocoon.ledger.closing import (
    AskClose,
    CloseAgreed,
    CloseAskSent,
    CloseDenied,
    CloseStage,
    CloseWanted,
    LaneCloser,
    LaneLooked,
    OrderLapsed,
    ReportClosed,
    SendClose,
    SendExpire,
    SendPrune,
)
from cocoon.ledger.escrow import close_gas, lanes_gas, prune_body
from cocoon.ledger.lanes import BoughtLane, LaneStage
from cocoon.ledger.wallet import Outgoing
from cocoon.node.driver import Driver
from cocoon.node.means import Purse
from cocoon.node.money import EscrowSeen
from cocoon.node.patience import persist
from cocoon.node.proposal import refused
from cocoon.node.till import Till
from cocoon.node.treasury import Treasury
from cocoon.p2p.service import Mesh
from cocoon.p2p.streams import PeerStream
from cocoon.telemetry.log import Log
from cocoon.wire.judged import sign_cell, verify_cell
from cocoon.wire.messages import CloseAgree, CloseAsk, refusal
from cocoon.wire.orders import CloseOrder, expire_order
from cocoon.wire.schema import pack, unpack

CLOSE_PROTOCOL = "/cocoon/close/1"


class CloseCounter:
    """The provider's side: signs a close at the newest settled total, and nothing else."""

    def __init__(self, till: Till, log: Log) -> None:
        self._till = till
        self._log = log

    def serve(self, mesh: Mesh) -> None:
        """Take closes from ``mesh``."""
        mesh.serve(CLOSE_PROTOCOL, self._answer)

    async def _answer(self, stream: PeerStream) -> None:
        try:
            reply = pack(await self._agree(unpack(await stream.receive(), CloseAsk), stream.peer))
        except CocoonError as error:
            self._log.info("close_refused", peer=stream.peer, code=error.code, text=error.text)
            reply = pack(refusal(error))
        await stream.send(reply)

    async def _agree(self, ask: CloseAsk, peer: PeerKey) -> CloseAgree:
        till = self._till
        order = CloseOrder.unpack(ask.order)
        lane = till.lanes.lanes.get((order.head.escrow, order.lane))
        if lane is None or lane.requester != peer:
            raise wrong("lane", f"lane {order.lane} of this escrow is none that you pay us from")
        await till.agree_close(order, ask.signature, await till.money.look(lane.escrow))
        return CloseAgree(signature=sign_cell(order.hash(), till.money.provider_key))


class Closing:
    """The requester's side: every close that is under way."""

    def __init__(self, purse: Purse, treasury: Treasury, nursery: trio.Nursery) -> None:
        self._purse = purse
        self._treasury = treasury
        self._nursery = nursery
        self._closes: dict[int, _Close] = {}

    def restore(self) -> None:
        """Go on with what an earlier life of this peer began to close."""
        if any(lane.stage is LaneStage.ENDING for lane in self._treasury.book.lanes.values()):
            self._nursery.start_soon(self._resume)

    async def _resume(self) -> None:
        """Begin once the chain has said which of those lanes are left."""
        await persist(self._purse.log, "lane_not_seen", self._treasury.look)
        for lane in tuple(self._treasury.book.lanes.values()):
            if lane.stage is LaneStage.ENDING:
                await self._close(lane)

    async def close_all(self, unsettled: Collection[LeaseId]) -> None:
        """Close every lane without an open lease; returns when each is gone, or has to wait for its expiry.

        Args:
            unsettled: Broken leases whose provider did not come to settle them; it has until the expiry for that.
        """
        await self._treasury.look()
        for lane in tuple(self._treasury.book.lanes.values()):
            free = lane.lease is None or lane.lease in unsettled
            if lane.stage is LaneStage.ENDING or (lane.stage is LaneStage.OPEN and free):
                await self._close(lane)
        for close in tuple(self._closes.values()):
            await close.decided.wait()

    @property
    def waiting(self) -> int:
        """Lanes whose provider did not agree: they end with their expiry."""
        return sum(close.machine.stage in (CloseStage.EXPIRING, CloseStage.PRUNING) for close in self._closes.values())

    async def _close(self, lane: BoughtLane) -> None:
        """Close ``lane`` as far as its provider goes along; one at a time, because each takes the turn of an order."""
        if lane.lane not in self._closes:
            close = self._closes[lane.lane] = _Close(self._purse, self._treasury, lane)
            self._nursery.start_soon(self._run, close)
            await close.decided.wait()

    async def _run(self, close: _Close) -> None:
        try:
            await close.run()
        finally:
            del self._closes[close.lane.lane]


class _Close:
    """The shell around one close."""

    def __init__(self, purse: Purse, treasury: Treasury, lane: BoughtLane) -> None:
        self.lane = lane
        #: The lane is gone, or will be when it expires.
        self.decided = trio.Event()
        self._purse = purse
        self._treasury = treasury
        self._delay_s = treasury.money.facts.close_delay_s
        self.machine = LaneCloser(lane.lane)
        self._driver = Driver(self.machine, purse.clock, self._perform, self._record)
        self._agreed = trio.Event()
        self._asking: trio.CancelScope | None = None
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Close the lane, however long that takes."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._driver.post(CloseWanted(self.lane.head.total_nanoton))
            nursery.start_soon(self._watch)
            await self._driver.run()
            nursery.cancel_scope.cancel()
        self.decided.set()

    async def _record(self, effects: Sequence[Effect]) -> None:
        """The lane takes no lease from here on; orders and messages have rows of their own in the outbox."""
        if self.lane.stage is not LaneStage.ENDING:
            await persist(self._purse.log, "close_waits", partial(self._treasury.end, self.lane.lane))

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case AskClose(_, total_nanoton):
                self._nursery.start_soon(self._cooperate, total_nanoton)
            case SendClose():
                self._agreed.set()
            case SendExpire():
                if self._asking is not None:
                    self._asking.cancel()               # else it would keep the turn that the other order needs
                self._nursery.start_soon(self._insist, self._expire)
                self.decided.set()
            case SendPrune():
                self._nursery.start_soon(self._insist, self._prune)
            case ReportClosed():
                self._purse.log.info("lane_closed", number=self.lane.lane)
                self._driver.stop()

    async def _cooperate(self, total_nanoton: int) -> None:
        """Ask for the provider's signature under the next order number and, once it is taken, carry the order."""
        try:
            async with self._treasury.orders.turn() as turn:
                order = CloseOrder(turn.head, self.lane.lane, total_nanoton)
                if not self._gone(turn.seen) and (signature := await self._agreement(order)):
                    await turn.send(order.cell(), close_gas(turn.seen.depth), provider_signature=signature)
        except CocoonError as error:
            self._purse.log.info("close_failed", number=self.lane.lane, code=error.code, text=error.text)
            await self._driver.post(OrderLapsed() if self._agreed.is_set() else CloseDenied(error.code))
        else:
            await self._look()

    async def _agreement(self, order: CloseOrder) -> bytes:
        """The provider's signature, once the machine took it; empty if the machine did not wait so long."""
        with trio.CancelScope() as self._asking:
            if self.machine.stage is not CloseStage.ASKED:
                return b""
            await self._driver.post(CloseAskSent())
            signature = await self._ask(order)
            await self._driver.post(CloseAgreed(signature))
            await self._agreed.wait()
            return signature
        return b""

    def _gone(self, seen: EscrowSeen) -> bool:
        """Whether the lane was on chain and is not any more: an order of an earlier life may have ended it."""
        state, lane = seen.state, self.lane.lane
        return state is not None and lane < state.next_lane and lane not in state.lanes

    async def _ask(self, order: CloseOrder) -> bytes:
        """The provider key's signature of ``order``, checked.

        Raises:
            CocoonError: it refuses, cannot be reached, or signed something else.
        """
        ask = CloseAsk(order=order.pack(), signature=sign_cell(order.hash(), self._treasury.money.lane_key))
        data = b""
        with trio.move_on_after(CLOSE_REPLY_NS / SECOND_NS):
            stream = await self._purse.mesh.open_stream(self.lane.provider, CLOSE_PROTOCOL)
            try:
                await stream.send(pack(ask))
                data = await stream.receive()
            finally:
                with trio.CancelScope(shield=True):
                    await stream.close()
        if not data:
            raise ProviderLost("the provider did not answer the close")
        if (error := refused(data)) is not None:
            raise error
        signature = unpack(data, CloseAgree).signature
        verify_cell(order.hash(), self.lane.provider_key, signature)
        return signature

    async def _insist(self, job: Callable[[], Awaitable[None]]) -> None:
        """Do what needs no provider, however long the chain or the wallet is not able to."""
        await persist(self._purse.log, "close_waits", job, number=self.lane.lane)
        await self._look()

    async def _expire(self) -> None:
        async with self._treasury.orders.turn() as turn:
            if not self._gone(turn.seen):
                await turn.send(expire_order(turn.head, [self.lane.lane]), lanes_gas(1, turn.seen.depth))

    async def _prune(self) -> None:
        treasury = self._treasury
        body = prune_body(self.lane.lane, [self.lane.lane])
        key = b"prune:" + treasury.address + self.lane.lane.to_bytes(4, "big")
        await treasury.money.ledger.submit(key, Outgoing(treasury.address, ORDER_CARRY_NANOTON, body))

    async def _watch(self) -> None:
        """Look at the lane while it is on its way out."""
        while True:
            await trio.sleep(max(1, self._delay_s // LANE_LOOKS))
            if self.machine.stage is not CloseStage.ASKED:
                await self._look()

    async def _look(self) -> None:
        """Tell the machine how the lane stands, once the chain says it."""
        seen = await persist(self._purse.log, "lane_not_seen", self._treasury.look, number=self.lane.lane)
        if seen.state is not None:
            await self._driver.post(LaneLooked(seen.state.lanes.get(self.lane.lane), seen.at_s))
