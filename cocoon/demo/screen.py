"""What a person sees while the demonstration runs: each step when it happens, in plain words.

Whole lines of ASCII, so that they read the same in a terminal, in a pipe and in
a log; on a terminal there is some colour. File names are foreign: control
characters in them are shown as escapes, never sent to the terminal.

Purity: shell (a clock, and whether standard output is a terminal).
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cocoon.demo.cases import Batch, Case
from cocoon.demo.files import Listing

Event = Mapping[str, Any]

BOLD, DIM, GREEN, YELLOW = "1", "2", "32", "33"
NAME_CHARS = 44
"""Width of the column of file names; a longer name keeps its end."""
UNREADABLE_SHOWN = 10
RECEIPTS_SHOWN = 8


def printable(text: str) -> str:
    """``text`` with everything that could move a cursor, or is no character, as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown_name(root: str, path: str) -> str:
    """A file's name below ``root``, safe to print."""
    return printable(path if path == root else os.path.relpath(path, root))


def command_name() -> str:
    """How this reader calls ``cocoon`` from here."""
    if shutil.which("cocoon"):
        return "cocoon"
    beside = os.path.join(os.path.dirname(sys.executable), "cocoon")
    return os.path.relpath(beside) if os.path.exists(beside) else f"{sys.executable} -m cocoon"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


class Screen:
    """Tells the story to a person; ``quiet`` makes every method silent (``--json``)."""

    def __init__(self, out: Callable[[str], None], *, quiet: bool = False) -> None:
        """``out`` takes one line without its end."""
        self._out = out
        self._quiet = quiet
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"
        self._colour = terminal and "NO_COLOR" not in os.environ
        self._width = NAME_CHARS
        self._step = 0
        self._sealing = False
        self._started_s = time.monotonic()
        self._handlers: dict[str, Callable[[Event], None]] = {
            "discovering": self._discovering,
            "offers": self._offers,
            "lease": self._lease,
            "model": self._model,
            "ready": self._ready,
        }

    def line(self, text: str = "", *styles: str) -> None:
        """Say one line."""
        if not self._quiet:
            self._out(self._styled(text, *styles))

    def step(self, title: str, explanation: str) -> None:
        """Begin the next numbered step."""
        self._step += 1
        since = f"{time.monotonic() - self._started_s:.1f} s"
        self.line()
        head = self._styled(f"{self._step}  {title}", BOLD)
        self.line(f"{head}  {self._styled(f'({since}) {explanation}', DIM)}")

    def fact(self, name: str, text: str) -> None:
        """One named fact of the current step."""
        self.line(f"   {name:<12} {text}")

    def warn(self, text: str) -> None:
        """Something that the reader should not overlook."""
        self.line(f"   {self._styled('note', YELLOW)}         {text}")

    def event(self, event: Event) -> None:
        """One event of the task, as the SDK hands it on; those without a line here are passed over."""
        if handler := self._handlers.get(str(event.get("event"))):
            handler(event)

    def files(self, root: str, listing: Listing, batch: Batch) -> None:
        """What is about to be done."""
        count = len(batch.cases)
        self.line(f"Cocoon: {count} file{_s(count)} of {printable(root)}, classified by a stranger", BOLD)
        self.line("A peer with a model and files finds one that sells computation, gets answers back", DIM)
        self.line("and a signed receipt for them. All of it is real and happens on this machine.", DIM)
        if listing.cut:
            self.warn(f"there are more; these are the first {len(listing.files)} in order")
        for left in batch.unreadable[:UNREADABLE_SHOWN]:
            self.warn(f"left out: {printable(left.path)}: {left.reason}")
        if len(batch.unreadable) > UNREADABLE_SHOWN:
            self.warn(f"left out: {len(batch.unreadable) - UNREADABLE_SHOWN} more unreadable files")

    def peers(self) -> None:
        """Begin the step in which peers start."""
        self.step("Peers", "three processes, each with its own keys and its own directory")

    def peer(self, name: str, pid: int, seconds: float) -> None:
        """A peer that is ready."""
        self.fact(name, f"ready after {seconds:.1f} s (process {pid})")

    def begin_answers(self, root: str, batch: Batch) -> None:
        """Begin the step of the answers."""
        widest = max(len(shown_name(root, case.path)) for case in batch.cases)
        self._width = min(NAME_CHARS, widest)
        self.step("Answers", "one sealed run for each file; `rule` needs no model and costs nothing")

    def answers(self, root: str, cases: Sequence[Case]) -> None:
        """The labels of decided files."""
        for case in cases:
            assert case.label is not None
            name = shown_name(root, case.path)
            if len(name) > self._width:
                name = ".." + name[2 - self._width :]
            by_rule = case.result is None
            detail = self._styled("   rule", DIM) if by_rule else f"{case.label.score * 100:5.1f} %"
            self.line(f"   {name:<{self._width}}  {self._styled(f'{case.label.name:<12}', GREEN)} {detail}")

    def receipts(self, events: Sequence[Event]) -> None:
        """The receipts of the task."""
        self.step("Receipts", "one signature of the provider covers every run of a tranche")
        for event in events[:RECEIPTS_SHOWN]:
            runs = int(event.get("runs", 0))
            self.fact(f"receipt {event.get('seq')}", f"{event.get('hash')}, {runs} run{_s(runs)}")
        if len(events) > RECEIPTS_SHOWN:
            self.fact("", f"and {len(events) - RECEIPTS_SHOWN} more")

    def verified(self, receipts: int, runs: int) -> None:
        """The receipts passed."""
        self.step("Verification", "outside the peers, as `cocoon receipts verify` does it; no network needed")
        ok = self._styled("valid", GREEN)
        self.fact("receipts", f"{ok}: {receipts}, signed by the provider, countersigned by the requester")
        self.fact("answers", f"{ok}: {runs}, the hash of each stands under a signed receipt")

    def totals(self, totals: Mapping[str, Any]) -> None:
        """The last lines: what it came to, and what to try next."""
        self.step("Done", "all three peers have ended; nothing is left running")
        self.fact("files", f"{totals['by_model']} by the provider, {totals['by_rule']} by rule")
        if totals["unreadable"] or totals["skipped"]:
            self.fact("left out", f"{totals['unreadable']} unreadable, {totals['skipped']} links or devices")
        common = [f"{count} {label}" for label, count in totals["labels"].items()][:6]
        self.fact("labels", ", ".join(common) + (", ..." if len(totals["labels"]) > 6 else ""))
        self.fact("provider", str(totals["provider"]))
        self.fact("price", f"{totals['price_nanoton']} nanoton")
        self.fact("receipts", f"{totals['receipts']}, all valid")
        self.line()
        self.line("Try next", BOLD)
        cocoon = command_name()
        for command, what in (
            ("make demo FILES=/some/dir", "classify your own files"),
            (f"{cocoon} demo --json /some/dir", "the same as JSON lines"),
            (f"{cocoon} up --provide", "sell runs; prints a link for others to join"),
            (f"{cocoon} doctor", "what this machine can do"),
            ("docs/guides/newcomer.md", "run your own model, step by step"),
        ):
            self.line(f"   {command:<41} {self._styled(what, DIM)}")

    def _discovering(self, event: Event) -> None:
        self.step("Discovery", "the requester knows no provider and asks the DHT who runs models")

    def _offers(self, event: Event) -> None:
        count = int(event.get("count", 0))
        self.fact("found", f"{count} provider{_s(count)} with a signed offer")
        chosen = event.get("chosen")
        if not isinstance(chosen, Mapping):
            return
        self.step("Offer", "signed by the provider; the cheapest under the ceiling wins")
        if provider := chosen.get("provider"):
            self.fact("provider", str(provider))
        for name in ("device", "engine"):
            if isinstance(value := chosen.get(name), str) and value:
                self.fact(name, printable(value))
        # A network without a ledger: prices are 0, and the receipt is what remains.
        expected = chosen.get("expected_nanoton", chosen.get("setup_nanoton", 0))
        self.fact("price", f"{expected} nanoton (this local network has no ledger)")

    def _sealed(self) -> None:
        """Begin the step of the transfer, whichever of its events comes first."""
        if not self._sealing:
            self._sealing = True
            self.step("Sealed transfer", "ML-KEM-768 + X25519 carry the keys, AES-256-GCM the frames")

    def _lease(self, event: Event) -> None:
        self._sealed()
        self.fact("lease", f"{event.get('lease')}, signed by both sides")

    def _model(self, event: Event) -> None:
        self._sealed()
        sent, total = int(event.get("sent_bytes", 0)), int(event.get("total_bytes", 0))
        if sent >= total:
            self.fact("model", f"{total / 2**20:.1f} MiB sent sealed, every chunk checked, never announced")

    def _ready(self, event: Event) -> None:
        self._sealed()
        self.fact("loaded", f"in {event.get('load_ms', 0)} ms, in a worker process of the provider")

    def _styled(self, text: str, *styles: str) -> str:
        return f"\x1b[{';'.join(styles)}m{text}\x1b[0m" if styles and self._colour and text else text
