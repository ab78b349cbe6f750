"""A provider and a requester on one network with a devnet; one of them dies at a named place and comes back.

Both keep their homes over all cases of a module, so every case stands on what the
crashes before it left. A case that fails ends the pair; the next one founds another.
"""

from __future__ import annotations

import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cocoon
from cocoon.core.errors import CocoonError, Unavailable
from cocoon.core.units import NANOTON_PER_TON
from cocoon.sdk.fields import take_hex
from tests.crash import books
from tests.crash.root import last_word
from tests.crash.sites import counted
from tests.journals import journal
from tests.loopback.paid import PAUSE_S
from tests.loopback.town import COCOON, PATIENCE_S, Peer, Town
from tests.models import adder_model

#: A unit costs one tranche, so each has a receipt of its own, and six of them are worth a claim.
UNIT_NANOTON = 1_000_000
UNITS = 6
_COMMANDS = {"provider": ("up", "--provide"), "requester": ("up",)}
_SETTINGS = {
    "price_run_nanoton": str(1_000 * UNIT_NANOTON), "wallet_hour_nanoton": str(10**15),
    "wallet_day_nanoton": str(10**15),
}


@dataclass(frozen=True, slots=True)
class Case:
    """Who dies where: see ``tests.crash.root``.

    ``stands`` are names of rows and how often the dead journal must hold them, counted from its last start;
    the row that the case is named after needs none.
    """

    who: str
    name: str
    side: str
    count: int = 1
    stands: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return f"{self.who}-{self.side}-{self.name}-{self.count}"

    @property
    def root(self) -> tuple[str, ...]:
        """Arguments of the root."""
        return self.name, self.side, str(self.count)

    @property
    def evidence(self) -> tuple[tuple[str, int], ...]:
        """What the journal of the dead peer must hold."""
        kind, _, row = self.name.partition(":")
        if kind != "row":
            return self.stands
        return ((row, self.count - (self.side == "before")), *self.stands)


@dataclass(slots=True)
class Pair:
    """The two peers, up between cases."""

    town: Town
    model: Path
    peers: dict[str, Peer] = field(default_factory=dict)
    wallets: dict[str, bytes] = field(default_factory=dict)
    #: Runs that were paid and reached no unit, so far: the requester died between the two rows.
    orphans: int = 0
    #: Receipts that the requester's client was told of, hex.
    told: set[str] = field(default_factory=set)

    @classmethod
    def found(cls, town: Town) -> Pair:
        """A network with a devnet, and two funded peers."""
        model = town.directory / "model.onnx"
        model.write_bytes(adder_model())
        pair = cls(town, model)
        try:
            town.bootstrap(devnet_block_ms="100")
            for who in _COMMANDS:
                pair.start(who, "--join", town.link)
                funded = cocoon.connect(pair.peers[who].home).fund(20 * NANOTON_PER_TON)
                pair.wallets[who] = bytes.fromhex(funded["address"])
        except BaseException:
            town.close()
            raise
        return pair

    def start(self, who: str, *more: str, root: Sequence[str] = ()) -> Peer:
        """Start a peer on its home; it is ready. Under the tests' root if a place is named."""
        peer = self.peers[who] = begin(self.town, who, *_COMMANDS[who], *more, root=root, **_SETTINGS)
        return peer

    def task(self) -> None:
        """One task of the requester, each unit under a receipt."""
        inputs = {"x": np.arange(3, dtype="f4")}
        results = cocoon.connect(self.peers["requester"].home).run(
            self.model, [inputs] * UNITS, deadline_s=PATIENCE_S, max_price_nanoton=10 * UNITS * UNIT_NANOTON,
            on_event=self._hear,
        )
        assert all(result.receipt in self.told for result in results)

    def _hear(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "receipt":
            self.told.add(take_hex(event, "hash"))

    def patiently(self, step: Callable[[], None]) -> None:
        """Do it as soon as a provider that came back is found again."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return step()
            except Unavailable as error:
                print(f"not yet: [{error.code}] {error.text}")
                if time.monotonic() > deadline:
                    raise
                select.select([], [], [], PAUSE_S)

    def settle(self, who: str) -> dict[str, Any]:
        """The books of one peer, closed."""
        answer: dict[str, Any] = cocoon.connect(self.peers[who].home).settle()
        return answer

    def die(self, case: Case) -> None:
        """Start the victim under the root, work until it dies, and see in its journal that it died there."""
        peer = self.peers[case.who]
        assert peer.terminate() == 0, peer.last_words()
        before = mark(peer)
        peer = self.start(case.who, root=case.root)
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(self._work, peer, case.who)
            see_death(case, peer, before)
            if case.who == "requester":
                work.result(2 * PATIENCE_S)                 # its only peer is gone
            self.start(case.who)
            work.result(2 * PATIENCE_S)

    def _work(self, peer: Peer, who: str) -> None:
        """Whatever brings a peer to every place: a task, claims and anchors, closes."""
        steps: list[Callable[[], object]] = [self.task]
        steps += [lambda: self.settle("provider")] if who == "provider" else []
        steps += [lambda: self.settle("requester")]
        deadline = time.monotonic() + PATIENCE_S
        while peer.process.poll() is None and time.monotonic() < deadline:
            try:
                for step in steps:
                    step()
            except CocoonError as error:
                # Its own end, the end of the other side of its link, or a provider that is not found again yet.
                print(f"while {who} works: [{error.code}] {error.text}")
                select.select([], [], [], PAUSE_S)

    def recover(self, case: Case) -> None:
        """The next task runs, both books close, and everything adds up."""
        self.patiently(self.task)
        settled = [self.settle("requester"), self.settle("provider")]
        requester, provider = self.peers["requester"], self.peers["provider"]
        books.check_settlement(provider.home, settled, cocoon.connect(provider.home).earnings())
        orphans = books.check_receipts(requester.home, [provider.home], self.told)
        assert orphans - self.orphans <= (case.who == "requester"), "a run was paid for no unit"
        self.orphans = orphans
        for who, peer in self.peers.items():
            refused = books.check_wallet(peer.home, self.wallets[who])
            if who == "provider":
                books.check_refused_claims(peer.home, refused)
            else:
                assert not refused, f"the escrow refused {len(refused)} orders, and two never have one number"
            audit = cocoon.connect(peer.home).audit()
            assert audit["clean"], (who, audit["differences"])


def begin(town: Town, who: str, *command: str, root: Sequence[str] = (), **settings: str) -> Peer:
    """Start a peer on its home; it is ready. Under the tests' root if a place is named."""
    peer = town.start(who, "tests.crash.root" if root else COCOON, *root, *command, **settings)
    peer.wait_line("ready")
    return peer


class Mark(NamedTuple):
    """Where a peer's journal and its last words ended."""

    record: int
    said: int


def mark(peer: Peer) -> Mark:
    """Both as they are now, between two lives of the peer."""
    with journal(peer.home) as reader:
        return Mark(reader.head()[0], _errors(peer).stat().st_size)


def _errors(peer: Peer) -> Path:
    return peer.home.parent / f"{peer.name}.err"


def see_death(case: Case, peer: Peer, before: Mark) -> None:
    """Wait for the end of ``peer``, and see in its last word and its journal that it died where ``case`` says."""
    try:
        ended = peer.process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        peer.kill()                                     # so that whoever works with it ends, too
        raise AssertionError(f"{case} was not reached: {peer.last_words()}") from None
    with journal(peer.home) as reader:
        found = counted(reader.entries(), before.record)
    print(f"{case}: {dict(found)}")
    words = _errors(peer).read_bytes()[before.said:].decode().splitlines()
    assert ended == -signal.SIGKILL and words[-1:] == [last_word(case.side, case.name)], (case, ended, words)
    assert {name: found[name] for name, _ in case.evidence} == dict(case.evidence), case
