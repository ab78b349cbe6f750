"""Whole blocks and whole states, read from their cells.

Only what adding up a chain needs: which block came before, the fees, every
transaction; every balance, and which block of the other workchain it rests on.
Every failure is ``Malformed`` or ``TooLarge``.

Purity: pure. Spec: docs/spec/devnet.md, rules DEV-8 to DEV-10; TON's block.tlb.
"""

from __future__ import annotations

from cocoon.core.errors import Malformed
from cocoon.core.limits import SUPPLY_ACCOUNTS, SUPPLY_TRANSACTIONS
from cocoon.core.values import Value
from cocoon.ledger.supply import Moves
from cocoon.ledger.tlb import read_account, read_currencies, read_moves
from cocoon.wire.cells import Cell, CellReader
from cocoon.wire.dictionary import read_dictionary, read_summed

MASTER, BASE = -1, 0
_INFO_TAG, _FLOW_TAG, _EXTRA_TAG = 0x9BC7A987, 0xB8E48DFB, 0x4A33F6FD
_STATE_TAG, _MASTER_TAG = 0x9023AFE2, 0xCC26
_SHARD_TAGS = (0xA, 0xB)
_ACCOUNT_BITS, _TIME_BITS, _WORKCHAIN_BITS = 256, 64, 32
_ACCOUNT_BLOCK_TAG = 5


class BlockId(Value):
    """A block by number and hashes; a zerostate has one too, with number 0."""

    workchain: int
    seqno: int
    root_hash: bytes
    file_hash: bytes


class WholeBlock(Value):
    """One block. ``state_hash`` is that of the state behind it."""

    id: BlockId
    previous: BlockId
    state_hash: bytes
    fees_nanoton: int
    transactions: tuple[Moves, ...]


class WholeState(Value):
    """One workchain after a block. ``base`` is named by a state of the masterchain only."""

    workchain: int
    balances: tuple[int, ...]
    base: BlockId | None


def read_block(block: BlockId, state_hash: bytes, info: Cell, flow: Cell, extra: Cell) -> WholeBlock:
    """Read a block of an unsplit workchain from its parts; all stand under ``block``'s hash already.

    Raises:
        Malformed: they are no such parts, or the block is another one.
    """
    previous = _read_info(CellReader.of(info), block)
    return WholeBlock(block, previous, state_hash, _read_fees(CellReader.of(flow)), _read_transactions(extra))


def read_state(cell: Cell) -> WholeState:
    """Read the whole state of an unsplit workchain.

    Raises:
        Malformed: it is none, or its balances are not what it says they are together.
        TooLarge: it has more accounts than are added up.
    """
    reader = CellReader.of(cell)
    _tag(reader, _STATE_TAG, "a state")
    reader.uint(32)
    workchain = _read_shard(reader)
    reader.uint(32 + 32 + 32 + 64 + 32)
    reader.ref()
    reader.uint(1)
    balances = _read_balances(CellReader.of(reader.ref()))
    totals = CellReader.of(reader.ref())
    totals.uint(64 + 64)
    if read_currencies(totals) != sum(balances):
        raise Malformed("a state names another total than that of its balances")
    custom = reader.maybe()
    return WholeState(workchain, balances, None if custom is None else _read_base(CellReader.of(custom)))


def _read_info(reader: CellReader, block: BlockId) -> BlockId:
    _tag(reader, _INFO_TAG, "a block's header")
    reader.uint(32)
    inner, after_merge = reader.uint(1), reader.uint(1)
    reader.uint(6)
    flags = reader.uint(8)
    seqno = reader.uint(32)
    reader.uint(32)
    if after_merge or (_read_shard(reader), seqno) != (block.workchain, block.seqno):
        raise Malformed(f"block {block.workchain}:{block.seqno} says that it is another one, or merged")
    reader.uint(32 + 64 + 64 + 32 + 32 + 32 + 32)
    if flags & 1:
        reader.uint(8 + 32 + 64)
    if inner:
        reader.ref()
    reference = CellReader.of(reader.ref())
    reference.uint(64)
    previous, root_hash, file_hash = reference.uint(32), reference.blob(32), reference.blob(32)
    if previous != block.seqno - 1:
        raise Malformed(f"block {block.workchain}:{block.seqno} follows block {previous}")
    return BlockId(block.workchain, previous, root_hash, file_hash)


def _read_fees(reader: CellReader) -> int:
    _tag(reader, _FLOW_TAG, "a flow of value")
    return read_currencies(reader)


def _read_transactions(extra: Cell) -> tuple[Moves, ...]:
    reader = CellReader.of(extra)
    _tag(reader, _EXTRA_TAG, "a block's content")
    reader.ref()
    reader.ref()
    accounts = _root_of(CellReader.of(reader.ref()))
    if accounts is None:
        return ()
    found: list[Moves] = []
    for entry in read_summed(accounts, _ACCOUNT_BITS, SUPPLY_TRANSACTIONS).values():
        read_currencies(entry)
        if entry.uint(4) != _ACCOUNT_BLOCK_TAG:
            raise Malformed("an account's part of a block has another tag")
        entry.blob(32)
        for one in read_summed(entry, _TIME_BITS, SUPPLY_TRANSACTIONS).values():
            read_currencies(one)
            found.append(read_moves(one.ref()))
    return tuple(found)


def _read_balances(reader: CellReader) -> tuple[int, ...]:
    accounts = _root_of(reader)
    if accounts is None:
        return ()
    found = []
    for entry in read_summed(accounts, _ACCOUNT_BITS, SUPPLY_ACCOUNTS).values():
        entry.uint(5)
        read_currencies(entry)
        found.append(read_account(entry.ref()).balance_nanoton)
    return tuple(found)


def _root_of(reader: CellReader) -> CellReader | None:
    """A reader at the root of a dictionary that may be empty."""
    root = reader.maybe()
    return None if root is None else CellReader.of(root)


def _read_base(reader: CellReader) -> BlockId:
    """The basechain's only shard in the masterchain's own part of its state."""
    if reader.uint(16) != _MASTER_TAG:
        raise Malformed("the masterchain's part of a state has another tag")
    shards = read_dictionary(reader.maybe(), _WORKCHAIN_BITS, 1)
    if BASE not in shards:
        raise Malformed("the masterchain names no basechain")
    leaf = CellReader.of(shards[BASE].ref())
    if leaf.uint(1) or leaf.uint(4) not in _SHARD_TAGS:
        raise Malformed("the basechain is split into shards; only a whole one is added up")
    seqno = leaf.uint(32)
    leaf.uint(32 + 64 + 64)
    return BlockId(BASE, seqno, leaf.blob(32), leaf.blob(32))


def _read_shard(reader: CellReader) -> int:
    """The workchain of a shard that is all of it."""
    if reader.uint(2 + 6):
        raise Malformed("a shard of a split workchain; only a whole one is added up")
    workchain, prefix = reader.uint(32), reader.uint(64)
    if prefix:
        raise Malformed("a shard with a prefix")
    return workchain - (1 << 32 if workchain >> 31 else 0)


def _tag(reader: CellReader, tag: int, what: str) -> None:
    if (found := reader.uint(32)) != tag:
        raise Malformed(f"{what} begins with 0x{found:08x}, not with 0x{tag:08x}")
