"""Whoever has only the 24 words gets everything back: what is unlocked at once, what is locked after its expiry."""

from __future__ import annotations

import os
from pathlib import Path

from cocoon.config.network import NetworkFile
from cocoon.identity.keys import key_pair
from cocoon.ledger import escrow
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.signer.files import WORDS_FILE, keep_words, read_words
from cocoon.ledger.wallet import Outgoing
from cocoon.wire.orders import NewLane, OrderHead, open_order
from tests.adapters.devnet.devnet_process import Devnet, start
from tests.adapters.ledger.ledger_parts import TON, Peer, facts_of, peer_of

CLOSE_DELAY_S = 60
GAS_NANOTON = TON // 10


async def birth_of(devnet: Devnet, peer: Peer, index: int) -> EscrowBirth:
    """The escrow with this index, from the wallet's words and the network file alone."""
    network = NetworkFile("local", "ton", bytes(16), (), facts_of(devnet))
    lane = key_pair(await peer.ledger.lane_seed(index)).key
    return EscrowBirth(peer.ledger.address, lane, network.network_tag, index, CLOSE_DELAY_S)


async def until(peer: Peer, address: bytes, condition) -> escrow.EscrowState:
    """The escrow's proven state and balance, once ``condition`` holds of both."""
    while True:
        account = await peer.ledger.account(address)
        if account.data is not None:
            state = escrow.read_state(account.data)
            if condition(state, account):
                return state
        await peer.ledger.wait_block(account.seqno)


async def open_lane(devnet: Devnet, peer: Peer, index: int) -> bytes:
    """Deploy an escrow with 3 whole coins, one of them locked in a lane for a hundred days; its address."""
    birth = await birth_of(devnet, peer, index)
    now_s = await peer.ledger.now_s()
    head = OrderHead(birth.network_tag, birth.address(), 0, now_s + 600)
    order = open_order(head, [NewLane(0, TON, now_s + 100 * 86_400, os.urandom(32), os.urandom(32))])
    signature = key_pair(await peer.ledger.lane_seed(index)).sign(order.hash())
    body = escrow.order_body(1, 3 * TON, signature, order)
    message = Outgoing(birth.address(), 3 * TON + GAS_NANOTON, body, birth.state_init(), bounce=False)
    await peer.ledger.submit(b"open %d" % index, message)
    await until(peer, birth.address(), lambda state, account: state.lanes)
    return birth.address()


async def test_the_words_alone_recover_all_unlocked_money_and_after_expiry_all_locked_money(tmp_path):
    devnet = start(tmp_path / "state")
    try:
        async with peer_of(devnet, tmp_path / "lost") as peer:
            await peer.ledger.fund(10 * TON)
            lost = [await open_lane(devnet, peer, index) for index in (0, 1)]
        words = read_words(tmp_path / "lost")
        keep_words(new_home(tmp_path), words)
        (tmp_path / "lost" / "journal.db").unlink()
        (tmp_path / "lost" / WORDS_FILE).unlink()

        async with peer_of(devnet, tmp_path / "new") as peer:
            found = [(await birth_of(devnet, peer, index)).address() for index in (0, 1, 2)]
            assert found[:2] == lost
            assert not (await peer.ledger.account(found[2])).deployed
            before = await peer.ledger.balance()
            for address in lost:
                await take_unlocked(peer, address, b"first")
            assert await peer.ledger.balance() > before + 2 * (2 * TON - 2 * GAS_NANOTON)
            for address in lost:
                ask = Outgoing(address, GAS_NANOTON, escrow.expire_all_body(2))
                await peer.ledger.submit(b"expire" + address, ask)
                limit = await peer.ledger.now_s() + CLOSE_DELAY_S
                await until(peer, address, lambda state, account, limit=limit: state.lanes[0].expires_s <= limit)
        devnet.kill()
        devnet = start(
            tmp_path / "state", "--listen", f"127.0.0.1:{devnet.port}", "--clock-offset-s", str(2 * CLOSE_DELAY_S)
        )
        async with peer_of(devnet, tmp_path / "new") as peer:
            for address in lost:
                await peer.ledger.submit(b"prune" + address, Outgoing(address, GAS_NANOTON, escrow.prune_body(3, [0])))
                await until(peer, address, lambda state, account: not state.lanes)
                await take_unlocked(peer, address, b"last")
                left = await peer.ledger.account(address)
                assert left.balance_nanoton <= escrow.reserve_nanoton(0) + GAS_NANOTON // 10
            assert await peer.ledger.balance() > 10 * TON - TON // 8  # fees of a dozen messages and two deploys
    finally:
        devnet.kill()
        devnet.process.stdout.close()


async def take_unlocked(peer: Peer, address: bytes, when: bytes) -> None:
    """The owner withdraws by plain message; returns when the coins are back on the wallet."""
    state = escrow.read_state((await peer.ledger.account(address)).data)
    before = (await peer.ledger.account(peer.ledger.address)).last_lt
    ask = Outgoing(address, GAS_NANOTON, escrow.owner_withdraw_body(4))
    await peer.ledger.submit(b"withdraw" + when + address, ask)
    await until(peer, address, lambda found, account: found.order_number > state.order_number)
    while not any(t.in_source == address for t in await peer.ledger.transactions(peer.ledger.address, before)):
        await peer.ledger.wait_block((await peer.ledger.account(address)).seqno)


def new_home(tmp_path: Path) -> Path:
    home = tmp_path / "new"
    home.mkdir(mode=0o700)
    return home
