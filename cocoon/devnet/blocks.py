"""Blocks and states as cells: what a block commits to, and the proofs cut out of it.

A block of the masterchain and one of the basechain are made together and have
the same number. Both carry their transactions; the masterchain's state names
the basechain's block and holds the configuration. What stays empty: descriptors
of messages, validators, signatures, the list of old blocks.

Purity: pure. Spec: docs/spec/devnet.md, rules DEV-8 to DEV-11; block.tlb of the TON source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from cocoon.core.values import Value
from cocoon.devnet.cells import Builder, Cell, merkle_proof, merkle_update, pack, show
from cocoon.devnet.formats import Executed
from cocoon.devnet.hashmap import ACCOUNT_BLOCKS, TRANSACTIONS, Trie, store_map

MASTER, BASE = -1, 0
WORKCHAINS = (MASTER, BASE)
#: The only shard of a workchain, as a signed number.
SHARD = -(1 << 63)
GLOBAL_ID = -3
#: Logical time of a zerostate. The machine executes by today's rules only above 3,709,412,000,000.
ZERO_LT = 10_000_000_000_000

_EMPTY = Builder().end()
_NO_MESSAGES_IN = Builder().uint(0, 1).coins(0).currency(0).end()
_NO_MESSAGES_OUT = Builder().uint(0, 1).currency(0).end()


class BlockId(Value):
    """What TON calls ``BlockIdExt``; a zerostate has one too, with number 0."""

    workchain: int
    seqno: int
    root_hash: bytes
    file_hash: bytes


class Header(Value):
    """What stands in a block's header beside its id."""

    id: BlockId
    state_hash: bytes
    start_lt: int
    end_lt: int
    at_s: int

    def reference(self) -> Builder:
        """``ExtBlkRef`` to this block."""
        builder = Builder().uint(self.end_lt, 64).uint(self.id.seqno, 32)
        return builder.blob(self.id.root_hash).blob(self.id.file_hash)


class Flow(Value):
    """Where coins of a workchain went in one block, in nanoton.

    ``before`` + ``imported`` = ``after`` + ``exported`` + ``fees``.
    Imported and exported count messages that waited between two blocks, or
    went to another workchain.
    """

    before: int
    after: int
    imported: int
    exported: int
    fees: int

    @property
    def balanced(self) -> bool:
        """Whether nothing was lost or made."""
        return self.before + self.imported == self.after + self.exported + self.fees

    def cell(self) -> Cell:
        """``ValueFlow``."""
        moved = Builder().currency(self.before).currency(self.after)
        moved.currency(self.imported).currency(self.exported)
        none = Builder().currency(0).currency(0).currency(0).currency(0)
        return Builder().uint(0xB8E48DFB, 32).ref(moved.end()).currency(self.fees).ref(none.end()).end()


class State(Value):
    """What a workchain is after a block.

    Attributes:
        fees_nanoton: Fees of all blocks so far; nobody ever takes them.
        cell: ``ShardStateUnsplit``.
    """

    workchain: int
    seqno: int
    accounts: Trie
    fees_nanoton: int
    cell: Cell


class Change(Value):
    """One account's part of a block: its state hashes and what it executed."""

    account: bytes
    old: bytes
    new: bytes
    executed: tuple[Executed, ...]


# --- states --------------------------------------------------------------------


def base_state(seqno: int, at_s: int, lt: int, accounts: Trie, fees_nanoton: int) -> State:
    """State of the basechain."""
    cell = _state(BASE, seqno, at_s, lt, accounts, fees_nanoton, None)
    return State(BASE, seqno, accounts, fees_nanoton, cell)


def master_state(
    seqno: int, at_s: int, lt: int, accounts: Trie, fees_nanoton: int, base: Header, config: Cell, address: bytes,
    supply_nanoton: int,
) -> State:
    """State of the masterchain, which names the basechain's newest block.

    Args:
        config: Dictionary of parameters; ``address`` is the account that would vote on it.
        supply_nanoton: All coins of the network.
    """
    extra = Builder().uint(0xCC26, 16).inline(_shard_hashes(base)).blob(address).ref(config)
    validators = Builder().uint(0, 32 + 32 + 1)
    old_blocks = Builder().uint(0, 1 + 1 + 64)
    extra.ref(Builder().uint(0, 16).inline(validators.end()).inline(old_blocks.end()).uint(0, 2).end())
    extra.currency(supply_nanoton)
    cell = _state(MASTER, seqno, at_s, lt, accounts, fees_nanoton, extra.end())
    return State(MASTER, seqno, accounts, fees_nanoton, cell)


def _state(workchain: int, seqno: int, at_s: int, lt: int, accounts: Trie, fees: int, extra: Cell | None) -> Cell:
    builder = Builder().uint(0x9023AFE2, 32).sint(GLOBAL_ID, 32).inline(_shard_ident(workchain))
    builder.uint(seqno, 32).uint(0, 32).uint(at_s, 32).uint(lt, 64).uint(seqno, 32)
    builder.ref(Builder().uint(0, 1 + 64 + 1 + 1).end())  # the queue of messages is the devnet's own affair
    builder.uint(0, 1).ref(accounts.cell())
    totals = Builder().uint(0, 128).currency(accounts.amount).currency(fees).uint(0, 2)
    return builder.ref(totals.end()).maybe(extra).end()


def _shard_ident(workchain: int) -> Cell:
    return Builder().uint(0, 2 + 6).sint(workchain, 32).uint(0, 64).end()


def _shard_hashes(base: Header) -> Cell:
    """``ShardHashes`` with the only shard of the basechain."""
    builder = Builder().uint(0, 1).uint(0xB, 4).uint(base.id.seqno, 32).uint(base.id.seqno, 32)
    builder.uint(base.start_lt, 64).uint(base.end_lt, 64).blob(base.id.root_hash).blob(base.id.file_hash)
    builder.uint(0, 8).uint(0, 32).uint(1 << 63, 64).uint(base.id.seqno, 32).uint(base.at_s, 32)
    builder.uint(0, 1).currency(0).currency(0)
    return Builder().maybe(store_map({BASE: Builder().ref(builder.end()).end()}, 32)).end()


def shard_hashes_of(master: State) -> Cell:
    """The dictionary of shards inside a masterchain state."""
    return master.cell.refs[3].refs[0]


# --- blocks --------------------------------------------------------------------


class Made(Value):
    """A block with everything that it consists of."""

    header: Header
    state: State
    cell: Cell
    data: bytes


def zero(workchain: int, state: Cell, data: bytes, at_s: int) -> Header:
    """The id of a zerostate, in the place of a block before the first; ``data`` is its bag of cells."""
    block = BlockId(workchain, 0, state.hash, hashlib.sha256(data).digest())
    return Header(block, state.hash, ZERO_LT, ZERO_LT, at_s)


def make(
    state: State, previous: Header, old_state: Cell, master: Header, flow: Flow, changes: Iterable[Change],
    seed: bytes, start_lt: int, end_lt: int, at_s: int,
) -> Made:
    """A block that leads from ``previous`` to ``state``.

    Args:
        master: Newest block of the masterchain before this one.
        seed: 32 random bytes that the contracts were given.
    """
    info = _info(state, previous, master, start_lt, end_lt, at_s)
    extra = _extra(state, changes, seed)
    update = merkle_update(old_state, state.cell)
    builder = Builder().uint(0x11EF55AA, 32).sint(GLOBAL_ID, 32).ref(info).ref(flow.cell())
    cell = builder.ref(update).ref(extra).end()
    data = pack(cell)
    block = BlockId(state.workchain, state.seqno, cell.hash, hashlib.sha256(data).digest())
    return Made(Header(block, state.cell.hash, start_lt, end_lt, at_s), state, cell, data)


def _info(state: State, previous: Header, master: Header, start_lt: int, end_lt: int, at_s: int) -> Cell:
    inner = state.workchain != MASTER
    builder = Builder().uint(0x9BC7A987, 32).uint(0, 32).uint(inner, 1).uint(0, 7).uint(0, 8)
    builder.uint(state.seqno, 32).uint(0, 32).inline(_shard_ident(state.workchain))
    builder.uint(at_s, 32).uint(start_lt, 64).uint(end_lt, 64).uint(0, 32).uint(0, 32)
    builder.uint(master.id.seqno, 32).uint(0, 32)
    if inner:
        builder.ref(master.reference().end())
    return builder.ref(previous.reference().end()).end()


def _extra(state: State, changes: Iterable[Change], seed: bytes) -> Cell:
    builder = Builder().uint(0x4A33F6FD, 32).ref(_NO_MESSAGES_IN).ref(_NO_MESSAGES_OUT)
    builder.ref(_account_blocks(changes).cell()).blob(seed).blob(bytes(32))
    return builder.maybe(_master_extra(state) if state.workchain == MASTER else None).end()


def _account_blocks(changes: Iterable[Change]) -> Trie:
    trie = Trie(ACCOUNT_BLOCKS)
    for change in changes:
        inner = Trie(TRANSACTIONS)
        for one in change.executed:
            inner = inner.put(one.lt, Builder().ref(one.cell).end(), one.fees_nanoton)
        update = Builder().uint(0x72, 8).blob(change.old).blob(change.new).end()
        value = Builder().uint(5, 4).blob(change.account).inline(inner.edge()).ref(update).end()
        trie = trie.put(int.from_bytes(change.account, "big"), value, inner.amount)
    return trie


def _master_extra(state: State) -> Cell:
    builder = Builder().uint(0xCCA5, 16).uint(0, 1).maybe(shard_hashes_of(state))
    builder.uint(0, 1).currency(0).currency(0)
    return builder.ref(Builder().uint(0, 3).end()).end()


# --- proofs --------------------------------------------------------------------


def header_proof(block: Cell) -> Cell:
    """The header and the state's hash, provably of ``block``."""
    info, _, update, _ = block.refs
    return merkle_proof(show(block, {info.hash, update.hash, *(ref.hash for ref in info.refs)}))


def transactions_proof(block: Cell, transactions: Collection[bytes]) -> Cell:
    """The header and the hashes of all transactions (given), provably of ``block``."""
    info, _, update, extra = block.refs
    visible = {info.hash, update.hash, extra.hash, *(ref.hash for ref in info.refs)}
    visible.update(ref.hash for ref in extra.refs)
    todo = list(extra.refs[2].refs)
    while todo:
        cell = todo.pop()
        if cell.hash not in transactions:
            visible.add(cell.hash)
            todo.extend(cell.refs)
    return merkle_proof(show(block, visible))


def account_proof(state: State, account: bytes) -> Cell:
    """The way to an account, or to where it would be, provably of ``state``."""
    path = state.accounts.path(int.from_bytes(account, "big"))
    return merkle_proof(show(state.cell, {state.cell.refs[1].hash, *(cell.hash for cell in path)}))


def shards_proof(master: State) -> Cell:
    """The list of shards, provably of a masterchain state."""
    extra = master.cell.refs[3]
    shards = extra.refs[0]
    visible = {extra.hash, shards.hash, *(ref.hash for ref in shards.refs), extra.refs[2].hash}
    return merkle_proof(show(master.cell, visible))


def config_proof(master: State) -> Cell:
    """The whole configuration, provably of a masterchain state."""
    extra = master.cell.refs[3]
    visible = {extra.hash, extra.refs[2].hash, extra.refs[0].hash, *(ref.hash for ref in extra.refs[0].refs)}
    todo = [extra.refs[1]]
    while todo:
        cell = todo.pop()
        if cell.hash not in visible:
            visible.add(cell.hash)
            todo.extend(cell.refs)
    return merkle_proof(show(master.cell, visible))
