"""The demonstration from start to end: peers, coins, task, receipts, verification, payment.

Nothing here is staged. Five peers and a TON chain run as processes of their
own, the requester is told nothing but the join link, and the exit code is 0 only
if a provider decided at least one file, every such file is under a verified
receipt, the chain paid exactly what was promised, its coins add up, and every
process has ended cleanly.

Purity: shell.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from cocoon.core.errors import NotFound, NothingToDo, PeerFault, wrong
from cocoon.demo.cases import Batch, Case, Inputs, look
from cocoon.demo.errors import PeerNotStarted
from cocoon.demo.files import Listing, list_files
from cocoon.demo.interrupts import Interrupts
from cocoon.demo.labels import OUTPUT, by_model
from cocoon.demo.model import Magika, find_magika
from cocoon.demo.processes import Crew, Peer, crew
from cocoon.demo.purses import FUNDS_NANOTON, PROVIDERS, Purses
from cocoon.demo.screen import Screen
from cocoon.demo.verify import find_receipts, promised_nanoton, verify_answers
from cocoon.sdk import Client, Result, connect

EXAMPLES = Path("examples") / "filetypes"
FAILOVER_RUNS = 24
"""Three times as many as may be under way with one provider, so that it dies in the middle."""
UNREADABLE_LISTED = 100
"""Left-out files named in the totals; their number is always exact."""


def run_demo(
    path: str | os.PathLike[str] | None,
    *,
    as_json: bool,
    magika: str | os.PathLike[str] | None,
    out: Callable[[str], None],
    provider: bool = True,
) -> int:
    """Classify the files of ``path`` on a provider that this call starts, and tell how it goes.

    Args:
        path: A directory, or one regular file; None takes examples/filetypes.
        as_json: One JSON object a line instead of the story; the last holds the totals.
        magika: Directory of the model; None looks at COCOON_MAGIKA, then build/magika.
        out: Takes either form, line by line, without line ends.
        provider: False starts none, to see what a requester then says.

    Returns:
        0, or 128 plus the signal that interrupted it.

    Raises:
        NotFound: no such directory. NothingToDo: nothing in it that needs a provider.
        DemoModelMissing, DemoModelBroken: no model.
        PeerNotStarted: a peer did not come up, or did not end well.
        BooksNotClosed, AuditFailed: the money is not where it should be.
        CocoonError: whatever the task ended with.
    """
    interrupts = Interrupts()
    screen = Screen(out, quiet=as_json)
    with interrupts.installed():
        try:
            root = default_directory() if path is None else os.fspath(path)
            demo = Demo(root, find_magika(magika), screen, interrupts)
            totals = demo.run(with_provider=provider)
            if as_json:
                for record in (*(case.line() for case in demo.batch.cases), totals):
                    out(json.dumps(record))
            screen.totals(totals)
            return 0
        except KeyboardInterrupt:
            screen.line("interrupted; every process that was started has ended")
            return 128 + interrupts.number


def default_directory() -> str:
    """The examples of the working directory, else those of the source tree that this code is in."""
    if EXAMPLES.is_dir():
        return str(EXAMPLES)
    beside = Path(__file__).parents[2] / EXAMPLES
    if beside.is_dir():
        return str(beside)
    raise NotFound(f"there is no {str(EXAMPLES)!r} here; name a directory")


class Demo:
    """One run; its steps are methods, in the order in which they happen."""

    def __init__(self, root: str, magika: Magika, screen: Screen, interrupts: Interrupts) -> None:
        self._root = root
        self._magika = magika
        self._screen = screen
        self._interrupts = interrupts
        self._started_s = time.monotonic()
        #: Set-up price of each lease, and that of the offer which the next one is agreed on.
        self._setups: dict[str, int] = {}
        self._bid_setups: dict[str, int] = {}
        self._link = ""
        self._chosen = ""
        self.bids: list[dict[str, Any]] = []
        self.batch = Batch()

    def run(self, *, with_provider: bool) -> dict[str, Any]:
        """Do everything and return the totals."""
        listing = list_files(self._root)
        self.batch = look(listing, self._magika.rules)
        self._screen.files(self._root, listing, self.batch)
        if not self.batch.asked:
            raise NothingToDo(
                f"no file of {self._root!r} needs the model: {len(self.batch.cases)} decided by rule, "
                f"{len(self.batch.unreadable)} unreadable"
            )
        with crew(self._interrupts) as members:
            peers = self._start_peers(members, with_provider)
            purses = Purses({name: connect(peer.home) for name, peer in peers.items()}, self._screen)
            purses.fill()
            client = purses.clients["requester"]
            self._classify(client)
            self._fail_over(members, peers, purses.clients)
            purses.lanes()
            purses.settle()
            receipts = self._verify(client)
            money = purses.close(self._price(), len(receipts))
        self._check_ends(members.close())
        return {**self._totals(listing), **money}

    def _start_peers(self, members: Crew, with_provider: bool) -> dict[str, Peer]:
        """Start bootstrap, providers and requester; return those with a wallet, by name, when all are ready."""
        self._screen.peers()
        bootstrap = members.start("bootstrap", "up", "--role", "bootstrap")
        self._link = members.wait_link(bootstrap)
        self._screen.peer(bootstrap.name, bootstrap.pid, members.wait_ready(bootstrap))
        names = [*(PROVIDERS if with_provider else ()), "requester"]
        others = {name: self._start(members, name) for name in names}
        for peer in others.values():
            self._screen.peer(peer.name, peer.pid, members.wait_ready(peer))
        return others

    def _start(self, members: Crew, name: str) -> Peer:
        if name in PROVIDERS:
            return members.start(name, "up", "--provide", "--join", self._link, **PROVIDERS[name].settings)
        return members.start(name, "up", "--join", self._link)

    def _fail_over(self, members: Crew, peers: dict[str, Peer], clients: dict[str, Client]) -> None:
        """Run files once more, kill the best provider at the first answer, and let it come back to be paid."""
        ids = {name: clients[name].status()["peer"] for name in PROVIDERS}
        best = next(name for name, peer in ids.items() if peer == self._chosen)
        killed: list[float] = []

        def watch(event: dict[str, Any]) -> None:
            self._note(event)
            if event.get("event") == "result" and not killed:
                killed.append(time.monotonic())
                members.kill(peers[best])

        asked = self.batch.asked
        again = [Case(case.path, case.tokens) for case in islice(cycle(asked), FAILOVER_RUNS)]
        results = clients["requester"].map(
            self._magika.model, Inputs(again), max_price_nanoton=FUNDS_NANOTON["requester"],
            on_event=watch,
        )
        self._screen.failover(best)
        for case, before in zip(again, cycle(asked), strict=False):
            self._decide(case, results)
            if case.label != before.label:
                raise wrong("output", f"two providers decide {case.path!r} differently")
        if next(results, None) is not None:
            raise PeerFault("the task has more results than files")
        self._screen.failed_over(self._by_provider(again, ids), time.monotonic() - killed[0])
        self.batch.again = again
        peers[best] = self._start(members, best)
        self._screen.back(best, members.wait_ready(peers[best]))

    def _by_provider(self, cases: Sequence[Case], ids: Mapping[str, str]) -> dict[str, int]:
        """How many of these answers each provider gave, by its name."""
        count = Counter(case.result.provider for case in cases if case.result is not None)
        return {name: count[peer] for name, peer in ids.items() if count[peer]}

    def _classify(self, client: Client) -> None:
        """Have the provider decide every file that needs the model; show all in order."""
        # As many files as are taken cost more than a task may whose user says nothing (SCH-19).
        most_nanoton = FUNDS_NANOTON["requester"]
        inputs = Inputs(self.batch.asked)
        results = client.map(self._magika.model, inputs, max_price_nanoton=most_nanoton, on_event=self._event)
        waiting: list[Case] = []
        begun = False
        for case in self.batch.cases:
            waiting.append(case)
            if case.tokens is not None:
                self._decide(case, results)
                if not begun:
                    self._screen.begin_answers(self._root, self.batch)
                    begun = True
            # What rules decided before the first answer waits for its heading.
            if begun:
                self._screen.answers(self._root, waiting)
                waiting.clear()
        # The task is over, and its last receipt here, when the stream ends.
        if next(results, None) is not None:
            raise PeerFault("the task has more results than files")

    def _decide(self, case: Case, results: Iterator[Result]) -> None:
        result = next(results, None)
        if result is None or OUTPUT not in result.outputs:
            raise wrong("output", f"the model's answer for {case.path!r} has no output {OUTPUT!r}")
        case.label = by_model(result.outputs[OUTPUT], self._magika.rules)
        case.result = result
        result.outputs = {}

    def _event(self, event: dict[str, Any]) -> None:
        self._note(event)
        if event.get("event") == "bids":
            self._chosen = str(event["chosen"])
            self.bids = list(event["bids"])
        self._screen.event(event)

    def _note(self, event: dict[str, Any]) -> None:
        """Remember what each lease asks for loading the model."""
        if event.get("event") == "lease":
            self._setups.setdefault(str(event.get("lease")), self._bid_setups.get(str(event.get("provider")), 0))
        if event.get("event") == "bids":
            self._bid_setups |= {str(bid["provider"]): int(bid["setup_nanoton"]) for bid in event["bids"]}

    def _verify(self, client: Client) -> list[dict[str, Any]]:
        """Every answer must be under a receipt whose signatures and hashes hold, and the last voucher pay for all.

        Returns:
            What the receipts prove.
        """
        asked = self.batch.decided
        find_receipts(client, asked)
        receipts = verify_answers(client, asked)
        self._screen.receipts(receipts)
        promised = promised_nanoton(receipts)
        if promised != self._price():
            raise wrong("total", f"the vouchers promise {promised} nanoton for answers of {self._price()}")
        self._screen.verified(len(receipts), len(asked), promised)
        return receipts

    def _price(self) -> int:
        """What all answers cost together, nanoton; the first of a lease carries its set-up."""
        return sum(case.result.price_nanoton for case in self.batch.decided if case.result is not None)

    def _setup(self) -> int:
        """What of that was for loading the model, nanoton: once for each lease on which an answer was paid."""
        results = [case.result for case in self.batch.decided if case.result is not None]
        paid = {result.lease for result in results if result.price_nanoton}
        return sum(self._setups.get(lease, 0) for lease in paid)

    def _check_ends(self, codes: Mapping[str, int | None]) -> None:
        bad = [f"the {name} with {code}" for name, code in codes.items() if code != 0]
        if bad:
            raise PeerNotStarted(f"asked to end, peers ended other than with exit code 0: {', '.join(bad)}")

    def _totals(self, listing: Listing) -> dict[str, Any]:
        batch = self.batch
        results = [case.result for case in batch.asked if case.result is not None]
        decided = [case.result for case in batch.decided if case.result is not None]
        labels = Counter(case.label.name for case in batch.cases if case.label is not None)
        return {
            "files": len(batch.cases) + len(batch.unreadable),
            "by_model": len(results),
            "by_rule": len(batch.cases) - len(results),
            "unreadable": len(batch.unreadable),
            "skipped": listing.skipped,
            "cut": listing.cut,
            "again": len(batch.again),
            "receipts": len({result.receipt for result in decided}),
            "verified": True,
            "provider": results[0].provider,
            "providers": dict(Counter(result.provider for result in decided)),
            "bids": self.bids,
            "price_nanoton": self._price(),
            "setup_nanoton": self._setup(),
            "seconds": round(time.monotonic() - self._started_s, 3),
            "labels": dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
            "unreadable_files": [
                {"path": left.path, "reason": left.reason} for left in batch.unreadable[:UNREADABLE_LISTED]
            ],
        }
