"""Wallet, signer, outbox, journal and a real chain together; a peer killed on every line (OUT-1 to OUT-9)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import trio

from cocoon.core.errors import (
    Cancelled,
    CapExceeded,
    ChainRefused,
    InsufficientFunds,
    LimitExceeded,
    UsageError,
)
from cocoon.core.limits import OUTBOX_KEY_BYTES, SIGNER_CELLS
from cocoon.ledger import rows
from cocoon.ledger.rows import EndedRow, SignedRow
from cocoon.ledger.signer.service import Caps
from cocoon.ledger.wallet import Outgoing
from cocoon.store.service import open_reader
from cocoon.wire.cells import Cell
from tests.adapters.devnet.devnet_process import running, start
from tests.adapters.ledger.ledger_parts import TON, middleman_of, peer_of, server_of


def to(amount: int, dest: bytes | None = None) -> Outgoing:
    """Coins for an account that nobody else uses, deployed or not."""
    return Outgoing(dest or os.urandom(32), amount, bounce=False)


async def received(peer, dest: bytes, least: int = 1):
    """Transactions of ``dest``, once it has at least so many."""
    block = 0
    while len(found := await peer.ledger.transactions(dest)) < least:
        block = await peer.ledger.wait_block(block)
    return found


async def test_funding_and_sending_account_for_every_nanoton(devnet, tmp_path):
    async with peer_of(devnet, tmp_path / "home") as peer:
        ledger = peer.ledger
        await ledger.fund(10 * TON)
        assert await ledger.balance() == 10 * TON
        message = to(TON)
        sent = await ledger.submit(b"one", message)
        funded, transaction = await ledger.transactions(ledger.address)
        assert funded.in_source == devnet.faucet.hash_part
        assert (transaction.hash, transaction.lt, transaction.at_s) == (sent.hash, sent.lt, sent.at_s)
        [out] = transaction.outs
        spent = transaction.fees_nanoton + out.value_nanoton + out.forward_fee_nanoton
        assert await ledger.balance() == 10 * TON - spent
        [arrived] = await received(peer, message.dest)
        assert arrived.in_value_nanoton == TON and arrived.in_source == ledger.address
        assert not arrived.in_bounced


async def test_one_name_is_sent_once_however_often_it_is_submitted(devnet, tmp_path):
    message = to(TON)
    async with peer_of(devnet, tmp_path / "home") as peer:
        await peer.ledger.fund(10 * TON)
        found = []

        async def again():
            found.append(await peer.ledger.submit(b"open", message))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(again)
        assert len(set(found)) == 1
        with pytest.raises(UsageError, match="another message"):
            await peer.ledger.submit(b"open", to(TON))
    async with peer_of(devnet, tmp_path / "home") as peer:
        assert await peer.ledger.submit(b"open", message) == found[0]
        assert len(await received(peer, message.dest)) == 1
        assert len(await peer.ledger.transactions(peer.ledger.address)) == 2


async def test_many_messages_leave_in_order_each_once(devnet, tmp_path):
    dest = os.urandom(32)
    async with peer_of(devnet, tmp_path / "home") as peer:
        await peer.ledger.fund(10 * TON)
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(peer.ledger.submit, b"m%d" % number, to(TON + number, dest))
        found = await received(peer, dest, 6)
        assert sorted(t.in_value_nanoton for t in found) == [TON + n for n in range(6)]


async def test_too_little_money_is_said_and_the_name_may_be_used_again(devnet, tmp_path):
    message = to(TON)
    async with peer_of(devnet, tmp_path / "home") as peer:
        with pytest.raises(InsufficientFunds):
            await peer.ledger.submit(b"x", message)
        await peer.ledger.fund(5 * TON)
        await peer.ledger.submit(b"x", message)
        assert len(await received(peer, message.dest)) == 1


async def test_the_newest_message_of_a_name_is_found_unless_it_was_given_up(devnet, tmp_path):
    messages = [to(TON) for _ in range(3)]
    async with peer_of(devnet, tmp_path / "home") as peer:
        ledger = peer.ledger
        with pytest.raises(InsufficientFunds):
            await ledger.submit(b"order:0", messages[0])
        assert ledger.newest(b"order:") is None
        await ledger.fund(10 * TON)
        for name, message in ((b"order:1", messages[1]), (b"order:2", messages[2]), (b"claim:1", to(TON))):
            await ledger.submit(name, message)
    async with peer_of(devnet, tmp_path / "home") as peer:
        found = peer.ledger.newest(b"order:")
        assert found is not None and (found.key, found.message.dest) == (b"order:2", messages[2].dest)
        assert peer.ledger.newest(b"anchor:") is None


async def test_a_cap_of_the_signer_reaches_the_caller(devnet, tmp_path):
    async with peer_of(devnet, tmp_path / "home", caps=Caps(TON, TON)) as peer:
        await peer.ledger.fund(5 * TON)
        with pytest.raises(CapExceeded, match="wallet_hour_nanoton"):
            await peer.ledger.submit(b"x", to(2 * TON))
        await peer.ledger.submit(b"x", to(TON // 2))


async def test_a_cancelled_call_goes_on_in_the_background(devnet, tmp_path):
    message = to(TON)
    async with peer_of(devnet, tmp_path / "home") as peer:
        await peer.ledger.fund(5 * TON)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.ledger.submit, b"x", message)
            while peer.journal.last_under(rows.QUEUED_PLACES) is None:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert len(await received(peer, message.dest)) == 1
        await peer.ledger.submit(b"x", message)
        assert len(await received(peer, message.dest)) == 1


async def test_a_message_that_could_not_be_replayed_is_never_queued(devnet, tmp_path):
    wide = Cell(0, 0)
    for number in range(SIGNER_CELLS):
        wide = Cell(number, 32, (wide,))
    async with peer_of(devnet, tmp_path / "home") as peer:
        with pytest.raises(LimitExceeded, match="larger"):
            await peer.ledger.submit(b"x", Outgoing(bytes(32), 1, wide))
        assert peer.journal.last_under(rows.QUEUED_PLACES) is None
        for name in (b"", b"x" * (OUTBOX_KEY_BYTES + 1)):
            with pytest.raises(UsageError):
                await peer.ledger.submit(name, to(1))


async def test_whoever_waits_when_the_ledger_closes_is_told_and_nothing_is_lost(tmp_path):
    message, told = to(TON), []
    with running(tmp_path / "state") as devnet:
        async with peer_of(devnet, tmp_path / "home") as peer:
            await peer.ledger.fund(5 * TON)

        async def wait(peer):
            with pytest.raises(Cancelled):
                await peer.ledger.submit(b"x", message)
            told.append(True)

        async with trio.open_nursery() as nursery:
            async with peer_of(devnet, tmp_path / "home") as peer:
                nursery.start_soon(wait, peer)
                while peer.journal.last_under(rows.QUEUED_PLACES) is None:
                    await trio.lowlevel.checkpoint()
        assert told
        async with peer_of(devnet, tmp_path / "home") as peer:
            assert len(await received(peer, message.dest)) == 1


async def test_a_faucet_gives_no_more_than_it_may(devnet, tmp_path):
    async with peer_of(devnet, tmp_path / "home") as peer:
        with pytest.raises(ChainRefused):
            await peer.ledger.fund(2_000 * TON)


async def test_a_liteserver_that_swallows_messages_costs_time_and_no_coin(tmp_path):
    """Its answer says yes, the message goes nowhere; when the chain is past valid-until a new one is signed."""
    swallowing = True
    asked = trio.Event()

    def swallow(name, values):
        if name == "liteServer.sendMessage" and swallowing:
            from cocoon.devnet import tl

            asked.set()
            return tl.encode("liteServer.sendMsgStatus", status=1)
        return None

    message = to(TON)
    devnet = start(tmp_path / "state")
    try:
        async with middleman_of(devnet, answer=swallow) as middleman:
            async with peer_of(devnet, tmp_path / "home") as honest:
                await honest.ledger.fund(5 * TON)
            async with peer_of(devnet, tmp_path / "home", middleman.text) as peer, trio.open_nursery() as nursery:
                nursery.start_soon(peer.ledger.submit, b"x", message)
                await asked.wait()
                swallowing = False
                devnet.kill()
                devnet = start(
                    tmp_path / "state", "--listen", f"127.0.0.1:{devnet.port}", "--clock-offset-s", "200"
                )
            async with peer_of(devnet, tmp_path / "home") as peer:
                assert len(await received(peer, message.dest)) == 1
                assert len(await peer.ledger.transactions(peer.ledger.address)) == 2
        signed = signatures(tmp_path / "home")
        assert [(row.seqno, row.attempt) for row in signed] == [(0, 0), (0, 1)]
        assert signed[1].valid_until_s > signed[0].valid_until_s
    finally:
        devnet.kill()
        devnet.process.stdout.close()


def signatures(home) -> list[SignedRow]:
    with open_reader(home / "journal.db") as reader:
        return [SignedRow.unpack(entry.body) for entry in reader.entries(rows.OUTBOX_SIGNED)]


# --- kill -9 ---------------------------------------------------------------------

CHILD = """
import os, signal, sys, trio
from pathlib import Path
from cocoon.ledger.wallet import Outgoing
from tests.adapters.ledger import ledger_parts
from tests.adapters.devnet.devnet_process import Devnet
from pytoniq_core import Address
from cocoon.ledger import rows, service

genesis, host, port, key, faucet, home, place, dest = sys.argv[1:]
devnet = Devnet(None, bytes.fromhex(genesis), host, int(port), key, Address((0, bytes.fromhex(faucet))))

def die(where):
    if where == place:
        os.kill(os.getpid(), signal.SIGKILL)

append = ledger_parts.Journal.append
async def dying_append(self, kind, body, unique=None):
    die("before " + kind)
    number = await append(self, kind, body, unique)
    die("after " + kind)
    return number
ledger_parts.Journal.append = dying_append

send = service.Ledger._send
async def dying_send(self, message):
    die("before send")
    await send(self, message)
    die("after send")
service.Ledger._send = dying_send

async def main():
    async with ledger_parts.peer_of(devnet, Path(home)) as peer:
        await peer.ledger.submit(b"the one", Outgoing(bytes.fromhex(dest), 10**9, bounce=False))
trio.run(main)
"""

PLACES = [f"{when} {kind}" for kind in (
    rows.OUTBOX_KEY, rows.OUTBOX_QUEUED, rows.OUTBOX_SIGNED, "send", rows.OUTBOX_ENDED
) for when in ("before", "after")]


@pytest.mark.parametrize("place", PLACES)
async def test_a_peer_killed_on_any_line_sends_its_message_exactly_once(devnet, tmp_path, root, place):
    """The real peer dies by SIGKILL there; a second life submits the same again, as its owner would."""
    home, message = tmp_path / "home", to(TON)
    async with peer_of(devnet, home) as peer:
        await peer.ledger.fund(5 * TON)
    command = [
        sys.executable, "-c", CHILD, devnet.genesis.hex(), devnet.host, str(devnet.port), devnet.key,
        devnet.faucet.hash_part.hex(), str(home), place, message.dest.hex(),
    ]
    died = await trio.to_thread.run_sync(
        lambda: subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert last_kind(home) == expected_last(place)
    async with peer_of(devnet, home) as peer:
        sent = await peer.ledger.submit(b"the one", message)
        assert [t.in_value_nanoton for t in await received(peer, message.dest)] == [TON]
        transactions = await peer.ledger.transactions(peer.ledger.address)
        assert [t.hash for t in transactions[1:]] == [sent.hash]
    assert len(signatures(home)) == 1
    with open_reader(home / "journal.db") as reader:
        ends = [EndedRow.unpack(entry.body) for entry in reader.entries(rows.OUTBOX_ENDED)]
    assert [end.outcome for end in ends] == [sent]


def last_kind(home) -> str | None:
    """What the dead peer's journal says about where it died."""
    with open_reader(home / "journal.db") as reader:
        return max(reader.entries(), key=lambda entry: entry.seq).kind if list(reader.entries()) else None


def expected_last(place: str) -> str | None:
    """The newest row of a peer that died at ``place``."""
    order = [rows.OUTBOX_KEY, rows.OUTBOX_QUEUED, rows.OUTBOX_SIGNED, rows.OUTBOX_ENDED]
    when, _, what = place.partition(" ")
    if what == "send":
        return rows.OUTBOX_SIGNED
    before = order.index(what) - (when == "before")
    return order[before] if before >= 0 else None


async def test_a_second_device_with_the_same_words_disturbs_nothing(devnet, tmp_path):
    """Both sign under one sequence number; one message each is executed, none twice."""
    first, second = tmp_path / "first", tmp_path / "second"
    one, other = to(TON), to(2 * TON)
    async with peer_of(devnet, first) as peer:
        await peer.ledger.fund(10 * TON)
    second.mkdir(mode=0o700)
    (second / "keys").mkdir(mode=0o700)
    (second / "keys" / "wallet.words").write_bytes((first / "keys" / "wallet.words").read_bytes())
    (second / "keys" / "wallet.words").chmod(0o600)
    async with peer_of(devnet, first) as a, peer_of(devnet, second, server_of(devnet)) as b:
        assert a.ledger.address == b.ledger.address
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.ledger.submit, b"x", one)
            nursery.start_soon(b.ledger.submit, b"x", other)
        assert len(await received(a, one.dest)) == len(await received(a, other.dest)) == 1
        assert len(await a.ledger.transactions(a.ledger.address)) == 3
