"""Proofs of the chain: from a block's hash to an account's state, a time, or the configuration.

The library's own check takes an empty answer for "no such account" without any
proof, and a pruned branch for a missing key. Here absence is proven like presence:
the path to the account is walked in the dictionary, and must be there.

Purity: shell; one of the doors to pytoniq_core. Spec: docs/spec/chain.md, rules CHN-4 to CHN-6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytoniq_core import Cell, Slice
from pytoniq_core.boc.address import AddressError
from pytoniq_core.boc.cell import CellError
from pytoniq_core.boc.deserialize import BocError
from pytoniq_core.boc.exotic import CellTypes
from pytoniq_core.boc.hashmap.hashmap import DictError
from pytoniq_core.boc.slice import SliceError
from pytoniq_core.boc.tvm_bitarray import TvmBitarrayException
from pytoniq_core.proof.check_proof import ProofError, check_shard_proof
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tl.generator import TlError
from pytoniq_core.tlb.block import ShardStateUnsplit
from pytoniq_core.tlb.tlb import TlbError

from cocoon.core.errors import BadProof, Malformed
from cocoon.core.limits import CHAIN_CELLS
from cocoon.core.values import Value
from cocoon.ledger.blocks import BlockId, WholeBlock, WholeState, read_block, read_state
from cocoon.ledger.onchain import Account, Prices, Transaction
from cocoon.ledger.tlb import read_account, read_prices, read_transaction
from cocoon.wire.cells import Cell as OurCell

#: What the library raises on bytes that it does not understand: its own types, and whatever escapes them.
FOREIGN = (
    AddressError, CellError, BocError, DictError, SliceError, TvmBitarrayException, ProofError, TlError, TlbError,
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)
_STATE_TAG = 0x9023AFE2
_BLOCK_TAG = 0x11EF55AA
_KEY_BITS = 256
_GAS, _FORWARD, _STORAGE = 21, 25, 18


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Turn every failure of reading a liteserver's answer into one typed error.

    Raises:
        BadProof: instead of whatever was raised.
    """
    try:
        yield
    except Malformed as error:
        raise BadProof(f"{what}: {error.text}") from None
    except FOREIGN as error:
        raise BadProof(f"{what} cannot be read ({type(error).__name__})") from None


class ShardState(Value):
    """The proven root of a shard's state."""

    cell: Cell
    at_s: int


def block_time(proof: bytes, root_hash: bytes) -> int:
    """Chain time of the block with this hash."""
    block = _proven_block(Cell.one_from_boc(proof)[0], root_hash)
    info = block[0].begin_parse()
    info.skip_bits(32 + 32 + 8 + 8 + 32 + 32 + 104)
    return int(info.load_uint(32))


def shard_block(answer: Mapping[str, Any], master: BlockIdExt) -> BlockIdExt:
    """The block of workchain 0 that ``answer`` rests on, proven by the masterchain block ``master``."""
    shard: BlockIdExt = BlockIdExt.from_dict(answer["shardblk"])
    if shard.workchain != 0:
        raise BadProof(f"an account of workchain 0 was answered from workchain {shard.workchain}")
    check_shard_proof(answer["shard_proof"], master, shard)
    return shard


def account_of(answer: Mapping[str, Any], shard: BlockIdExt, address: bytes, seqno: int) -> Account:
    """The account's state, or the proof that there is none, under the shard block's hash."""
    given = answer["state"]
    if not isinstance(given, bytes):
        raise BadProof("the account's state is no bytes")
    state = _shard_state(answer["proof"], shard.root_hash, address)
    leaf = _find(state.cell[1], int.from_bytes(address, "big"))
    if leaf is None:
        if given:
            raise BadProof("a state was given of an account that the block does not have")
        return Account(address, 0, None, None, 0, bytes(32), seqno, state.at_s)
    leaf.load_uint(5)
    leaf.load_coins()
    if leaf.load_bit():
        leaf.load_ref()
    proven, last_hash, last_lt = leaf.load_ref(), leaf.load_bytes(32), leaf.load_uint(64)
    cell = our_cell(Cell.one_from_boc(given)) if given else None
    if cell is None or cell.hash() != proven.get_hash(0):
        raise BadProof("the account's state is not the one in the block")
    record = read_account(cell)
    code_hash = None if record.code is None else record.code.hash()
    return Account(
        address, record.balance_nanoton, code_hash, record.data, last_lt, last_hash, seqno, state.at_s
    )


def transactions_of(
    answer: Mapping[str, Any], address: bytes, lt: int, last_hash: bytes
) -> tuple[list[Transaction], int, bytes]:
    """Transactions, newest first, each named by the one after it; and what precedes them (lt and hash)."""
    found: list[Transaction] = []
    for cell in Cell.from_boc(answer["transactions"]):
        linked = read_transaction(our_cell(cell))
        transaction = linked.transaction
        if (transaction.hash, transaction.lt, transaction.address) != (last_hash, lt, address):
            raise BadProof("a transaction is not the one that its successor names")
        found.append(transaction)
        lt, last_hash = linked.previous_lt, linked.previous_hash
        if not lt:
            break
    return found, lt, last_hash


def whole_block(data: bytes, block: BlockId) -> WholeBlock:
    """A block with everything in it, which is the one with this hash."""
    root = _proven_block(Cell.one_from_boc(data), block.root_hash)
    state_hash = _new_state_hash(root)
    return read_block(block, state_hash, our_cell(root[0]), our_cell(root[1]), our_cell(root[3]))


def whole_state(data: bytes, workchain: int, state_hash: bytes) -> WholeState:
    """The state of a workchain with this hash, with every account of it."""
    cell = our_cell(Cell.one_from_boc(data))
    if cell.hash() != state_hash:
        raise BadProof("the state is not that of the block")
    state = read_state(cell)
    if state.workchain != workchain:
        raise BadProof(f"the state is that of workchain {state.workchain}, not {workchain}")
    return state


def prices_of(answer: Mapping[str, Any], root_hash: bytes) -> Prices:
    """Prices in the configuration under the masterchain block's hash."""
    state_hash = _new_state_hash(_proven_block(Cell.one_from_boc(answer["state_proof"])[0], root_hash))
    state = Cell.one_from_boc(answer["config_proof"])[0]
    if state.get_hash(0) != state_hash:
        raise BadProof("the configuration is not that of the block")
    config = ShardStateUnsplit.deserialize(state.begin_parse()).custom.config.config
    return read_prices(*(our_cell(config[number]) for number in (_GAS, _FORWARD, _STORAGE)))


def our_cell(cell: Cell | Slice, most: int = CHAIN_CELLS) -> OurCell:
    """The same tree in our cells. Exotic ones are opaque: anybody may put them into a message to us.

    Raises:
        Malformed: more than ``most`` cells.
    """
    root = cell if isinstance(cell, Cell) else cell.to_cell()
    made: dict[bytes, OurCell] = {}
    todo = [root]
    while todo:
        at = todo[-1]
        below = () if at.is_exotic else at.refs
        if missing := [ref for ref in below if ref.hash not in made]:
            todo += missing
            continue
        todo.pop()
        if at.hash in made:
            continue
        if len(made) == most:
            raise Malformed(f"more than {most} cells in one tree")
        made[at.hash] = _one_cell(at, tuple(made[ref.hash] for ref in below))
    return made[root.hash]


def _one_cell(cell: Cell, refs: tuple[OurCell, ...]) -> OurCell:
    if cell.is_exotic:
        return OurCell.opaque(cell.get_hash(0), cell.get_depth(0))
    bits = len(cell.bits)
    return OurCell(int.from_bytes(cell.bits.tobytes(), "big") >> -bits % 8, bits, refs)


def _proven_block(block: Cell, root_hash: bytes) -> Cell:
    if block.get_hash(0) != root_hash or block.begin_parse().load_uint(32) != _BLOCK_TAG:
        raise BadProof("the block is not the one that was asked for")
    return block


def _new_state_hash(block: Cell) -> bytes:
    """Hash of the state after the block; it stands in the data of the Merkle update."""
    update = block[2]
    if update.type_ != CellTypes.merkle_update:
        raise BadProof("the block holds no update of its state")
    return bytes(update.data[33:65])


def _shard_state(proof: bytes, root_hash: bytes, address: bytes) -> ShardState:
    block, state = (root[0] for root in Cell.from_boc(proof))
    if state.get_hash(0) != _new_state_hash(_proven_block(block, root_hash)):
        raise BadProof("the state is not that of the block")
    reader = state.begin_parse()
    if reader.load_uint(32) != _STATE_TAG:
        raise BadProof("the state is no shard's")
    reader.skip_bits(32)
    if reader.load_uint(2):
        raise BadProof("the shard has no plain name")
    depth, workchain, prefix = reader.load_uint(6), reader.load_int(32), reader.load_uint(64)
    if workchain or prefix >> (64 - depth) != int.from_bytes(address[:8], "big") >> (64 - depth):
        raise BadProof("the shard is not that of the account")
    reader.skip_bits(32 + 32)
    return ShardState(state, int(reader.load_uint(32)))


def _find(accounts: Cell, key: int) -> Slice | None:
    """The leaf of ``key`` in a shard's accounts, or None if the dictionary has no such key.

    Raises:
        BadProof: the path ends in a pruned branch, which proves nothing.
    """
    reader: Slice = _present(accounts).begin_parse()
    if not reader.load_bit():
        return None
    cell, left = _present(reader.load_ref()), _KEY_BITS
    while True:
        reader = cell.begin_parse()
        label, length = _label(reader, left)
        left -= length
        if key >> left & ((1 << length) - 1) != label:
            return None
        if not left:
            return reader
        left -= 1
        cell = _present(cell[key >> left & 1])


def _present(cell: Cell) -> Cell:
    if cell.type_ != CellTypes.ordinary:
        raise BadProof("the proof leaves out the account")
    return cell


def _label(reader: Slice, most: int) -> tuple[int, int]:
    """The bits that a node adds to the key, and how many."""
    if not reader.load_bit():
        length = 0
        while reader.load_bit():
            length += 1
        return _bits(reader, length, most)
    width = most.bit_length()
    if not reader.load_bit():
        return _bits(reader, reader.load_uint(width), most)
    bit, length = reader.load_bit(), reader.load_uint(width)
    if length > most:
        raise BadProof("a label is longer than the key")
    return ((1 << length) - 1) * bit, length


def _bits(reader: Slice, length: int, most: int) -> tuple[int, int]:
    if length > most:
        raise BadProof("a label is longer than the key")
    return (int(reader.load_uint(length)) if length else 0), length
