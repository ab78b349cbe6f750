"""TL: the bytes of ADNL and of the liteserver protocol, read strictly.

The schema below is the part of ``lite_api.tl`` and ``ton_api.tl`` that the
devnet speaks. A constructor's number is the CRC-32 of its line, as in TL.

Purity: pure. Spec: docs/spec/devnet.md, rule DEV-30.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.values import Value

_SCHEMA = """
tcp.ping random_id:long = tcp.Pong
tcp.pong random_id:long = tcp.Pong
adnl.message.query query_id:int256 query:bytes = adnl.Message
adnl.message.answer query_id:int256 answer:bytes = adnl.Message
tonNode.blockId workchain:int shard:long seqno:int = tonNode.BlockId
tonNode.blockIdExt workchain:int shard:long seqno:int root_hash:int256 file_hash:int256 = tonNode.BlockIdExt
tonNode.zeroStateIdExt workchain:int root_hash:int256 file_hash:int256 = tonNode.ZeroStateIdExt
liteServer.error code:int message:string = liteServer.Error
liteServer.accountId workchain:int id:int256 = liteServer.AccountId
liteServer.masterchainInfo last:tonNode.blockIdExt state_root_hash:int256 init:tonNode.zeroStateIdExt =
    liteServer.MasterchainInfo
liteServer.masterchainInfoExt mode:# version:int capabilities:long last:tonNode.blockIdExt last_utime:int now:int
    state_root_hash:int256 init:tonNode.zeroStateIdExt = liteServer.MasterchainInfoExt
liteServer.currentTime now:int = liteServer.CurrentTime
liteServer.version mode:# version:int capabilities:long now:int = liteServer.Version
liteServer.blockData id:tonNode.blockIdExt data:bytes = liteServer.BlockData
liteServer.blockState id:tonNode.blockIdExt root_hash:int256 file_hash:int256 data:bytes = liteServer.BlockState
liteServer.blockHeader id:tonNode.blockIdExt mode:# header_proof:bytes = liteServer.BlockHeader
liteServer.sendMsgStatus status:int = liteServer.SendMsgStatus
liteServer.accountState id:tonNode.blockIdExt shardblk:tonNode.blockIdExt shard_proof:bytes proof:bytes state:bytes
    = liteServer.AccountState
liteServer.runMethodResult mode:# id:tonNode.blockIdExt shardblk:tonNode.blockIdExt shard_proof:mode.0?bytes
    proof:mode.0?bytes state_proof:mode.1?bytes init_c7:mode.3?bytes lib_extras:mode.4?bytes exit_code:int
    result:mode.2?bytes = liteServer.RunMethodResult
liteServer.shardInfo id:tonNode.blockIdExt shardblk:tonNode.blockIdExt shard_proof:bytes shard_descr:bytes =
    liteServer.ShardInfo
liteServer.allShardsInfo id:tonNode.blockIdExt proof:bytes data:bytes = liteServer.AllShardsInfo
liteServer.transactionInfo id:tonNode.blockIdExt proof:bytes transaction:bytes = liteServer.TransactionInfo
liteServer.transactionList ids:(vector tonNode.blockIdExt) transactions:bytes = liteServer.TransactionList
liteServer.transactionId#b12f65af mode:# account:mode.0?int256 lt:mode.1?long hash:mode.2?int256 =
    liteServer.TransactionId
liteServer.transactionId3 account:int256 lt:long = liteServer.TransactionId3
liteServer.blockTransactions id:tonNode.blockIdExt req_count:# incomplete:Bool ids:(vector liteServer.transactionId)
    proof:bytes = liteServer.BlockTransactions
liteServer.blockTransactionsExt id:tonNode.blockIdExt req_count:# incomplete:Bool transactions:bytes proof:bytes =
    liteServer.BlockTransactionsExt
liteServer.configInfo mode:# id:tonNode.blockIdExt state_proof:bytes config_proof:bytes = liteServer.ConfigInfo
liteServer.libraryEntry hash:int256 data:bytes = liteServer.LibraryEntry
liteServer.libraryResult result:(vector liteServer.libraryEntry) = liteServer.LibraryResult
liteServer.query data:bytes = Object
liteServer.waitMasterchainSeqno seqno:int timeout_ms:int = Object
liteServer.getMasterchainInfo = liteServer.MasterchainInfo
liteServer.getMasterchainInfoExt mode:# = liteServer.MasterchainInfoExt
liteServer.getTime = liteServer.CurrentTime
liteServer.getVersion = liteServer.Version
liteServer.getBlock id:tonNode.blockIdExt = liteServer.BlockData
liteServer.getState id:tonNode.blockIdExt = liteServer.BlockState
liteServer.getBlockHeader id:tonNode.blockIdExt mode:# = liteServer.BlockHeader
liteServer.sendMessage body:bytes = liteServer.SendMsgStatus
liteServer.getAccountState id:tonNode.blockIdExt account:liteServer.accountId = liteServer.AccountState
liteServer.runSmcMethod mode:# id:tonNode.blockIdExt account:liteServer.accountId method_id:long params:bytes =
    liteServer.RunMethodResult
liteServer.getShardInfo id:tonNode.blockIdExt workchain:int shard:long exact:Bool = liteServer.ShardInfo
liteServer.getAllShardsInfo id:tonNode.blockIdExt = liteServer.AllShardsInfo
liteServer.getOneTransaction id:tonNode.blockIdExt account:liteServer.accountId lt:long = liteServer.TransactionInfo
liteServer.getTransactions count:# account:liteServer.accountId lt:long hash:int256 = liteServer.TransactionList
liteServer.lookupBlock mode:# id:tonNode.blockId lt:mode.1?long utime:mode.2?int = liteServer.BlockHeader
liteServer.listBlockTransactions id:tonNode.blockIdExt mode:# count:# after:mode.7?liteServer.transactionId3
    reverse_order:mode.6?true want_proof:mode.5?true = liteServer.BlockTransactions
liteServer.listBlockTransactionsExt id:tonNode.blockIdExt mode:# count:# after:mode.7?liteServer.transactionId3
    reverse_order:mode.6?true want_proof:mode.5?true = liteServer.BlockTransactionsExt
liteServer.getConfigAll mode:# id:tonNode.blockIdExt = liteServer.ConfigInfo
liteServer.getConfigParams mode:# id:tonNode.blockIdExt param_list:(vector int) = liteServer.ConfigInfo
liteServer.getLibraries library_list:(vector int256) = liteServer.LibraryResult
"""
_TRUE = zlib.crc32(b"boolTrue = Bool").to_bytes(4, "little")
_FALSE = zlib.crc32(b"boolFalse = Bool").to_bytes(4, "little")
#: Signed widths in bytes, and those of byte strings.
_INTEGERS = {"int": 4, "long": 8}
_STRINGS = {"int256": 32}
_FIELD = re.compile(r"(\w+):(?:mode\.(\d+)\?)?(\([^)]*\)|\S+)")

Values = Mapping[str, Any]


class Field(Value):
    """One field; ``flag`` is the bit of ``mode`` that says whether it is there."""

    name: str
    flag: int | None
    type: str


class Constructor(Value):
    """One line of the schema."""

    name: str
    number: bytes
    fields: tuple[Field, ...]


def _constructor(line: str) -> Constructor:
    head, _, result = line.partition(" = ")
    name, *_ = head.split(" ")
    name, _, given = name.partition("#")
    plain = line.replace("(", "").replace(")", "")
    number = int(given, 16) if given else zlib.crc32(plain.encode("ascii"))
    fields = tuple(Field(n, int(f) if f else None, t) for n, f, t in _FIELD.findall(head))
    return Constructor(name, number.to_bytes(4, "little"), fields)


_LINES = _SCHEMA.replace("\n    ", " ").strip().splitlines()
#: Every line of the schema by its name.
CONSTRUCTORS = {one.name: one for one in map(_constructor, _LINES)}
_BY_NUMBER = {one.number: one for one in CONSTRUCTORS.values()}


def encode(name: str, **values: Any) -> bytes:
    """A boxed value: ``int256`` and ``bytes`` as bytes, others as integers, booleans, lists, mappings."""
    constructor = CONSTRUCTORS[name]
    return constructor.number + _bare(constructor, values)


def decode(data: bytes) -> tuple[str, dict[str, Any], bytes]:
    """Name and fields of the boxed value at the front, and what follows it.

    Raises:
        Malformed: an unknown constructor, or fewer bytes than it needs.
    """
    constructor = _BY_NUMBER.get(data[:4])
    if constructor is None:
        raise Malformed(f"unknown TL constructor {data[:4].hex()}")
    reader = _Reader(data, 4)
    return constructor.name, reader.bare(constructor), reader.rest()


def decode_whole(data: bytes) -> tuple[str, dict[str, Any]]:
    """As ``decode``, for bytes that hold nothing else."""
    name, values, rest = decode(data)
    if rest:
        raise Malformed(f"{len(rest)} bytes after {name}")
    return name, values


# --- writing -------------------------------------------------------------------


def _bare(constructor: Constructor, values: Values) -> bytes:
    return b"".join(
        _field(field.type, values[field.name])
        for field in constructor.fields
        if field.flag is None or values["mode"] >> field.flag & 1
    )


def _field(kind: str, value: Any) -> bytes:
    if kind in _INTEGERS:
        width = _INTEGERS[kind]
        return int(value).to_bytes(width, "little", signed=True)
    if kind == "#":
        return int(value).to_bytes(4, "little")
    if kind in _STRINGS:
        if len(value) != _STRINGS[kind]:
            raise UsageError(f"{len(value)} bytes where {kind} is due")
        return bytes(value)
    if kind in ("bytes", "string"):
        return _string(value)
    if kind == "Bool":
        return _TRUE if value else _FALSE
    if kind == "true":
        return b""
    if kind.startswith("(vector"):
        inner = kind[8:-1]
        return len(value).to_bytes(4, "little") + b"".join(_field(inner, one) for one in value)
    return _bare(CONSTRUCTORS[kind], value)


def _string(value: bytes) -> bytes:
    if len(value) >= 1 << 24:
        raise UsageError(f"{len(value)} bytes have no form in TL")
    head = bytes((len(value),)) if len(value) < 254 else b"\xfe" + len(value).to_bytes(3, "little")
    return head + value + bytes(-(len(head) + len(value)) % 4)


# --- reading -------------------------------------------------------------------


class _Reader:
    __slots__ = ("_data", "_at")

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def rest(self) -> bytes:
        return self._data[self._at :]

    def bare(self, constructor: Constructor) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field in constructor.fields:
            if field.flag is None or values["mode"] >> field.flag & 1:
                values[field.name] = self._field(field.type)
        return values

    def _take(self, length: int) -> bytes:
        if length > len(self._data) - self._at:
            raise Malformed(f"{length} bytes wanted, {len(self._data) - self._at} left in a TL value")
        self._at += length
        return self._data[self._at - length : self._at]

    def _field(self, kind: str) -> Any:
        if kind in _INTEGERS:
            return int.from_bytes(self._take(_INTEGERS[kind]), "little", signed=True)
        if kind == "#":
            return int.from_bytes(self._take(4), "little")
        if kind in _STRINGS:
            return self._take(_STRINGS[kind])
        if kind in ("bytes", "string"):
            return self._string()
        if kind == "Bool":
            return self._boolean()
        if kind == "true":
            return True
        if kind.startswith("(vector"):
            return self._vector(kind[8:-1])
        return self.bare(CONSTRUCTORS[kind])

    def _boolean(self) -> bool:
        value = self._take(4)
        if value not in (_TRUE, _FALSE):
            raise Malformed(f"{value.hex()} is no Bool")
        return value == _TRUE

    def _string(self) -> bytes:
        first = self._take(1)[0]
        if first == 255:
            raise Malformed("a TL string of more than 16 MiB")
        head = 1 if first < 254 else 4
        length = first if first < 254 else int.from_bytes(self._take(3), "little")
        value = self._take(length)
        self._take(-(head + length) % 4)
        return value

    def _vector(self, kind: str) -> list[Any]:
        count = int.from_bytes(self._take(4), "little")
        if 4 * count > len(self._data) - self._at:  # every element takes at least 4 bytes
            raise Malformed(f"a vector of {count} elements in {len(self._data) - self._at} bytes")
        return [self._field(kind) for _ in range(count)]
