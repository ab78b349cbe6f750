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
from cocoon.sdk import format_nanoton

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


def _short(digest: str) -> str:
    """Enough of a hash or an address to recognise it."""
    return f"{digest[:16]}.."


def _kept(account: Event) -> str:
    """What a party has in its contracts, for the end of a line."""
    text = ""
    if account["escrow_nanoton"]:
        locked = format_nanoton(account["locked_nanoton"])
        text += f", {format_nanoton(account['escrow_nanoton'])} in its escrow ({locked} locked)"
    if account["anchor_nanoton"]:
        text += f", {format_nanoton(account['anchor_nanoton'])} in its anchor"
    return text


def _short_peer(peer: str) -> str:
    """The end of a peer id, where ids differ."""
    return f"...{peer[-8:]}"


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
            "bids": self._bids,
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
        self.step("Peers", "each with a process, keys and a directory of its own; the bootstrap brings a TON chain")

    def peer(self, name: str, pid: int, seconds: float) -> None:
        """A peer that is ready."""
        self.fact(name, f"ready after {seconds:.1f} s (process {pid})")

    def wallets(self) -> None:
        """Begin the step in which wallets are filled."""
        self.step("Wallets", "on that chain; only its faucet gives coins away, contracts and fees are the real ones")

    def wallet(self, name: str, address: str, start_nanoton: int, balance_nanoton: int) -> None:
        """A wallet that got coins."""
        moved = f"{format_nanoton(start_nanoton)}, then {format_nanoton(balance_nanoton)} from the faucet"
        self.fact(name, f"0:{_short(address)} holds {moved}")

    def lanes(self, wallet: Event) -> None:
        """The requester's escrow, and its lanes."""
        self.step("Lane", "an escrow contract locks the requester's coins for each provider; only vouchers spend them")
        balance = format_nanoton(wallet["escrow_balance_nanoton"])
        locked = format_nanoton(wallet["escrow_locked_nanoton"])
        self.fact("escrow", f"0:{_short(wallet['escrow'])} holds {balance}, {locked} of it locked")
        for lane in wallet["lanes"]:
            cap = format_nanoton(lane["cap_nanoton"])
            self.fact(f"lane {lane['lane']}", f"up to {cap} for {lane['provider']}, {lane['stage']}")

    def settlement(self) -> None:
        """Begin the step in which the books are closed."""
        self.step("Settlement", "all peers close their books; the escrow pays, the receipts' roots go on chain")

    def failover(self, name: str) -> None:
        """Begin the step in which the best provider dies."""
        self.step("Failover", f"files are run once more; {name} is killed (SIGKILL) at the first answer")

    def failed_over(self, answers: Mapping[str, int], seconds: float) -> None:
        """Who gave the answers; they are the same."""
        for name, count in answers.items():
            self.fact(name, f"gave {count} of the answers, each accepted once")
        self.fact("all there", f"{seconds:.1f} s after the kill, in order, the same labels as before")

    def back(self, name: str, seconds: float) -> None:
        """The killed provider came back."""
        self.fact(name, f"is back after {seconds:.1f} s; what was accepted from it is owed to it")

    def settled(self, name: str, earned: Event, sold: Event) -> None:
        """What the chain did for a provider when the books were closed."""
        for lane in earned["lanes"]:
            self.fact(f"lane {lane['lane']}", "closed at once: one order, signed by requester and provider")
        paid = format_nanoton(earned["claimed_nanoton"])
        self.fact("paid out", f"{paid}, by the escrow to the wallet of {name}, as the last voucher says")
        count, roots = sold["anchored_receipts"], sold["anchored_roots"]
        self.fact("anchored", f"{count} receipt{_s(count)} under {roots} root{_s(roots)} in 0:{_short(sold['anchor'])}")
        self.fact("transaction", str(sold["anchor_tx"]))

    def books(
        self, accounts: Mapping[str, Event], left_nanoton: int, deployment_nanoton: int, supply: Event, *,
        conserved: bool,
    ) -> None:
        """Both sums, as the chain's own transactions give them.

        Args:
            left_nanoton: What all parties lost in fees.
            deployment_nanoton: How much of that they paid because their wallets were new.
        """
        self.step("Balances", "added up from the chain's transactions, not from our journals; in nanoton")
        for name, account in accounts.items():
            before, end = (format_nanoton(account[key]) for key in ("funded_nanoton", "end_nanoton"))
            self.fact(name, f"{before} before, {end} now{_kept(account)}")
            moved = f"received {account['received_nanoton']} - sent {account['sent_nanoton']}"
            start = account["start_nanoton"]
            self.fact("", f"start {start} + {moved} - fees {account['fees_nanoton']} = end {account['end_nanoton']}")
        work_nanoton = left_nanoton - deployment_nanoton
        wallets = f"{format_nanoton(deployment_nanoton)} to deploy their wallets"
        self.fact("fees", f"{format_nanoton(work_nanoton)} left all parties for good, besides {wallets};")
        self.fact("", "what contracts hold is theirs")
        counted = f"{supply['transactions']} transactions in {supply['blocks']} blocks of both workchains"
        self.fact("whole chain", f"{counted}, {supply['accounts']} accounts, back to the genesis by hash")
        sums = f"balances {supply['balances_nanoton']} + fees {supply['fees_nanoton']}"
        if supply["under_way_nanoton"]:
            sums += f" + under way {supply['under_way_nanoton']}"
        self.fact("", f"genesis {supply['genesis_nanoton']} = {sums}")
        told = self._styled("every nanoton is accounted for", GREEN) if conserved else "does NOT add up"
        self.fact("conserved", told)

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

    def receipts(self, receipts: Sequence[Event]) -> None:
        """What the receipts of the task prove, and the vouchers that pay them."""
        self.step("Receipts", "lane and number; a provider signs for what it ran, a voucher pays all so far")
        for facts in receipts[:RECEIPTS_SHOWN]:
            self._receipt(facts)
        if len(receipts) > RECEIPTS_SHOWN + 1:
            self.fact("", f"and {len(receipts) - RECEIPTS_SHOWN - 1} more, up to")
        if len(receipts) > RECEIPTS_SHOWN:
            self._receipt(receipts[-1])

    def _receipt(self, facts: Event) -> None:
        runs, seq = int(facts["runs"]), facts["seq"]
        counted = f"{runs} run{_s(runs)}"
        self.fact(
            f"receipt {facts['lane']}.{seq}", f"{_short(facts['receipt'])} {counted:>8}   voucher {seq}: "
            f"{format_nanoton(facts['total_nanoton'])} in all"
        )

    def verified(self, receipts: int, runs: int, promised_nanoton: int) -> None:
        """The receipts passed."""
        self.step("Verification", "outside the peers, as `cocoon receipts verify` does it; no network needed")
        ok = self._styled("valid", GREEN)
        self.fact("receipts", f"{ok}: {receipts}, signed by the provider, each with the requester's voucher")
        self.fact("answers", f"{ok}: {runs}, the hash of each stands under a signed receipt")
        self.fact("vouchers", f"{ok}: {format_nanoton(promised_nanoton)} promised, the price of all answers together")

    def totals(self, totals: Mapping[str, Any]) -> None:
        """The last lines: what it came to, and what to try next."""
        self.step("Done", "the five peers and the chain have ended; nothing is left running")
        again = f", {totals['again']} once more in the failover"
        self.fact("files", f"{totals['by_model']} by a provider, {totals['by_rule']} by rule{again}")
        if totals["unreadable"] or totals["skipped"]:
            self.fact("left out", f"{totals['unreadable']} unreadable, {totals['skipped']} links or devices")
        common = [f"{count} {label}" for label, count in totals["labels"].items()][:6]
        self.fact("labels", ", ".join(common) + (", ..." if len(totals["labels"]) > 6 else ""))
        self.fact("provider", str(totals["provider"]))
        runs_nanoton = totals["price_nanoton"] - totals["setup_nanoton"]
        self.fact("runs", f"{totals['by_model'] + totals['again']} for {format_nanoton(runs_nanoton)}")
        self.fact("set-up", f"{format_nanoton(totals['setup_nanoton'])}, for loading the model, once a lease")
        self.fact("paid", f"{format_nanoton(totals['price_nanoton'])} on chain, to the last nanoton of the vouchers")
        self.fact("receipts", f"{totals['receipts']}, all valid and anchored")
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

    def _bids(self, event: Event) -> None:
        bids, chosen = event["bids"], event["chosen"]
        self.step("Auction", "sealed bids, each signed; who wins gets what it bid, the others hear why not")
        for bid in bids:
            self.fact("bid", self._bid(bid, won=bid["provider"] == chosen))
        for missed in event["missed"]:
            self.fact("no bid", f"{_short_peer(missed['provider'])}: {missed['code']}")
        won = next((bid for bid in bids if bid["provider"] == chosen), None)
        if won is None:
            return
        self.fact("provider", chosen)
        for name in ("device", "engine"):
            self.fact(name, printable(won[name]))
        self.fact("a run", f"{won['run_nanoton_per_1000'] / 1_000:g} nanoton")
        self.fact("set-up", f"{won['setup_nanoton']} nanoton, once a lease, for loading the model")
        self.fact("in all", f"{format_nanoton(won['expected_nanoton'])} expected for these files")

    def _bid(self, bid: Mapping[str, Any], *, won: bool) -> str:
        threads = f"{bid['threads']} thread{_s(bid['threads'])}"
        terms = f"{format_nanoton(bid['expected_nanoton'])} for all, {threads}"
        verdict = self._styled("won", GREEN) if won else f"lost: {bid['lost']}"
        return f"{_short_peer(bid['provider'])} {terms}; {verdict}"

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
