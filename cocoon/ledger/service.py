"""The ledger of a running peer: chain, signer, outbox and journal together.

Row before signature's first sending, row before anybody is told: so a peer that
is killed on any line sends each message once, and knows it.

Purity: shell. Spec: docs/spec/outbox.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from cocoon.config.network import ChainFacts
from cocoon.core.clock import Clock
from cocoon.core.errors import (
    Cancelled,
    ChainRefused,
    ChainUnreachable,
    CocoonError,
    LimitExceeded,
    PeerFault,
    SignerLost,
    StorageFull,
    Unavailable,
    UsageError,
    WrongNetwork,
    from_code,
)
from cocoon.core.groups import single_error
from cocoon.core.limits import (
    CHAIN_VERB_NS,
    OUTBOX_ITEMS,
    OUTBOX_KEY_BYTES,
    OUTBOX_PAUSE_NS,
    OUTBOX_RESEND_NS,
    TRANSACTIONS_READ,
)
from cocoon.core.machine import Effect, Event
from cocoon.core.units import SECOND_NS
from cocoon.ledger import rows
from cocoon.ledger.chain import Chain
from cocoon.ledger.onchain import Account, Prices, Transaction
from cocoon.ledger.outbox import (
    EndPlace,
    MessageQueued,
    MessageSigned,
    Outbox,
    SendExternal,
    SigningLost,
    SigningRefused,
    SignMessage,
    WalletSeen,
)
from cocoon.ledger.rows import EndedRow, Failure, NameRow, QueuedRow, Sent, SignedRow
from cocoon.ledger.signer.service import Signer
from cocoon.ledger.supply import Supply
from cocoon.ledger.wallet import Outgoing, deployment_nanoton, external_message, read_wallet, wallet_state_init
from cocoon.store.chain import Entry
from cocoon.telemetry.log import get_logger
from cocoon.wire.cells import Cell, CellBuilder

__all__ = ["Ledger", "Outgoing", "Sent", "open_ledger"]

_FAUCET_ASK = 0x0C0CFA01


class Book(Protocol):
    """What the ledger asks of a journal (``store.service.Journal``)."""

    async def append(self, kind: str, body: bytes, unique: bytes | None = None) -> int: ...

    def find(self, unique: bytes) -> Entry | None: ...

    def under(self, prefix: bytes) -> Iterator[Entry]: ...

    def last_under(self, prefix: bytes) -> Entry | None: ...


class Ledger:
    """Money in and out of one peer. For one trio loop; see ``open_ledger``."""

    def __init__(
        self, facts: ChainFacts, chain: Chain, signer: Signer, journal: Book, clock: Clock, outbox: Outbox, place: int
    ) -> None:
        """``outbox`` is restored from ``journal``; ``place`` is its newest one."""
        self.facts = facts
        #: Hash part of the wallet's address.
        self.address = signer.address(facts.global_id)
        self._chain, self._signer, self._journal, self._clock = chain, signer, journal, clock
        self._outbox = outbox
        self._place = place
        self._waiting: dict[int, trio.Event] = {}
        self._closed = False
        self._work = trio.Event()
        self._turn = trio.Lock()
        self._log = get_logger("ledger")

    # --- reading ---------------------------------------------------------

    async def account(self, address: bytes) -> Account:
        """As ``Chain.account``."""
        return await self._chain.account(address)

    async def now_s(self) -> int:
        """As ``Chain.now_s``."""
        return await self._chain.now_s()

    async def prices(self) -> Prices:
        """As ``Chain.prices``."""
        return await self._chain.prices()

    async def transactions(self, address: bytes, after_lt: int = 0, most: int = 256) -> list[Transaction]:
        """As ``Chain.transactions``."""
        return await self._chain.transactions(address, after_lt, most)

    async def supply(self) -> Supply:
        """As ``Chain.supply``."""
        return await self._chain.supply()

    async def wait_block(self, after: int) -> int:
        """As ``Chain.wait_block``."""
        return await self._chain.wait_block(after)

    async def balance(self) -> int:
        """Proven balance of the wallet, nanoton."""
        return (await self._chain.account(self.address)).balance_nanoton

    async def deployment_nanoton(self) -> int:
        """What deploying this wallet costs at the network's present prices."""
        return deployment_nanoton(await self._chain.prices(), self._signer.public_key, self.facts.global_id)

    async def lane_seed(self, index: int) -> bytes:
        """As ``Signer.lane_seed`` on this network."""
        return await self._signer.lane_seed(self.facts.genesis, index)

    async def provider_seed(self) -> bytes:
        """As ``Signer.provider_seed`` on this network."""
        return await self._signer.provider_seed(self.facts.genesis)

    # --- sending ---------------------------------------------------------

    async def submit(self, key: bytes, message: Outgoing) -> Sent:
        """Send ``message`` from the wallet exactly once, however often this is called with ``key``.

        Durable before it is sent; survives restarts. Returns when the wallet's transaction is proven and
        holds the message: what its receiver did with it is another question. A cancelled call goes on in
        the background.

        Args:
            key: 1 to ``OUTBOX_KEY_BYTES`` bytes that name the intention, say ``b"open:" + escrow + number``.

        Raises:
            UsageError: ``key`` was used for another message.
            InsufficientFunds, CapExceeded: given up, nothing was executed; the key may be tried again.
            LimitExceeded: too many messages wait, or this one is larger than the signer takes.
            Cancelled: the peer ends; the message goes on when it starts again.
            StorageFull: nothing was sent; the call may be tried again.
        """
        if not 0 < len(key) <= OUTBOX_KEY_BYTES:
            raise UsageError(f"the name of a message has 1 to {OUTBOX_KEY_BYTES} bytes, not {len(key)}")
        async with self._turn:
            found = self._known(key, message)
            place = await self._queue(key, message) if found is None else found
            outcome = self._ended(place)
            done = None if outcome is not None else self._waiting.setdefault(place, trio.Event())
        if done is not None and not self._closed:
            await done.wait()
            outcome = self._ended(place)
        match outcome:
            case Sent():
                return outcome
            case Failure(code, text):
                raise from_code(code, text)
        raise Cancelled("the peer ends; the message goes on when it starts again")

    def newest(self, prefix: bytes) -> QueuedRow | None:
        """The newest message whose name begins with ``prefix`` and that was not given up; None if there is none.

        Looks at the last ``OUTBOX_ITEMS`` places: what is older has ended, because no more may wait.
        """
        for place in range(self._place, max(0, self._place - OUTBOX_ITEMS), -1):
            entry = self._journal.find(rows.queued_key(place))
            if entry is None or isinstance(self._ended(place), Failure):
                continue
            row = QueuedRow.unpack(entry.body)
            if row.key.startswith(prefix):
                return row
        return None

    async def send_external(self, message: Cell) -> None:
        """As ``Chain.send``; for messages that no wallet carries (an external claim)."""
        await self._chain.send(message)

    async def fund(self, amount_nanoton: int) -> None:
        """Ask the devnet's faucet for coins; returns when they are on the wallet.

        Raises:
            UsageError: this network has no faucet.
            ChainRefused: the faucet does not give so much.
            ChainUnreachable: they did not come within ``CHAIN_VERB_NS``.
        """
        if (faucet := self.facts.faucet) is None:
            raise UsageError("this network has no faucet; buy coins and send them to the wallet's address")
        query = int.from_bytes(os.urandom(8), "big")
        asked = CellBuilder().uint(_FAUCET_ASK, 32).uint(query, 64).address(self.address).coins(amount_nanoton)
        with trio.move_on_after(CHAIN_VERB_NS / SECOND_NS):
            await self._coins(faucet, asked.end())
            return
        raise ChainUnreachable(f"the faucet's coins did not arrive within {CHAIN_VERB_NS // SECOND_NS} s")

    async def _coins(self, faucet: bytes, ask: Cell) -> None:
        """Send ``ask`` until the faucet has executed it; then wait for what it gave."""
        wallet, giver = await self._chain.account(self.address), await self._chain.account(faucet)
        block, sent_ns, given = wallet.seqno, None, False
        while not any(
            t.in_source == faucet for t in await self._chain.transactions(self.address, wallet.last_lt)
        ):
            given = given or any(
                t.in_body is not None and t.in_body.hash() == ask.hash()
                for t in await self._chain.transactions(faucet, giver.last_lt)
            )
            now_ns = self._clock.now_ns()
            # Only what it did not execute is sent again: for the same bytes it would give a second time (DEV-20).
            if not given and (sent_ns is None or now_ns - sent_ns >= OUTBOX_RESEND_NS):
                await self._chain.send(external_message(faucet, ask))
                sent_ns = now_ns
            block = await self._chain.wait_block(block)

    def _known(self, key: bytes, message: Outgoing) -> int | None:
        """The place that this intention has, unless it was given up there.

        Raises:
            UsageError: the intention was another message.
        """
        named = self._journal.last_under(rows.names_of(key))
        if named is None:
            return None
        place = NameRow.unpack(named.body).place
        queued = self._journal.find(rows.queued_key(place))
        if queued is None or (row := QueuedRow.unpack(queued.body)).key != key:
            return None  # killed between the name and the place: it was never queued
        if isinstance(self._ended(place), Failure):
            return None
        if row.message.cell() != message.cell():
            raise UsageError("this name was given to another message of the wallet; use a new one")
        return place

    async def _queue(self, key: bytes, message: Outgoing) -> int:
        if self._outbox.waiting >= OUTBOX_ITEMS:
            raise LimitExceeded(f"{OUTBOX_ITEMS} messages of the wallet wait already")
        place = self._place + 1
        row = QueuedRow(place, key, message)
        body = row.pack()
        named = self._journal.last_under(rows.names_of(key))
        attempt = 0 if named is None else NameRow.unpack(named.body).attempt + 1
        # Not cancellable: a place that is in the journal must be in the machine too.
        with trio.CancelScope(shield=True):
            await self._journal.append(rows.OUTBOX_KEY, NameRow(attempt, place).pack(), rows.name_key(key, attempt))
            await self._journal.append(rows.OUTBOX_QUEUED, body, rows.queued_key(place))
        self._place = place
        self._outbox.handle(self._clock.now_ns(), MessageQueued(row))
        self._work.set()
        return place

    def _ended(self, place: int) -> Sent | Failure | None:
        entry = self._journal.find(rows.ended_key(place))
        return None if entry is None else EndedRow.unpack(entry.body).outcome

    def _close(self) -> None:
        """Wake whoever still waits; nothing is sent any more."""
        self._closed = True
        for done in self._waiting.values():
            done.set()

    # --- the machine's shell ----------------------------------------------

    async def _run(self) -> None:
        """Show the machine its wallet: at once while nothing is under way, else after every block."""
        block = 0
        while True:
            if not self._outbox.busy:
                self._work = trio.Event()
                await self._work.wait()
            try:
                if self._outbox.under_way:
                    block = await self._chain.wait_block(block)
                state = await self._chain.account(self.address)
                block = max(block, state.seqno)
                await self._take(await self._seen(state))
            except SignerLost:
                raise
            except (Unavailable, PeerFault, WrongNetwork, LimitExceeded) as error:
                # The chain is silent or contradicts itself, or the disk is full: nothing is lost but time.
                self._log.failure("outbox_waits", error)
                await trio.sleep(OUTBOX_PAUSE_NS / SECOND_NS)

    async def _seen(self, state: Account) -> WalletSeen:
        wallet = read_wallet(state.code_hash, state.data)
        transactions: list[Transaction] = []
        if (after_lt := self._outbox.after_lt) is not None and state.last_lt > after_lt:
            transactions = await self._chain.transactions(self.address, after_lt, TRANSACTIONS_READ)
            if len(transactions) == TRANSACTIONS_READ:
                raise LimitExceeded(f"the wallet had {TRANSACTIONS_READ} transactions while a message was under way")
        seqno = 0 if wallet is None else wallet.seqno
        return WalletSeen(seqno, state.balance_nanoton, state.last_lt, state.at_s, tuple(transactions))

    async def _take(self, event: Event) -> None:
        for effect in self._outbox.handle(self._clock.now_ns(), event):
            await self._perform(effect)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case SignMessage():
                await self._take(await self._sign(effect))
            case SendExternal(body, deploy):
                state = wallet_state_init(self._signer.public_key, self.facts.global_id) if deploy else None
                await self._send(external_message(self.address, body, state))
            case EndPlace(row):
                await self._end(row)

    async def _sign(self, order: SignMessage) -> Event:
        """The signature, durable; or why there is none."""
        try:
            body = await self._signer.sign(
                self.facts.global_id, order.seqno, order.valid_until_s, [order.message]
            )
        except SignerLost:
            raise
        except CocoonError as error:
            return SigningRefused(order.place, Failure(error.code, error.text))
        row = SignedRow(order.place, order.attempt, order.seqno, order.valid_until_s, order.after_lt, body)
        try:
            await self._journal.append(rows.OUTBOX_SIGNED, row.pack(), row.unique)
        except StorageFull:
            await self._take(SigningLost(order.place))
            raise
        return MessageSigned(row)

    async def _send(self, message: Cell) -> None:
        try:
            await self._chain.send(message)
        except ChainRefused as error:
            # Taken already, or not yet payable: the wallet's own state decides, at the next block.
            self._log.info("outbox_send_refused", code=error.code, text=error.text)

    async def _end(self, row: EndedRow) -> None:
        while True:
            try:
                await self._journal.append(rows.OUTBOX_ENDED, row.pack(), rows.ended_key(row.place))
                break
            except StorageFull as error:
                self._log.failure("outbox_waits", error)
                await trio.sleep(OUTBOX_PAUSE_NS / SECOND_NS)
        if (done := self._waiting.pop(row.place, None)) is not None:
            done.set()


@asynccontextmanager
async def open_ledger(
    facts: ChainFacts, chain: Chain, signer: Signer, journal: Book, clock: Clock
) -> AsyncIterator[Ledger]:
    """Replay the outbox from ``journal`` and serve until the block ends.

    Raises:
        Corrupt: the journal's outbox rows contradict each other, or the journal failed.
        SignerLost: the signer process ended; the peer must stop.
    """
    outbox, place = _restore(journal)
    ledger = Ledger(facts, chain, signer, journal, clock, outbox, place)
    with single_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger._run)
            try:
                yield ledger
            finally:
                ledger._close()
            nursery.cancel_scope.cancel()


def _restore(journal: Book) -> tuple[Outbox, int]:
    """The open places, found from the newest ended one; and the newest place."""
    ended = journal.last_under(rows.ENDED_PLACES)
    first = 1 if ended is None else EndedRow.unpack(ended.body).place + 1
    queued: list[QueuedRow] = []
    place = first
    while (entry := journal.find(rows.queued_key(place))) is not None:
        queued.append(QueuedRow.unpack(entry.body))
        place += 1
    signed = journal.last_under(rows.signatures_of(first)) if queued else None
    row = None if signed is None else SignedRow.unpack(signed.body)
    return Outbox.restored(queued, row), place - 1
