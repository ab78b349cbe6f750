"""What one message may be and one block may do, on a chain with one more contract than usual."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from cocoon.core.errors import Malformed
from cocoon.core.limits import DEVNET_BLOCK_GAS, DEVNET_MESSAGE_CELLS, DEVNET_MESSAGE_DEPTH, DEVNET_STATE_CELLS
from cocoon.devnet.blocks import BASE
from cocoon.devnet.cells import Builder, Cell, pack, unpack
from cocoon.devnet.chain import found
from cocoon.devnet.formats import active_account, read_transaction
from cocoon.devnet.store import open_store
from tests.adapters.devnet.test_chain import BORN_S, NOBODY, TON, Net, internal, net_in, newborn

CONTRACT = (BASE, b"\x99" * 32)
NOTHING = Cell(0, 0)
ACCEPTS = Cell(0xF800, 16)
#: Sends the message that its data are: PUSHROOT, 0 PUSHINT, SENDRAWMSG.
SENDS_ITS_DATA = Cell(0xED4470FB00, 40)
#: An empty continuation, AGAIN.
LOOPS = Cell(0x90EA, 16)
GAS_OF_ONE = 1_000_000


@contextmanager
def net_with(folder: Path, code: Cell, data: Cell = NOTHING):
    """A chain born with ``CONTRACT``."""
    folder.mkdir(mode=0o700)
    with open_store(folder) as store:
        config, accounts = newborn()
        accounts[CONTRACT] = (active_account(CONTRACT, 100 * TON, code, data, BORN_S), 100 * TON)
        found(store, config, accounts, BORN_S)
        yield Net(store)


def nested(depth: int) -> Cell:
    """A tree of this depth."""
    tree = NOTHING
    for _ in range(depth):
        tree = Cell(1, 1, (tree,))
    return tree


def different(count: int) -> Cell:
    """A tree of so many cells, no two of them equal."""
    cells: dict[int, Cell] = {}
    for number in reversed(range(count)):
        below = [cells[at] for at in range(4 * number + 1, 4 * number + 5) if at < count]
        cells[number] = Cell(number, 32, below)
    return cells[0]


def external(body: Cell) -> bytes:
    return pack(Builder().uint(0b1000, 4).address(*CONTRACT).coins(0).uint(0b01, 2).ref(body).end())


def test_a_message_deeper_than_the_network_allows_is_refused_and_the_chain_goes_on(tmp_path):
    with net_with(tmp_path / "chain", ACCEPTS) as net:
        for depth in (DEVNET_MESSAGE_DEPTH, 1_016):  # around the second a block would be deeper than any tree
            with pytest.raises(Malformed, match=f"at most {DEVNET_MESSAGE_DEPTH}"):
                net.send(external(nested(depth)))
        net.send(external(nested(DEVNET_MESSAGE_DEPTH - 1)))
        assert net.block().transactions == 1


def test_the_largest_message_of_a_contract_may_wait_over_a_restart(tmp_path, monkeypatch):
    """The machine counts the cells below its root; from outside it could not come."""
    monkeypatch.setattr("cocoon.devnet.chain.DEVNET_BLOCK_MESSAGES", 1)
    head = Builder().uint(0b010000, 6).address(*NOBODY).currency(TON).coins(0).coins(0).uint(0, 64 + 32)
    message = head.uint(0b01, 2).ref(different(DEVNET_MESSAGE_CELLS)).end()
    folder = tmp_path / "chain"
    with net_with(folder, SENDS_ITS_DATA, message) as net:
        net.put(internal(CONTRACT, TON, bounce=False))
        net.block()
        assert net.chain.pending == 1
    with net_in(folder) as net:
        net.block()
        assert net.chain.pending == 0
        assert 0 < net.balance(NOBODY) < TON


def test_messages_beyond_the_gas_of_a_block_wait_for_the_next_one_in_their_order(tmp_path):
    whole, rest = DEVNET_BLOCK_GAS // GAS_OF_ONE, 2
    messages = [internal(CONTRACT, TON, bounce=False, lt=number) for number in range(whole + rest)]
    with net_with(tmp_path / "chain", LOOPS) as net:
        for message in messages:
            net.put(message)
        assert [net.block().transactions for _ in range(2)] == [whole, rest]
        history = net.store.history(CONTRACT, 1 << 62, len(messages))
        ran = [read_transaction(unpack(one.data, DEVNET_STATE_CELLS)) for one in reversed(history)]
        assert [one.in_message for one in ran] == messages
        assert {one.gas for one in ran} == {GAS_OF_ONE}


def test_of_a_transaction_without_code_no_gas_is_counted(tmp_path):
    with net_with(tmp_path / "chain", ACCEPTS) as net:
        net.put(internal(NOBODY, TON, bounce=False))
        net.block()
        (one,) = net.store.history(NOBODY, 1 << 62, 2)
        assert read_transaction(unpack(one.data, DEVNET_STATE_CELLS)).gas == 0
