"""The peer's half of the signer: starts the process, asks it, and ends it.

Purity: shell. Spec: docs/spec/wallet.md, rules WAL-7 to WAL-12.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from cocoon.core.children import child_environment
from cocoon.core.errors import LimitExceeded, Malformed, SignerLost
from cocoon.core.limits import SIGNER_CELLS, SIGNER_FRAME_BYTES, SIGNER_REPLY_NS, SIGNER_START_NS
from cocoon.core.units import SECOND_NS
from cocoon.ledger.signer.caps import Caps
from cocoon.ledger.signer.protocol import (
    AskLaneSeed,
    AskProviderSeed,
    AskTransfer,
    Order,
    pack_order,
    unpack_reply,
)
from cocoon.ledger.wallet import Outgoing, wallet_address
from cocoon.wire.boc import unpack
from cocoon.wire.cells import Cell
from cocoon.wire.framing import PREFIX_BYTES, frame, frame_length

__all__ = ["Caps", "Signer", "open_signer"]

#: The signer's whole environment: where libraries lie, and nothing of ours.
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH")
_SET = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}


class Signer:
    """A running signer process. For one trio loop; calls wait for each other. Use ``open_signer``."""

    def __init__(self, process: subprocess.Popen[bytes], link: trio.socket.SocketType) -> None:
        self._process = process
        self._link = link
        self._turn = trio.Lock()
        self._lost = False
        #: Ed25519 public key of the wallet, 32 bytes.
        self.public_key = b""

    @property
    def pid(self) -> int:
        """Process id of the signer."""
        return self._process.pid

    def address(self, network_id: int) -> bytes:
        """Hash part of the wallet's address on a network with this global id (``ChainFacts.global_id``)."""
        return wallet_address(self.public_key, network_id)

    async def lane_seed(self, genesis: bytes, index: int) -> bytes:
        """Ed25519 seed of the lane key of escrow ``index`` on the chain with this genesis hash (WAL-4)."""
        return await self._ask(AskLaneSeed(genesis, index))

    async def provider_seed(self, genesis: bytes) -> bytes:
        """Ed25519 seed of the provider key on the chain with this genesis hash (WAL-4)."""
        return await self._ask(AskProviderSeed(genesis))

    async def sign(
        self, network_id: int, seqno: int, valid_until_s: int, messages: Sequence[Outgoing]
    ) -> Cell:
        """Body of the wallet's external message that carries ``messages``.

        Args:
            network_id: ``ChainFacts.global_id``.
            valid_until_s: At most ``SIGNATURE_LIFE_S`` ahead of this machine's clock.

        Raises:
            CapExceeded: the sum would pass a cap; nothing was signed.
            LimitExceeded: the messages are larger than ``SIGNER_FRAME_BYTES``.
            SignerLost: the process is gone; whether it signed is in ``keys/wallet.spent`` only.
        """
        signed = await self._ask(AskTransfer(network_id, seqno, valid_until_s, tuple(messages)))
        return unpack(signed, max_bytes=SIGNER_FRAME_BYTES, max_cells=SIGNER_CELLS)

    async def _ask(self, order: Order) -> bytes:
        request = pack_order(order)
        if len(request) > SIGNER_FRAME_BYTES:
            raise LimitExceeded(f"a request of {len(request)} bytes; the signer takes {SIGNER_FRAME_BYTES}")
        async with self._turn:
            return await self._exchange(frame(request), SIGNER_REPLY_NS)

    async def _exchange(self, request: bytes, limit_ns: int) -> bytes:
        """One request and its answer. A call that was cut short leaves the stream out of step: it is given up."""
        if self._lost:
            raise SignerLost("the signer process is gone")
        self._lost = True
        try:
            with trio.fail_after(limit_ns / SECOND_NS):
                await self._send(request)
                length = frame_length(await self._exactly(PREFIX_BYTES), SIGNER_FRAME_BYTES)
                reply = await self._exactly(length)
        except trio.TooSlowError:
            raise SignerLost(f"the signer did not answer within {limit_ns // SECOND_NS} s") from None
        except OSError:
            raise SignerLost("the signer process is gone") from None
        self._lost = False
        return unpack_reply(reply)

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self._link.send(view) :]

    async def _exactly(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            if not (data := await self._link.recv(count - len(got))):
                raise SignerLost("the signer process ended")
            got += data
        return bytes(got)


@asynccontextmanager
async def open_signer(home: Path, caps: Caps) -> AsyncIterator[Signer]:
    """Start the signer on ``home``; it makes ``keys/wallet.words`` if there is none.

    Call from the thread of the loop: the kernel ends the signer with the thread that spawned it.

    Raises:
        Corrupt, LaxPermissions: the wallet's files cannot be used.
        SignerLost: the process did not start.
    """
    process, link = _spawn(home, caps)
    signer = Signer(process, link)
    try:
        signer.public_key = await signer._exchange(b"", SIGNER_START_NS)
        if len(signer.public_key) != 32:
            raise Malformed("the signer did not begin with its public key")
        yield signer
    finally:
        link.close()
        process.kill()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(process.wait)


def _spawn(home: Path, caps: Caps) -> tuple[subprocess.Popen[bytes], trio.socket.SocketType]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        words = [theirs.fileno(), os.getpid(), home.absolute(), caps.hour_nanoton, caps.day_nanoton]
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "cocoon.ledger.signer.process", *map(str, words)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                env=child_environment(_KEPT, _SET), pass_fds=(theirs.fileno(),), start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise SignerLost(f"no signer could be started: {error.strerror}") from None
    return process, trio.socket.from_stdlib_socket(ours)
