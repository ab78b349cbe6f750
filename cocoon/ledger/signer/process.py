"""The signer process: holds the wallet key, signs within caps, derives keys; nothing else.

Started as ``python -m cocoon.ledger.signer.process SOCKET PARENT HOME HOUR_CAP DAY_CAP``. It ends when its
socket closes. It reads the words itself from their file: they are in no argument, no environment, no
message, no log, and the kernel writes no dump of it.

Purity: shell; the entry point of the signer process. Spec: docs/spec/wallet.md, rules WAL-7 to WAL-12.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cocoon.core.errors import CocoonError
from cocoon.core.limits import SIGNER_FRAME_BYTES
from cocoon.identity.keys import KeyPair, key_pair
from cocoon.ledger.mnemonic import lane_seed, provider_seed, wallet_seed
from cocoon.ledger.signer.caps import Caps, Entry, Spent
from cocoon.ledger.signer.files import make_words, read_spent, write_spent
from cocoon.ledger.signer.protocol import (
    AskLaneSeed,
    AskProviderSeed,
    AskTransfer,
    Order,
    pack_reply,
    unpack_order,
)
from cocoon.ledger.wallet import signed_body, unsigned_transfer, wallet_id
from cocoon.wire.boc import pack
from cocoon.wire.framing import PREFIX_BYTES, frame, frame_length

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


class PeerGone(Exception):
    """The peer closed the socket: the signer's work is over."""


def main(arguments: Sequence[str]) -> int:
    """Serve until the peer is gone; the exit status of the process."""
    link = socket.socket(fileno=int(arguments[0]))
    parent_pid, home, hour, day = int(arguments[1]), Path(arguments[2]), int(arguments[3]), int(arguments[4])
    withdraw(parent_pid)
    try:
        try:
            vault = Vault(home, Caps(hour, day))
        except CocoonError as error:
            _send(link, pack_reply(error))
            return 1
        _send(link, pack_reply(vault.public_key))
        while True:
            _send(link, pack_reply(_answer(vault, _receive(link))))
    except (PeerGone, ConnectionError):
        return 0


def withdraw(parent_pid: int) -> None:
    """Leave no dump, be readable by no debugger, die with the peer. Before any secret is read."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise SystemExit("the kernel does not hide this process")
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit(0)  # it died before we asked


class Vault:
    """The wallet key and what it has signed. Its words are forgotten once the key is made."""

    def __init__(self, home: Path, caps: Caps) -> None:
        """Read the files of ``home``; make words if there are none."""
        self._home = home
        self._caps = caps
        self._pair: KeyPair = key_pair(wallet_seed(make_words(home)))
        self._spent: Spent = read_spent(home)

    @property
    def public_key(self) -> bytes:
        """Ed25519 public key of the wallet."""
        return self._pair.key

    def answer(self, order: Order) -> bytes:
        """Do what is asked.

        Raises:
            CocoonError: a refusal that the peer is told.
        """
        match order:
            case AskLaneSeed(genesis, index):
                return lane_seed(self._pair.seed, genesis, index)
            case AskProviderSeed(genesis):
                return provider_seed(self._pair.seed, genesis)
            case AskTransfer():
                return self._sign(order)

    def _sign(self, order: AskTransfer) -> bytes:
        unsigned = unsigned_transfer(order.network_id, order.seqno, order.valid_until_s, order.messages)
        value = sum(message.value_nanoton for message in order.messages)
        entry = Entry(wallet_id(order.network_id), order.seqno, value, order.valid_until_s)
        spent = self._spent.add(self._caps, int(time.time()), entry)
        # Counted before it exists: a crash here wastes a little of the cap and never passes it (WAL-10).
        write_spent(self._home, spent)
        self._spent = spent
        return pack(signed_body(unsigned, self._pair.sign(unsigned.hash())))


def _answer(vault: Vault, request: bytes) -> bytes | CocoonError:
    try:
        return vault.answer(unpack_order(request))
    except CocoonError as error:
        return error


def _send(link: socket.socket, body: bytes) -> None:
    link.sendall(frame(body))


def _receive(link: socket.socket) -> bytes:
    return _exactly(link, frame_length(_exactly(link, PREFIX_BYTES), SIGNER_FRAME_BYTES))


def _exactly(link: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        if not (data := link.recv(count - len(got))):
            raise PeerGone
        got += data
    return bytes(got)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
