"""The shell around the batcher: attempts, refused roots, restarts (BAT-1 to BAT-8). The contract is the real one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.errors import ChainUnreachable, CocoonError, Corrupt, InsufficientFunds, SignerLost
from cocoon.core.ids import PeerKey, ReceiptHash
from cocoon.core.limits import ANCHOR_NS, CLAIM_WAIT_S
from cocoon.core.units import SECOND_NS
from cocoon.ledger.rows import QueuedRow, Sent
from cocoon.ledger.wallet import Outgoing
from cocoon.node import records
from cocoon.node.anchors import Anchors
from cocoon.store.service import Journal, Row, open_journal
from cocoon.telemetry.log import get_logger
from tests.tvm.parties import NETWORK, OWNER, key, public
from tests.unit.node.scripted import Memory
from tests.unit.node.tvm_money import Clock, TvmLedger

PEER = PeerKey(public(key("peer")))
#: The anchor's refusal of a message that is not its owner's.
E_OWNER = 101
ATTEMPTS = 2_000
MOST_ASKED = ATTEMPTS + 10


@dataclass
class Wallet(TvmLedger):
    """The anchor's owner; its messages may get lost, and an earlier life of it is remembered.

    Attributes:
        lost: So many of the next messages leave the wallet and reach nobody.
        carried: The messages that left, and the chain's time then.
        left: Set when one leaves.
        anchored: Set when the anchor takes a root.
        refused: Set when it refuses one.
    """

    address: bytes = OWNER
    lost: int = 0
    carried: list[tuple[QueuedRow, int]] = field(default_factory=list)
    left: trio.Event = field(default_factory=trio.Event)
    anchored: trio.Event = field(default_factory=trio.Event)
    refused: trio.Event = field(default_factory=trio.Event)

    def newest(self, prefix: bytes) -> QueuedRow | None:
        return next((row for row, _ in reversed(self.carried) if row.key.startswith(prefix)), None)

    async def submit(self, name: bytes, message: Outgoing) -> Sent:
        assert len(self.names) < MOST_ASKED, "the wallet is asked without end"
        leaves = not self.failures and name not in self._sent
        if leaves and self.lost:
            self.lost -= 1
            self.tick()
            self._sent[name] = Sent(bytes(32), self.chain.lt, self.chain.now_s)
        sent = await super().submit(name, message)
        if leaves:
            self.carried.append((QueuedRow(len(self.carried) + 1, name, message), sent.at_s))
            self.left.set()
        for transaction in await self.transactions(message.dest, sent.lt):
            (self.anchored if transaction.success else self.refused).set()
        return sent


@dataclass
class Means:
    """What an anchor uses of ``Money``."""

    ledger: Wallet
    chain: Wallet
    network_tag: int = NETWORK


def digest(n: int) -> ReceiptHash:
    return ReceiptHash(n.to_bytes(32, "big"))


def settled(n: int) -> Row:
    """The row of a settled receipt; what it holds is nobody's business here."""
    return Row(records.RECEIPT_SETTLED, b"a record", records.settled_key(digest(n)))


def journal_at(home: Path) -> Any:
    return open_journal(home / "journal.db", time.time_ns)


@asynccontextmanager
async def life(wallet: Wallet, journal: Journal) -> AsyncIterator[Anchors]:
    """One life of a provider's anchor; it ends as a peer that is killed does, wherever it is."""
    anchors = Anchors(Means(wallet, wallet), PEER, journal, Clock(), get_logger("anchors"))   # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anchors.run)
        yield anchors
        nursery.cancel_scope.cancel()


async def landed(wallet: Wallet, anchors: Anchors) -> None:
    """Wait until the anchor has taken a root and the batcher has seen it."""
    await wallet.anchored.wait()
    while not anchors.batcher.settled:
        await trio.lowlevel.checkpoint()


# --- attempts ----------------------------------------------------------------


@pytest.mark.parametrize("error", [InsufficientFunds("no coins"), ChainUnreachable("no chain")])
async def test_attempts_without_end_only_cost_time_until_one_succeeds(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, error: CocoonError
) -> None:
    """Two thousand are a night with an empty wallet; each used to stand on the stack of the one before."""
    wallet = Wallet(failures=[error] * ATTEMPTS)
    async with journal_at(tmp_path) as journal:
        await journal.append_many([settled(1)])
        async with life(wallet, journal) as anchors:
            await landed(wallet, anchors)
            assert not wallet.failures and len(wallet.carried) == 1
            assert anchors.batcher.proof(digest(1)).seq == 1


async def test_a_root_that_the_chain_refused_is_carried_again_by_another_message(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wallet = Wallet(starved=2)
    async with journal_at(tmp_path) as journal:
        await journal.append_many([settled(1)])
        async with life(wallet, journal) as anchors:
            await landed(wallet, anchors)
        assert len(list(journal.entries(records.ANCHOR_FACT))) == 1
    (first, _), (second, begun_s), (third, ended_s) = wallet.carried
    assert len({first.key, second.key, third.key}) == 3
    assert first.message == second.message == third.message
    assert ended_s - begun_s >= ANCHOR_NS // SECOND_NS, "a message that only costs gas is not sent without a pause"


async def test_a_refused_root_is_carried_again_after_a_restart(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wallet = Wallet(starved=1)
    async with journal_at(tmp_path) as journal:
        await journal.append_many([settled(1)])
        async with life(wallet, journal):
            await wallet.refused.wait()
        async with life(wallet, journal) as anchors:
            await landed(wallet, anchors)
    assert len(wallet.carried) == 2


async def test_a_message_that_may_still_run_is_waited_for_also_after_a_restart(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wallet = Wallet(lost=1)
    async with journal_at(tmp_path) as journal:
        await journal.append_many([settled(1)])
        async with life(wallet, journal):
            await wallet.left.wait()
        async with life(wallet, journal) as anchors:
            await landed(wallet, anchors)
    (_, first_s), (_, second_s) = wallet.carried
    assert second_s - first_s >= CLAIM_WAIT_S + ANCHOR_NS // SECOND_NS


async def test_the_number_of_a_message_goes_on_after_a_restart(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A third life asks for the second message, which may still run, and not for the first, which was refused."""
    wallet = Wallet(starved=1)
    async with journal_at(tmp_path) as journal:
        await journal.append_many([settled(1)])
        async with life(wallet, journal):
            await wallet.refused.wait()
            wallet.lost, wallet.left = 1, trio.Event()
            await wallet.left.wait()
        wallet.names.clear()
        async with life(wallet, journal) as anchors:
            await landed(wallet, anchors)
    keys = [row.key for row, _ in wallet.carried]
    assert len(set(keys)) == 3 and wallet.names == keys[1:]


async def test_a_stranger_who_copies_the_message_does_not_make_it_refused(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    wallet = Wallet(lost=1)
    async with journal_at(tmp_path) as journal:
        await journal.append_many([settled(1)])
        async with life(wallet, journal):
            await wallet.left.wait()
            [(row, first_s)] = wallet.carried
            assert row.message.body is not None
            copy = wallet.chain.internal(
                row.message.dest, row.message.value_nanoton, row.message.body, state_init=row.message.state_init
            )
            assert copy.exit_code == E_OWNER
            wallet.left = trio.Event()
            await wallet.left.wait()
    assert wallet.carried[1][1] - first_s >= CLAIM_WAIT_S + ANCHOR_NS // SECOND_NS


async def test_a_full_disk_delays_the_anchor_and_does_not_end_it(autojump_clock: trio.testing.MockClock) -> None:
    wallet, journal = Wallet(), Memory()
    await journal.append_many([settled(1)])
    journal.full = 3
    async with life(wallet, journal) as anchors:                    # type: ignore[arg-type]
        await landed(wallet, anchors)
    assert len(wallet.carried) == len(list(journal.entries(records.ANCHOR_FACT))) == 1


@pytest.mark.parametrize("error", [SignerLost("gone"), Corrupt("torn")])
async def test_what_no_attempt_mends_ends_the_anchor(
    autojump_clock: trio.testing.MockClock, error: CocoonError
) -> None:
    wallet, journal = Wallet(failures=[error]), Memory()
    await journal.append_many([settled(1)])
    with pytest.RaisesGroup(type(error)):
        async with life(wallet, journal):                           # type: ignore[arg-type]
            await wallet.anchored.wait()


# --- who asks ----------------------------------------------------------------


async def test_who_asks_waits_for_a_receipt_that_was_told_just_before(tmp_path: Path) -> None:
    wallet = Wallet()
    async with journal_at(tmp_path) as journal, life(wallet, journal) as anchors:
        await trio.testing.wait_all_tasks_blocked()
        await journal.append_many([settled(1)])
        anchors.keep(digest(1))
        await anchors.anchor_now()
        assert anchors.batcher.proof(digest(1)).seq == 1


async def test_who_asks_before_the_journal_is_read_waits_for_what_is_in_it(tmp_path: Path) -> None:
    wallet = Wallet()
    async with journal_at(tmp_path) as journal:
        for start in range(0, 1_024, 256):
            await journal.append_many([settled(start + n) for n in range(256)])
        async with life(wallet, journal) as anchors:
            await anchors.anchor_now()
            assert anchors.batcher.proof(digest(1_023)).count == 1_024


async def test_who_asks_of_an_empty_wallet_is_told_so_and_may_ask_again(tmp_path: Path) -> None:
    wallet = Wallet(failures=[InsufficientFunds("no coins")])
    async with journal_at(tmp_path) as journal:
        await journal.append_many([settled(1)])
        async with life(wallet, journal) as anchors:
            await anchors.anchor_now()
            assert not anchors.batcher.settled and not wallet.carried
            await anchors.anchor_now()
            assert anchors.batcher.settled and len(wallet.carried) == 1


# --- the journal -------------------------------------------------------------


async def test_receipts_stand_in_the_order_of_the_journal_whatever_order_they_are_told_in(tmp_path: Path) -> None:
    """Else the paths of a life after this one would lead to another root than the one on chain."""
    wallet = Wallet()
    async with journal_at(tmp_path) as journal:
        async with life(wallet, journal) as anchors:
            await trio.testing.wait_all_tasks_blocked()
            await journal.append_many([settled(1), settled(2), settled(3)])
            for n in (3, 1, 2):
                anchors.keep(digest(n))
            await anchors.anchor_now()
        async with life(wallet, journal) as anchors:
            await anchors.anchor_now()
            assert all(anchors.batcher.proof(digest(n)).holds(digest(n)) for n in (1, 2, 3))


async def test_a_long_journal_is_read_in_turns_with_other_tasks(tmp_path: Path) -> None:
    wallet = Wallet()
    async with journal_at(tmp_path) as journal:
        for start in range(0, 1_024, 256):
            await journal.append_many([settled(start + n) for n in range(256)])
        async with life(wallet, journal) as anchors:
            turns = 0
            while not anchors.batcher.receipts:
                await trio.lowlevel.checkpoint()
                turns += 1
        assert turns >= 4


async def test_a_settled_receipt_without_its_name_is_corrupt(tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        await journal.append(records.RECEIPT_SETTLED, b"a record", b"settled:short")
        with pytest.RaisesGroup(Corrupt):
            async with life(Wallet(), journal):
                await trio.sleep_forever()
