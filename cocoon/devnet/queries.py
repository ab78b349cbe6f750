"""The liteserver's questions: each a method that answers from the chain and its file.

Nothing here waits or writes but for ``sendMessage``, which the service handles.

Purity: shell (disk). Spec: docs/spec/devnet.md, rules DEV-31 to DEV-36.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from cocoon.core.errors import (
    ChainRefused,
    CocoonError,
    LimitExceeded,
    Malformed,
    NotFound,
    UsageError,
)
from cocoon.core.limits import (
    DEVNET_ANSWER_BYTES,
    DEVNET_HISTORY,
    DEVNET_LISTED,
    DEVNET_MESSAGE_CELLS,
    DEVNET_STATE_CELLS,
)
from cocoon.devnet import blocks, tl
from cocoon.devnet.blocks import BASE, MASTER, SHARD, BlockId, Header
from cocoon.devnet.cells import Builder, Cell, pack, unpack
from cocoon.devnet.chain import Chain, Tip, zerostate
from cocoon.devnet.executor import NO_CODE
from cocoon.devnet.formats import Holder, read_account
from cocoon.devnet.store import Store, StoredBlock, StoredTransaction

VERSION = 0x101
#: getMasterchainInfoExt, runSmcMethod with lib_extras, ...: what real servers of this version say.
CAPABILITIES = 7
_BY_SEQNO, _BY_LT, _BY_TIME = 1, 2, 4
_WITH_SHARD_PROOF, _WITH_STATE_PROOF, _WITH_RESULT = 1, 2, 4
_AFTER, _REVERSE, _WITH_PROOF = 1 << 7, 1 << 6, 1 << 5
_NAMED = 1 | 2 | 4

#: What a liteserver calls these; the classes are asked in order.
_CODES: tuple[tuple[type[CocoonError], int], ...] = (
    (ChainRefused, 0), (NotFound, 651), (LimitExceeded, 429), (Malformed, -400), (UsageError, 601),
)

Answer = tuple[str, dict[str, Any]]


def failure(error: CocoonError) -> bytes:
    """The answer that tells a client of a typed failure."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), 500)
    return tl.encode("liteServer.error", code=code, message=error.text.encode()[:512])


class Queries:
    """Answers questions about one chain."""

    def __init__(self, chain: Chain, store: Store, now_s: Callable[[], int]) -> None:
        self._chain = chain
        self._store = store
        self._now_s = now_s
        self._answers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "liteServer.getMasterchainInfo": self._masterchain_info,
            "liteServer.getMasterchainInfoExt": self._masterchain_info_ext,
            "liteServer.getTime": self._time,
            "liteServer.getVersion": self._version,
            "liteServer.getBlock": self._block,
            "liteServer.getState": self._state,
            "liteServer.getBlockHeader": self._block_header,
            "liteServer.lookupBlock": self._lookup,
            "liteServer.getAccountState": self._account_state,
            "liteServer.runSmcMethod": self._run_method,
            "liteServer.getShardInfo": self._shard_info,
            "liteServer.getAllShardsInfo": self._all_shards,
            "liteServer.getOneTransaction": self._one_transaction,
            "liteServer.getTransactions": self._transactions,
            "liteServer.listBlockTransactions": self._list,
            "liteServer.listBlockTransactionsExt": self._list_whole,
            "liteServer.getConfigAll": self._config,
            "liteServer.getConfigParams": self._config,
            "liteServer.getLibraries": self._libraries,
        }

    def answer(self, name: str, asked: dict[str, Any]) -> bytes:
        """Answer one question.

        Raises:
            NotFound, Malformed, LimitExceeded, UsageError: why it has no answer.
        """
        ask = self._answers.get(name)
        if ask is None:
            raise UsageError(f"a devnet does not answer {name}")
        kind, values = ask(asked)
        size = sum(len(value) for value in values.values() if isinstance(value, bytes))
        if size > DEVNET_ANSWER_BYTES:  # before it is encoded: TL has no form for 16 MiB
            raise LimitExceeded(f"the answer has {size} bytes, above {DEVNET_ANSWER_BYTES}; ask for less")
        return tl.encode(kind, **values)

    # --- the newest block --------------------------------------------------

    def _masterchain_info(self, asked: dict[str, Any]) -> Answer:
        tip = self._chain.tip
        zero = self._chain.zero[MASTER].id
        init = {"workchain": MASTER, "root_hash": zero.root_hash, "file_hash": zero.file_hash}
        values = {"last": _ext(tip.master.id), "state_root_hash": tip.master.state_hash, "init": init}
        return "liteServer.masterchainInfo", values

    def _masterchain_info_ext(self, asked: dict[str, Any]) -> Answer:
        _, values = self._masterchain_info(asked)
        values.update(
            mode=0, version=VERSION, capabilities=CAPABILITIES, last_utime=self._chain.tip.at_s, now=self._now_s()
        )
        return "liteServer.masterchainInfoExt", values

    def _time(self, asked: dict[str, Any]) -> Answer:
        return "liteServer.currentTime", {"now": self._now_s()}

    def _version(self, asked: dict[str, Any]) -> Answer:
        values = {"mode": 0, "version": VERSION, "capabilities": CAPABILITIES, "now": self._now_s()}
        return "liteServer.version", values

    # --- blocks ------------------------------------------------------------

    def _block(self, asked: dict[str, Any]) -> Answer:
        return "liteServer.blockData", {"id": asked["id"], "data": self._stored(asked["id"]).data}

    def _state(self, asked: dict[str, Any]) -> Answer:
        wanted = asked["id"]
        if wanted["seqno"] == 0:
            data, root = self._zerostate(wanted)
        else:
            state = self._tip(wanted).made[wanted["workchain"]].state.cell
            data, root = pack(state), state.hash
        file_hash = hashlib.sha256(data).digest()
        return "liteServer.blockState", {"id": wanted, "root_hash": root, "file_hash": file_hash, "data": data}

    def _zerostate(self, wanted: dict[str, Any]) -> tuple[bytes, bytes]:
        zero = self._chain.zero.get(wanted["workchain"])
        if zero is None or _ext(zero.id) != wanted:
            raise NotFound("this is no zerostate of the chain")
        return zerostate(self._store, wanted["workchain"]), zero.id.root_hash

    def _block_header(self, asked: dict[str, Any]) -> Answer:
        return _header_answer(self._stored(asked["id"]))

    def _lookup(self, asked: dict[str, Any]) -> Answer:
        mode, workchain = asked["mode"], asked["id"]["workchain"]
        if mode & _BY_LT:
            found = self._store.block_with_lt(workchain, asked["lt"])
        elif mode & _BY_TIME:
            found = self._store.block_at(workchain, asked["utime"])
        elif mode & _BY_SEQNO:
            found = self._store.block(workchain, asked["id"]["seqno"])
        else:
            raise Malformed(f"a look-up with mode {mode} names no block")
        if found is None:
            raise NotFound("the chain has no such block (yet)")
        return _header_answer(found)

    def _stored(self, wanted: dict[str, Any]) -> StoredBlock:
        """The block with exactly this id."""
        found = self._store.block(wanted["workchain"], wanted["seqno"])
        if found is None or _ext(found.header.id) != wanted:
            raise NotFound(f"block {wanted['workchain']}:{wanted['seqno']} is not of this chain")
        return found

    def _tip(self, wanted: dict[str, Any]) -> Tip:
        """The state after a recent block, by the id of either workchain's block."""
        tip = self._chain.tip_at(wanted["seqno"])
        made = tip.made.get(wanted["workchain"]) if tip else None
        if tip is None or made is None:
            raise NotFound(f"the state after block {wanted['workchain']}:{wanted['seqno']} is no longer kept")
        if _ext(made.header.id) != wanted:
            raise NotFound(f"block {wanted['workchain']}:{wanted['seqno']} is another one on this chain")
        return tip

    # --- accounts ----------------------------------------------------------

    def _account_state(self, asked: dict[str, Any]) -> Answer:
        tip, holder = self._tip(asked["id"]), _holder(asked["account"])
        made = tip.made[holder[0]]
        proof = pack(blocks.header_proof(made.cell), blocks.account_proof(made.state, holder[1]))
        account = tip.account(holder).account
        return "liteServer.accountState", {
            "id": asked["id"], "shardblk": _ext(made.header.id), "shard_proof": _shard_proof(tip, holder[0]),
            "proof": proof, "state": pack(account) if read_account(account) else b"",
        }

    def _run_method(self, asked: dict[str, Any]) -> Answer:
        tip, holder = self._tip(asked["id"]), _holder(asked["account"])
        made = tip.made[holder[0]]
        account = read_account(tip.account(holder).account)
        stack = unpack(asked["params"], DEVNET_MESSAGE_CELLS) if asked["params"] else None
        code, left = NO_CODE, None
        if account is not None:
            method, seed = asked["method_id"], made.header.id.root_hash
            ran = self._chain.executor.query(
                holder, account, method, stack, tip.at_s, made.header.end_lt, seed
            )
            code, left = ran.exit_code, ran.stack
        mode = asked["mode"] & (_WITH_SHARD_PROOF | _WITH_STATE_PROOF | _WITH_RESULT)
        if left is None:
            mode &= ~_WITH_RESULT
        return "liteServer.runMethodResult", {
            "mode": mode, "id": asked["id"], "shardblk": _ext(made.header.id),
            "shard_proof": _shard_proof(tip, holder[0]),
            "proof": pack(blocks.header_proof(made.cell), blocks.account_proof(made.state, holder[1])),
            "state_proof": b"", "exit_code": code, "result": pack(left) if left is not None else b"",
        }

    # --- shards ------------------------------------------------------------

    def _shard_info(self, asked: dict[str, Any]) -> Answer:
        if asked["workchain"] != BASE:
            raise NotFound(f"workchain {asked['workchain']} has no shards here")
        tip = self._master_tip(asked["id"])
        shards = blocks.shard_hashes_of(tip.made[MASTER].state)
        return "liteServer.shardInfo", {
            "id": asked["id"], "shardblk": _ext(tip.made[BASE].header.id), "shard_proof": _shard_proof(tip, BASE),
            "shard_descr": pack(shards.refs[0]),
        }

    def _all_shards(self, asked: dict[str, Any]) -> Answer:
        tip = self._master_tip(asked["id"])
        shards = blocks.shard_hashes_of(tip.made[MASTER].state)
        data = pack(Builder().maybe(shards).end())
        return "liteServer.allShardsInfo", {"id": asked["id"], "proof": _shard_proof(tip, BASE), "data": data}

    def _master_tip(self, wanted: dict[str, Any]) -> Tip:
        if wanted["workchain"] != MASTER:
            raise UsageError("ask with a block of the masterchain")
        return self._tip(wanted)

    # --- transactions ------------------------------------------------------

    def _one_transaction(self, asked: dict[str, Any]) -> Answer:
        holder = _holder(asked["account"])
        block = self._stored(asked["id"])
        found = self._store.transaction(holder, asked["lt"])
        if found is None or (holder[0], found.seqno) != (block.header.id.workchain, block.header.id.seqno):
            return "liteServer.transactionInfo", {"id": asked["id"], "proof": b"", "transaction": b""}
        proof = _transactions_proof(block, self._of_block(block))
        return "liteServer.transactionInfo", {"id": asked["id"], "proof": proof, "transaction": found.data}

    def _transactions(self, asked: dict[str, Any]) -> Answer:
        holder = _holder(asked["account"])
        newest = self._store.transaction(holder, asked["lt"])
        if newest is None or newest.hash != asked["hash"]:
            raise NotFound(f"the account has no transaction {asked['lt']} with this hash")
        found = self._store.history(holder, asked["lt"], min(asked["count"], DEVNET_HISTORY))
        ids = [_ext(self._made_in(one).id) for one in found]
        data = pack(*(unpack(one.data, DEVNET_STATE_CELLS) for one in found)) if found else b""
        return "liteServer.transactionList", {"ids": ids, "transactions": data}

    def _made_in(self, one: StoredTransaction) -> Header:
        header = self._store.header(one.holder[0], one.seqno)
        assert header is not None, "transactions and their block are committed together"
        return header

    def _list(self, asked: dict[str, Any]) -> Answer:
        block, page, more, proof = self._page(asked)
        ids = [
            {"mode": asked["mode"] & _NAMED, "account": one.holder[1], "lt": one.lt, "hash": one.hash} for one in page
        ]
        return "liteServer.blockTransactions", {
            "id": _ext(block.header.id), "req_count": asked["count"], "incomplete": more, "ids": ids, "proof": proof,
        }

    def _list_whole(self, asked: dict[str, Any]) -> Answer:
        block, page, more, proof = self._page(asked)
        data = pack(*(unpack(one.data, DEVNET_STATE_CELLS) for one in page)) if page else b""
        return "liteServer.blockTransactionsExt", {
            "id": _ext(block.header.id), "req_count": asked["count"], "incomplete": more, "transactions": data,
            "proof": proof,
        }

    def _page(self, asked: dict[str, Any]) -> tuple[StoredBlock, list[StoredTransaction], bool, bytes]:
        """Transactions of a block by account and time from where the client stopped, and whether more follow."""
        block, mode = self._stored(asked["id"]), asked["mode"]
        everything = self._of_block(block)
        ordered = sorted(everything, key=lambda one: (one.holder[1], one.lt), reverse=bool(mode & _REVERSE))
        if mode & _AFTER:
            after = (asked["after"]["account"], asked["after"]["lt"])
            backwards = bool(mode & _REVERSE)
            ordered = [one for one in ordered if ((one.holder[1], one.lt) < after) is backwards
                       and (one.holder[1], one.lt) != after]
        most = max(1, min(asked["count"], DEVNET_LISTED))
        proof = _transactions_proof(block, everything) if mode & _WITH_PROOF else b""
        return block, ordered[:most], len(ordered) > most, proof

    def _of_block(self, block: StoredBlock) -> list[StoredTransaction]:
        return self._store.of_block(block.header.id.workchain, block.header.id.seqno)

    # --- configuration -----------------------------------------------------

    def _config(self, asked: dict[str, Any]) -> Answer:
        """All parameters, whichever were asked for: they are small here."""
        master = self._master_tip(asked["id"]).made[MASTER]
        return "liteServer.configInfo", {
            "mode": 0, "id": asked["id"], "state_proof": pack(blocks.header_proof(master.cell)),
            "config_proof": pack(blocks.config_proof(master.state)),
        }

    def _libraries(self, asked: dict[str, Any]) -> Answer:
        """A devnet has no public libraries."""
        return "liteServer.libraryResult", {"result": []}


def _ext(block: BlockId) -> dict[str, Any]:
    return {
        "workchain": block.workchain, "shard": SHARD, "seqno": block.seqno, "root_hash": block.root_hash,
        "file_hash": block.file_hash,
    }


def _holder(account: dict[str, Any]) -> Holder:
    if account["workchain"] not in (MASTER, BASE):
        raise NotFound(f"the chain has no workchain {account['workchain']}")
    return account["workchain"], account["id"]


def _header_answer(block: StoredBlock) -> Answer:
    proof = pack(blocks.header_proof(unpack(block.data, DEVNET_STATE_CELLS)))
    return "liteServer.blockHeader", {"id": _ext(block.header.id), "mode": 0, "header_proof": proof}


def _shard_proof(tip: Tip, workchain: int) -> bytes:
    """That the masterchain's block names the basechain's; nothing for the masterchain itself."""
    if workchain == MASTER:
        return b""
    master = tip.made[MASTER]
    return pack(blocks.header_proof(master.cell), blocks.shards_proof(master.state))


def _transactions_proof(block: StoredBlock, transactions: list[StoredTransaction]) -> bytes:
    hashes = {one.hash for one in transactions}
    root: Cell = unpack(block.data, DEVNET_STATE_CELLS)
    return pack(blocks.transactions_proof(root, hashes))
