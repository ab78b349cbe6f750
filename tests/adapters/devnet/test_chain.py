"""The chain in this process: what a block does with messages, what is on disk, what is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from pytoniq import WalletV3R2
from pytoniq.contract.wallets.wallet import WALLET_V3_R2_CODE
from pytoniq_core import Address, begin_cell

from cocoon.core.errors import ChainRefused, Corrupt, LimitExceeded, Malformed, SchemaNewer, StorageFull
from cocoon.core.limits import DEVNET_BLOCK_MESSAGES, DEVNET_PENDING
from cocoon.devnet.blocks import BASE, MASTER
from cocoon.devnet.cells import Builder, Cell, pack, unpack
from cocoon.devnet.chain import Chain, found, is_founded
from cocoon.devnet.configuration import configuration
from cocoon.devnet.faucet import SUPPLY_NANOTON, faucet
from cocoon.devnet.formats import active_account, read_account, read_message
from cocoon.devnet.store import CHAIN_FILE, Store, open_store

TON = 10**9
BORN_S = 1_790_000_000
FAUCET, _ = faucet(BORN_S)
NOBODY = (BASE, b"\x55" * 32)
SENDER = (BASE, b"\x66" * 32)
#: Throws 35 at whatever comes.
THROWER = (BASE, b"\x77" * 32)
THROWS = Cell(0xF223, 16)
KEY = SigningKey(b"\x01" * 32)
WALLET_ID = 698983191
WALLET = (BASE, b"\x88" * 32)
MOST = 4_096


def wallet_data(seqno: int = 0) -> Cell:
    return Builder().uint(seqno, 32).uint(WALLET_ID, 32).blob(bytes(KEY.verify_key)).end()


def newborn(nonce: bytes = bytes(16)):
    """A zerostate with a faucet, a contract that throws, and a wallet with 10 coins."""
    wallet_code = unpack(WALLET_V3_R2_CODE.to_boc(), MOST)
    accounts = {
        FAUCET: (faucet(BORN_S)[1], SUPPLY_NANOTON),
        THROWER: (active_account(THROWER, TON, THROWS, Cell(0, 0), BORN_S), TON),
        WALLET: (active_account(WALLET, 10 * TON, wallet_code, wallet_data(), BORN_S), 10 * TON),
    }
    return configuration(nonce), accounts


class Net:
    """A chain and its file, without clients: messages in, blocks out."""

    def __init__(self, store: Store) -> None:
        if not is_founded(store):
            found(store, *newborn(), BORN_S)
        self.store = store
        self.chain = Chain(store)
        self.now_s = BORN_S + 10

    def send(self, *messages: bytes) -> None:
        """Take external messages as the service does."""
        for data in messages:
            inbound = self.chain.check(data, self.now_s)
            self.put(inbound.cell)

    def put(self, cell: Cell) -> None:
        """Queue any message without asking whether it is wanted."""
        number = self.store.take([(cell.hash, pack(cell))])[0]
        if number is not None:
            self.chain.add(number, read_message(cell))

    def block(self):
        """Make one block."""
        draft = self.chain.draft(self.now_s)
        self.chain.adopt(draft, self.store.commit(draft.commit, draft.tip.seqno))
        return draft

    def balance(self, holder) -> int:
        """What an account holds now."""
        content = read_account(self.chain.tip.account(holder).account)
        return content.balance_nanoton if content else 0


@contextmanager
def net_in(folder: Path):
    folder.mkdir(mode=0o700, exist_ok=True)
    with open_store(folder) as store:
        yield Net(store)


@pytest.fixture
def net(tmp_path):
    with net_in(tmp_path / "chain") as opened:
        yield opened


def ask_faucet(to, amount: int = TON, query: int = 0) -> bytes:
    body = Builder().uint(0x0C0CFA01, 32).uint(query, 64).address(*to).coins(amount).end()
    return pack(Builder().uint(0b1000, 4).address(*FAUCET).coins(0).uint(0b01, 2).ref(body).end())


def internal(to, value: int, *, bounce: bool, forward_fee: int = 1_000, sender=SENDER, lt: int = 1) -> Cell:
    builder = Builder().uint(0b010, 3) if not bounce else Builder().uint(0b011, 3)
    builder.uint(0, 1).address(*sender).address(*to).currency(value).coins(0).coins(forward_fee)
    return builder.uint(lt, 64).uint(BORN_S, 32).uint(0, 2).end()


def order(seqno: int, *messages, valid_until: int = BORN_S + 1_000) -> bytes:
    """An external message to the wallet."""
    body = begin_cell().store_uint(WALLET_ID, 32).store_uint(valid_until, 32).store_uint(seqno, 32)
    for message, mode in messages:
        body.store_uint(mode, 8).store_ref(message)
    signed = begin_cell().store_bytes(KEY.sign(body.end_cell().hash).signature).store_cell(body.end_cell()).end_cell()
    head = begin_cell().store_uint(2, 2).store_uint(0, 2).store_address(Address(WALLET)).store_coins(0)
    return head.store_bit(0).store_bit(1).store_ref(signed).end_cell().to_boc()


def outgoing(to, value: int, *, bounce: bool = False):
    return WalletV3R2.create_internal_msg(dest=Address(to), value=value, bounce=bounce).serialize()


def test_a_gift_moves_coins_and_burns_fees_to_the_nanoton(net):
    supply = net.chain.supply_nanoton
    net.send(ask_faucet(NOBODY, 5 * TON))
    draft = net.block()
    assert net.balance(NOBODY) == 5 * TON
    assert draft.transactions == 2
    states = [made.state for made in net.chain.tip.made.values()]
    assert sum(state.accounts.amount + state.fees_nanoton for state in states) == supply


def test_a_message_that_fails_bounces_back_with_what_is_left(net):
    net.put(internal(THROWER, TON, bounce=True))
    draft = net.block()
    assert draft.transactions == 2
    back = net.balance(SENDER)
    assert 0.99 * TON < back < TON
    assert net.balance(THROWER) == TON - 1  # the rent of ten seconds


def test_a_message_that_fails_and_may_not_bounce_stays(net):
    net.put(internal(THROWER, TON, bounce=False))
    net.block()
    assert net.balance(SENDER) == 0
    assert TON < net.balance(THROWER) < 2 * TON


def test_a_message_to_nobody_bounces_or_makes_an_account(net):
    net.put(internal(NOBODY, TON, bounce=True))
    net.block()
    assert net.balance(NOBODY) == 0
    net.put(internal(NOBODY, TON, bounce=False))
    net.block()
    assert net.balance(NOBODY) == TON


def test_a_wallets_message_pays_its_way_and_reaches_the_masterchain(net):
    there = (MASTER, b"\x44" * 32)
    net.send(order(0, (outgoing(there, TON), 3)))
    draft = net.block()
    assert net.balance(there) == TON
    flows = [unpack(block.data, MOST).refs[1].refs[0].read() for block in draft.commit.blocks]
    moved = [[flow.currency() for _ in range(4)] for flow in flows]
    assert [imported > TON for _, _, imported, _ in moved] == [True, False]
    assert [exported > TON for _, _, _, exported in moved] == [False, True]


def test_of_two_messages_with_one_number_the_second_is_dropped_and_costs_nothing(net):
    net.send(order(0, (outgoing(NOBODY, TON), 3)), order(0, (outgoing(NOBODY, 2 * TON), 3)))
    draft = net.block()
    assert draft.dropped == 1
    assert net.balance(NOBODY) == TON
    assert net.store.messages() == []


def test_an_account_that_gives_all_away_and_goes_is_gone(net):
    net.send(order(0, (outgoing(NOBODY, 0), 128 + 32)))
    net.block()
    assert net.balance(WALLET) == 0
    assert net.chain.tip.made[BASE].state.accounts.get(int.from_bytes(WALLET[1], "big")) is None
    assert WALLET[1] not in dict(net.store.accounts(BASE))
    assert 9.9 * TON < net.balance(NOBODY) < 10 * TON


def test_a_message_whose_time_is_over_is_refused(net):
    net.now_s = BORN_S + 1_001
    with pytest.raises(ChainRefused, match="exitcode=35"):
        net.send(order(0, (outgoing(NOBODY, TON), 3)))


SOMEWHERE = "01" * 128
#: Destinations that a contract may write into a message, and who gets the coins.
DESTINATIONS = {
    "plain": ("100" + "0" * 8 + SOMEWHERE, NOBODY),  # its hash is the bits 01 again and again
    "variable length": ("110" + format(256, "09b") + "0" * 32 + SOMEWHERE, NOBODY),
    "black hole": ("100" + "1" * 8 + "1" * 256, (MASTER, b"\xff" * 32)),
    "too short": ("110" + format(100, "09b") + "0" * 32 + "01" * 50, None),
    "anycast": ("101" + format(3, "05b") + "101" + "0" * 8 + SOMEWHERE, None),
    "unknown workchain": ("100" + format(5, "08b") + SOMEWHERE, None),
    "none": ("00", None),
    "outside": ("01" + format(8, "09b") + "1" * 8, None),
}


@pytest.mark.parametrize(("bits", "holder"), DESTINATIONS.values(), ids=DESTINATIONS.keys())
def test_whatever_a_contract_writes_as_destination_the_chain_goes_on(net, bits, holder):
    message = begin_cell().store_bits("010000" + bits).store_coins(TON).store_uint(0, 1 + 4 + 4 + 64 + 32 + 2)
    net.send(order(0, (message.end_cell(), 3)))
    draft = net.block()
    assert net.balance(holder or NOBODY) == (TON if holder else 0)
    assert draft.transactions == 1 + (holder is not None)
    assert net.chain.pending == 0


@contextmanager
def net_with(folder: Path, holder, balance: int):
    """A chain born with one more account, whose data have 61 cells."""
    data = Cell(0, 0)
    for number in range(60):
        data = Cell(number, 32, (data,))
    folder.mkdir(mode=0o700)
    with open_store(folder) as store:
        config, accounts = newborn()
        accounts[holder] = (active_account(holder, balance, Cell(0, 0), data, BORN_S), balance)
        found(store, config, accounts, BORN_S)
        yield Net(store)


def test_an_account_of_many_cells_is_read_like_any_other(tmp_path):
    with net_with(tmp_path / "chain", NOBODY, TON) as net:
        net.put(internal(NOBODY, TON, bounce=False))
        net.block()
        assert 1.9 * TON < net.balance(NOBODY) < 2 * TON


def test_an_account_that_cannot_pay_ten_years_of_rent_is_frozen_and_the_books_hold(tmp_path):
    with net_with(tmp_path / "chain", NOBODY, 1) as net:
        net.now_s += 10 * 365 * 24 * 3_600
        net.send(ask_faucet(NOBODY, 1))
        net.block()
        frozen = read_account(net.chain.tip.account(NOBODY).account)
        assert frozen is not None and frozen.code is None
        states = [made.state for made in net.chain.tip.made.values()]
        assert sum(state.accounts.amount + state.fees_nanoton for state in states) == net.chain.supply_nanoton


def test_the_same_message_waits_once(net):
    net.send(ask_faucet(NOBODY), ask_faucet(NOBODY))
    net.block()
    assert net.balance(NOBODY) == TON


def test_more_messages_than_a_block_takes_run_in_order_over_several_and_over_a_restart(tmp_path):
    folder, count = tmp_path / "chain", DEVNET_BLOCK_MESSAGES + 40
    with net_in(folder) as net:
        for number in range(count):
            net.put(unpack(ask_faucet((BASE, number.to_bytes(32, "big")), TON + number, number), MOST))
        first = net.block()
        assert first.transactions == DEVNET_BLOCK_MESSAGES
        assert net.chain.pending == len(net.store.messages()) == count
    with net_in(folder) as net:
        assert net.chain.pending == count
        while net.chain.pending:
            net.block()
        assert [net.balance((BASE, number.to_bytes(32, "big"))) for number in range(count)] == [
            TON + number for number in range(count)
        ]
        history = net.store.history(FAUCET, 1 << 62, 2 * count)
        assert len(history) == len({one.hash for one in history}) == count


def test_a_chain_that_is_opened_again_is_the_same(tmp_path):
    folder = tmp_path / "chain"
    with net_in(folder) as net:
        net.send(ask_faucet(NOBODY))
        net.block()
        genesis, tip, state = net.chain.genesis, net.chain.tip.master, net.chain.tip.made[MASTER].state.cell
    with net_in(folder) as net:
        assert (net.chain.genesis, net.chain.tip.master) == (genesis, tip)
        assert net.chain.tip.made[MASTER].state.cell == state
        net.block()
        assert net.chain.tip.seqno == tip.id.seqno + 1


def test_a_draft_that_never_became_durable_leaves_no_trace(net):
    net.send(ask_faucet(NOBODY))
    before = net.chain.tip
    net.chain.draft(net.now_s)
    assert net.chain.tip is before
    assert net.chain.pending == 1
    net.block()
    assert net.balance(NOBODY) == TON


def test_chain_time_never_falls(net):
    net.now_s = BORN_S + 500
    net.block()
    net.now_s = BORN_S
    net.block()
    assert net.chain.tip.at_s == BORN_S + 500


def test_only_the_newest_states_are_kept(net, monkeypatch):
    monkeypatch.setattr("cocoon.devnet.chain.DEVNET_STATES", 3)
    for _ in range(5):
        net.block()
    assert net.chain.tip_at(5) is net.chain.tip
    assert [seqno for seqno in range(6) if net.chain.tip_at(seqno)] == [3, 4, 5]


def test_old_blocks_are_forgotten_if_they_executed_nothing(net, monkeypatch):
    monkeypatch.setattr("cocoon.devnet.store.DEVNET_EMPTY_BLOCKS", 3)
    net.send(ask_faucet(NOBODY))
    for _ in range(8):
        net.block()
    for workchain in (MASTER, BASE):
        kept = [seqno for seqno in range(1, 9) if net.store.block(workchain, seqno)]
        assert kept == [1, 6, 7, 8]


def test_what_is_no_external_message_to_us_is_malformed(net):
    elsewhere = pack(Builder().uint(0b1000, 4).address(5, bytes(32)).coins(0).uint(0, 2).end())
    event = pack(Builder().uint(0b1100, 4).uint(0, 64).end())
    for data in (pack(internal(NOBODY, TON, bounce=False)), elsewhere, event, pack(Cell(0, 0)), b"", bytes(70_000)):
        with pytest.raises(Malformed):
            net.chain.check(data, net.now_s)


def test_a_message_without_lawful_form_is_refused(net):
    broken = pack(Builder().uint(0b1000, 4).address(*FAUCET).coins(0).uint(0b10, 2).uint(31, 5).end())
    with pytest.raises(ChainRefused, match="lawful form"):
        net.chain.check(broken, net.now_s)


def test_a_full_queue_takes_no_more_from_outside(net):
    inbound = net.chain.check(ask_faucet(NOBODY), net.now_s)
    for number in range(DEVNET_PENDING):
        net.chain.add(number + 1, inbound)
    with pytest.raises(LimitExceeded):
        net.chain.check(ask_faucet(NOBODY, query=1), net.now_s)


def test_two_networks_have_two_names(tmp_path):
    names = set()
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        with open_store(folder) as store:
            found(store, *newborn(bytes([number]) * 16), BORN_S)
            names.add(Chain(store).genesis)
    assert len(names) == 2


def test_a_full_disk_stops_blocks_and_loses_nothing(net):
    writer = net.store._writer
    writer.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size as the least
    with pytest.raises(StorageFull):
        for query in range(10_000):
            net.put(unpack(ask_faucet(NOBODY, query=query), MOST))
    waiting = len(net.store.messages())
    assert waiting == net.chain.pending > 0
    with pytest.raises(StorageFull):
        for _ in range(100):
            net.block()
    writer.execute("PRAGMA max_page_count = 1000000")
    while net.chain.pending:
        net.block()
    assert net.balance(NOBODY) == waiting * TON


# --- damage --------------------------------------------------------------------


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / CHAIN_FILE)) as connection, connection:
        connection.execute(statement, values)


@pytest.fixture
def folder(tmp_path):
    with net_in(tmp_path / "chain") as net:
        net.send(ask_faucet(NOBODY))
        net.block()
    return tmp_path / "chain"


@pytest.mark.parametrize("statement", [
    "DELETE FROM accounts WHERE account = x'" + "55" * 32 + "'",
    "DELETE FROM facts WHERE name = 'config'",
    "UPDATE facts SET value = CAST('7' AS BLOB) WHERE name = 'fees_nanoton:0'",
    "DELETE FROM blocks WHERE workchain = -1",
    "UPDATE blocks SET state_hash = zeroblob(32)",
    "UPDATE facts SET value = zeroblob(9) WHERE name = 'config'",
    "UPDATE facts SET value = CAST('many' AS BLOB) WHERE name = 'supply_nanoton'",
    "UPDATE facts SET value = (SELECT value FROM facts WHERE name = 'zerostate:0') WHERE name = 'config'",
    "UPDATE accounts SET data = zeroblob(9)",
    "UPDATE accounts SET account = 5 WHERE account = x'" + "55" * 32 + "'",
    "UPDATE blocks SET data = zeroblob(9)",
    "UPDATE blocks SET end_lt = -1",
    "INSERT INTO messages (hash, seqno, data) VALUES (zeroblob(32), 0, zeroblob(9))",
], ids=[
    "account", "config", "fees", "blocks", "hash", "config's bytes", "supply's digits", "another config",
    "account's bytes", "account's type", "block's bytes", "block's time", "message's bytes",
])
def test_a_damaged_file_is_no_chain(folder, statement):
    change(folder, statement)
    with pytest.raises(Corrupt), net_in(folder):
        pass


@pytest.mark.parametrize(("look", "index"), [
    (lambda store: store.block_with_lt(BASE, 1), "blocks_by_lt"),
    (lambda store: store.block_at(BASE, 1), "blocks_by_time"),
], ids=["logical time", "clock"])
def test_a_block_is_looked_up_by_an_index_and_without_sorting(net, monkeypatch, look, index):
    asked = []
    monkeypatch.setattr(net.store, "_one", lambda *question: asked.append(question))
    look(net.store)
    ((query, values),) = asked
    plan = [row[3] for row in net.store._reader.execute(f"EXPLAIN QUERY PLAN {query}", values)]
    assert len(plan) == 1 and f"USING INDEX {index} (workchain=?" in plan[0], plan


def test_the_file_of_a_newer_version_is_left_alone(folder):
    change(folder, "PRAGMA user_version = 99")
    with pytest.raises(SchemaNewer), open_store(folder):
        pass


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / CHAIN_FILE
    path.write_bytes(b"not a database at all " * 100)
    before = path.read_bytes()
    with pytest.raises(Corrupt), open_store(tmp_path):
        pass
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(tmp_path):
    change(tmp_path, "CREATE TABLE other (x)")
    with pytest.raises(Corrupt), open_store(tmp_path):
        pass
