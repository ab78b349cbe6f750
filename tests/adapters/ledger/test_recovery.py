"""Whoever has only the 24 words gets all of a crowded escrow back: at once what is unlocked, after its expiry the rest.

By the peer's own recovery, over a real devnet. By the command: tests/loopback/test_wallet_recovery.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from cocoon.config.network import NetworkFile
from cocoon.config.settings import Settings
from cocoon.ledger.escrow import LANE_FLOOR_NANOTON, lanes_gas
from cocoon.ledger.signer.files import keep_words, read_words
from cocoon.node.clock import MonotonicClock, wall_ns
from cocoon.node.money import Money, open_money
from cocoon.node.orders import Orders
from cocoon.node.recovery import recover
from cocoon.store.service import open_journal
from cocoon.wire.orders import NewLane, open_order
from tests.adapters.devnet.devnet_process import Devnet, start
from tests.adapters.ledger.ledger_parts import PATIENCE_S, TON, facts_of, server_of

#: More than one message prunes, and more than the least carried value has gas for.
LANES = 40
LOCKED_NANOTON = LANES * LANE_FLOOR_NANOTON
FUNDED_NANOTON, SPARE_NANOTON = 10 * TON, 2 * TON
DAY_S = 86_400


@dataclass
class Owner:
    """An escrow's owner, with nothing but a home."""

    money: Money
    orders: Orders


@asynccontextmanager
async def owner_of(devnet: Devnet, home: Path) -> AsyncIterator[Owner]:
    """A running wallet. The network file is the same for everybody."""
    network = NetworkFile("local", "ton", bytes(16), (), facts_of(devnet), (server_of(devnet),))
    with trio.fail_after(PATIENCE_S):
        async with (
            open_journal(home / "journal.db", wall_ns) as journal,
            open_money(home, network, Settings(), journal, MonotonicClock()) as money,
        ):
            orders = Orders(money)
            orders.restore()
            yield Owner(money, orders)


def new_home(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


async def open_lanes(owner: Owner) -> None:
    """An escrow with many lanes for a hundred days, and coins that no lane locks."""
    async with owner.orders.turn() as turn:
        new = [
            NewLane(1 + number, LANE_FLOOR_NANOTON, turn.seen.at_s + 100 * DAY_S, os.urandom(32), os.urandom(32))
            for number in range(LANES)
        ]
        gas = lanes_gas(LANES, LANES.bit_length())
        # Says that it locks more than it does: the rest stays unlocked.
        await turn.send(open_order(turn.head, new), gas, locks_nanoton=LOCKED_NANOTON + SPARE_NANOTON, lanes=LANES)


async def test_the_words_alone_recover_an_escrow_of_forty_lanes_in_two_calls(tmp_path):
    devnet = start(tmp_path / "state")
    try:
        async with owner_of(devnet, new_home(tmp_path / "lost")) as owner:
            await owner.money.ledger.fund(FUNDED_NANOTON)
            await open_lanes(owner)
            escrow = owner.money.birth.address()
        keep_words(new_home(tmp_path / "new"), read_words(tmp_path / "lost"))

        async with owner_of(devnet, tmp_path / "new") as owner:
            assert owner.money.birth.address() == escrow
            first = await recover(owner.money, owner.orders)
            seen = await owner.money.look(escrow)
            assert first["locked_nanoton"] == LOCKED_NANOTON and first["recovered_nanoton"] > SPARE_NANOTON
            assert first["free_at_s"] <= seen.at_s + owner.money.birth.close_delay_s
            assert {lane.expires_s for lane in seen.state.lanes.values()} == {first["free_at_s"]}
        devnet.kill()
        devnet.process.stdout.close()
        later_s = 2 * facts_of(devnet).close_delay_s
        devnet = start(
            tmp_path / "state", "--listen", f"127.0.0.1:{devnet.port}", "--clock-offset-s", str(later_s)
        )
        async with owner_of(devnet, tmp_path / "new") as owner:
            last = await recover(owner.money, owner.orders)
            assert (last["locked_nanoton"], last["free_at_s"]) == (0, 0)
            assert not (await owner.money.look(escrow)).state.lanes
            # Of what was funded only gas is gone, and the reserve of the empty escrow.
            assert last["balance_nanoton"] > FUNDED_NANOTON - TON // 2
    finally:
        devnet.kill()
        devnet.process.stdout.close()
