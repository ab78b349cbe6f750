"""One liteserver: a connection that comes back by itself, and proven answers. Runs on asyncio.

Of pytoniq's client we use handshake, framing and TL; its follower of blocks and
its high-level calls are replaced, because they give up silently, and take
absence for granted.

Purity: shell; the door to pytoniq. Spec: docs/spec/chain.md, rules CHN-2 to CHN-8.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pytoniq.liteclient import LiteClient
from pytoniq.liteclient.client import LiteClientError, LiteServerError
from pytoniq_core.tl.block import BlockIdExt

from cocoon.config.network import Liteserver, format_key
from cocoon.core.errors import BadProof, ChainRefused, ChainUnreachable, CocoonError, WrongNetwork
from cocoon.core.limits import (
    CHAIN_BYTES,
    CHAIN_HEADS,
    CHAIN_REPLY_NS,
    CHAIN_RETRY_FIRST_NS,
    CHAIN_RETRY_LAST_NS,
    CHAIN_WAIT_NS,
)
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.ledger import proofs
from cocoon.ledger.blocks import BlockId, WholeBlock, WholeState
from cocoon.ledger.onchain import Account, Prices, Transaction
from cocoon.ledger.pool import Head
from cocoon.telemetry.log import get_logger

_SHARD = -(1 << 63)
_MASTER = -1
#: Transactions of one answer; the protocol allows no more.
_PAGE = 16
_TEXT_CHARS = 160
#: What a broken connection looks like, from the operating system and from the library.
_LOST = (OSError, EOFError, asyncio.TimeoutError, LiteClientError, *proofs.FOREIGN)

# The library logs every question, and tracebacks when a connection ends; we log both in our own way.
# It names its logger after the class.
logging.getLogger("_Client").addHandler(logging.NullHandler())
logging.getLogger("_Client").propagate = False


class _Client(LiteClient):
    """The library's client with bounded answers and without a follower of its own."""

    info: dict[str, Any]

    async def receive(self, data_len: int) -> bytes:
        if data_len > CHAIN_BYTES:
            await self.close()
            raise ConnectionResetError(f"an answer of {data_len} bytes, above {CHAIN_BYTES}")
        data: bytes = await super().receive(data_len)
        return data

    async def update_last_blocks(self) -> None:
        self.info = await self.liteserver_request("getMasterchainInfo", {})

    async def block_updater(self) -> None:
        return None


class Connection:
    """Follows one liteserver for ever; see ``run``. ``newest`` is None while it is not connected."""

    def __init__(self, where: Liteserver, genesis: bytes, changed: Callable[[], None]) -> None:
        """``changed`` is called, on the asyncio side, at a new block, a connection and a loss."""
        self.where = where
        self.newest: Head | None = None
        self.fault: CocoonError = ChainUnreachable(f"{self.name} has not answered yet")
        self._genesis = genesis
        self._changed = changed
        self._client: _Client | None = None
        self._heads: dict[int, Head] = {}
        self._times: dict[int, int] = {}
        self._log = get_logger("chain")

    @property
    def name(self) -> str:
        """For people."""
        return f"liteserver {self.where.host}:{self.where.port}"

    async def run(self) -> None:
        """Connect, follow the blocks, and begin again when that ends; until cancelled."""
        delay_ns = CHAIN_RETRY_FIRST_NS
        while True:
            client: _Client | None = None
            try:
                client = self._fresh()
                await client.connect()
                self._check_genesis(client.info)
                self._client, delay_ns = client, CHAIN_RETRY_FIRST_NS
                self._take(client.info)
                await self._follow(client)
            except CocoonError as error:
                self.fault = error
            except _LOST as error:
                self.fault = ChainUnreachable(f"{self.name} does not answer ({type(error).__name__})")
            finally:
                self._lose()
                if client is not None:
                    await _close(client)
            await asyncio.sleep(delay_ns / SECOND_NS)
            delay_ns = min(2 * delay_ns, CHAIN_RETRY_LAST_NS)

    def _fresh(self) -> _Client:
        """A client with a key of its own; a server's key that is no point of the curve raises here."""
        reply_s = CHAIN_REPLY_NS // SECOND_NS
        return _Client(self.where.host, self.where.port, format_key(self.where.key), reply_s, trust_level=2)

    async def _follow(self, client: _Client) -> None:
        wait_ms = CHAIN_WAIT_NS // MILLISECOND_NS
        while self.newest is not None:
            following = self.newest.seqno + 1
            try:
                info = await client.wait_masterchain_seqno(following, wait_ms, "getMasterchainInfo", {})
            except LiteServerError:  # real ones answer so when no block came in time
                info = await client.liteserver_request("getMasterchainInfo", {})
            self._take(info)

    def _take(self, info: dict[str, Any]) -> None:
        with proofs.parsing(f"the newest block of {self.name}"):
            last = BlockIdExt.from_dict(info["last"])
            head = Head(int(last.seqno), bytes(last.root_hash), bytes(last.file_hash))
            if last.workchain != _MASTER or len(head.root_hash) != 32:
                raise BadProof(f"{self.name} names a block that is none of the masterchain")
        if head == self.newest:
            return
        self._remember(head)
        if self.newest is None:
            self._log.info("chain_connected", address=self.name)
        self.newest = head
        self._changed()

    def _remember(self, head: Head) -> None:
        if self._heads.setdefault(head.seqno, head) != head:
            self._heads.clear()
            raise BadProof(f"{self.name} named two blocks with number {head.seqno}")
        for old in sorted(self._heads)[:-CHAIN_HEADS]:
            del self._heads[old]

    def _lose(self) -> None:
        if self.newest is not None:
            self._log.warning("chain_lost", address=self.name, code=self.fault.code)
        self.newest = self._client = None
        self._changed()

    def _check_genesis(self, info: dict[str, Any]) -> None:
        with proofs.parsing(f"the genesis of {self.name}"):
            genesis = bytes.fromhex(info["init"]["root_hash"])
        if genesis != self._genesis:
            raise WrongNetwork(
                f"{self.name} follows the chain {genesis.hex()[:12]}, this network's is {self._genesis.hex()[:12]}"
            )

    # --- questions -------------------------------------------------------

    async def head_at(self, seqno: int) -> Head:
        """The masterchain block with this number, as this liteserver sees it."""
        if (known := self._heads.get(seqno)) is not None:
            return known
        place = {"workchain": _MASTER, "shard": _SHARD, "seqno": seqno}
        answer = await self._ask("lookupBlock", {"mode": 1, "id": place, "lt": None, "utime": None})
        with proofs.parsing(f"block {seqno} of {self.name}"):
            found = BlockIdExt.from_dict(answer["id"])
            if (found.workchain, found.seqno) != (_MASTER, seqno):
                raise BadProof(f"{self.name} answered with another block")
            return Head(seqno, bytes(found.root_hash), bytes(found.file_hash))

    async def time_of(self, head: Head) -> int:
        """Chain time of a block, Unix seconds."""
        if head.seqno not in self._times:
            answer = await self._ask("getBlockHeader", {"id": _block(head).to_dict(), "mode": 0})
            with proofs.parsing(f"the header of block {head.seqno}"):
                self._times = {head.seqno: proofs.block_time(answer["header_proof"], head.root_hash)}
        return self._times[head.seqno]

    async def account(self, head: Head, address: bytes) -> Account:
        """State of an account after ``head``."""
        block = _block(head)
        answer = await self._ask("getAccountState", {"id": block.to_dict(), "account": _account_id(address)})
        with proofs.parsing("an account's proof"):
            return proofs.account_of(answer, proofs.shard_block(answer, block), address, head.seqno)

    async def transactions(self, account: Account, after_lt: int, most: int) -> list[Transaction]:
        """Transactions up to a proven state, newest first."""
        lt, last_hash = account.last_lt, account.last_hash
        found: list[Transaction] = []
        while lt > after_lt and len(found) < most:
            asked = {
                "count": min(_PAGE, most - len(found)), "account": _account_id(account.address), "lt": lt,
                "hash": last_hash.hex(),
            }
            answer = await self._ask("getTransactions", asked)
            with proofs.parsing("a list of transactions"):
                page, lt, last_hash = proofs.transactions_of(answer, account.address, lt, last_hash)
            if not page:
                raise BadProof(f"{self.name} leaves out transactions")
            found += page
        return [transaction for transaction in found if transaction.lt > after_lt][:most]

    async def prices(self, head: Head) -> Prices:
        """Prices of the network's configuration after ``head``."""
        answer = await self._ask("getConfigAll", {"mode": 0, "id": _block(head).to_dict()})
        with proofs.parsing("the configuration"):
            return proofs.prices_of(answer, head.root_hash)

    async def zero(self) -> BlockId:
        """The masterchain's zerostate."""
        if (client := self._client) is None:
            raise self.fault
        with proofs.parsing(f"the genesis of {self.name}"):
            return BlockId(_MASTER, 0, self._genesis, bytes.fromhex(client.info["init"]["file_hash"]))

    async def block(self, block: BlockId) -> WholeBlock:
        """A whole block."""
        answer = await self._ask("getBlock", {"id": _place(block)})
        with proofs.parsing(f"block {block.workchain}:{block.seqno}"):
            return proofs.whole_block(answer["data"], block)

    async def blocks(self, block: BlockId, after: BlockId, most: int) -> list[WholeBlock]:
        """Blocks from ``block`` back to the one behind ``after``, newest first, but no more than ``most``."""
        found: list[WholeBlock] = []
        while block.seqno > after.seqno and len(found) < most:
            found.append(await self.block(block))
            block = found[-1].previous
        if block.seqno == after.seqno and block != after:
            raise BadProof(f"block {block.workchain}:{block.seqno} of {self.name} is not the one that came before")
        return found

    async def state(self, block: BlockId) -> WholeState:
        """The whole state behind a recent block, or a zerostate."""
        state_hash = block.root_hash if not block.seqno else (await self.block(block)).state_hash
        answer = await self._ask("getState", {"id": _place(block)})
        with proofs.parsing(f"the state behind block {block.workchain}:{block.seqno}"):
            return proofs.whole_state(answer["data"], block.workchain, state_hash)

    async def send(self, message: bytes) -> None:
        """Hand over a bag with an external message.

        Raises:
            ChainRefused: the liteserver says why.
        """
        try:
            await self._raw("sendMessage", {"body": message})
        except LiteServerError as error:
            raise ChainRefused(f"{self.name} refused the message: {_said(error)}") from None

    async def _ask(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._raw(name, values)
        except LiteServerError as error:
            raise ChainUnreachable(f"{self.name} cannot answer {name}: {_said(error)}") from None

    async def _raw(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        if (client := self._client) is None:
            raise self.fault
        try:
            answer: dict[str, Any] = await client.liteserver_request(name, values)
        except LiteServerError:
            raise
        except _LOST as error:
            # Out of step or gone: whatever it was, a new connection is clean.
            await _close(client)
            raise ChainUnreachable(f"{self.name} did not answer {name} ({type(error).__name__})") from None
        return answer


def _block(head: Head) -> BlockIdExt:
    """A head in the library's form."""
    return BlockIdExt(_MASTER, _SHARD, head.seqno, head.root_hash, head.file_hash)


def _place(block: BlockId) -> dict[str, Any]:
    """A block of either workchain in the library's form."""
    named = BlockIdExt(block.workchain, _SHARD, block.seqno, block.root_hash, block.file_hash)
    values: dict[str, Any] = named.to_dict()
    return values


def _account_id(address: bytes) -> dict[str, object]:
    return {"workchain": 0, "id": address.hex()}


def _said(error: LiteServerError) -> str:
    message = error.message
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return ascii(text[:_TEXT_CHARS])


async def _close(client: _Client) -> None:
    try:
        await client.close()
    except _LOST:
        pass  # it was gone already
