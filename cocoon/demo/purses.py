"""The demonstration's money: two wallets filled from the faucet, and the books closed at the end.

Every figure is asked of the peers, who read it off the chain; nothing is added
up from what the demonstration itself believes to have paid. What it does believe,
the sum of all answers' prices, is only compared with what the chain paid.

Purity: shell (asks the local peers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cocoon.core.errors import AuditFailed
from cocoon.demo.errors import BooksNotClosed
from cocoon.demo.screen import Screen
from cocoon.sdk import Client

RUN_NANOTON = 100_000
SETUP_NANOTON = 500_000


@dataclass(frozen=True, slots=True)
class Ask:
    """What one provider asks for a run and for loading the model, and the threads of its workers."""

    run_nanoton: int
    threads: int
    setup_nanoton: int = SETUP_NANOTON

    @property
    def settings(self) -> dict[str, str]:
        """As variables of its process; prices are asked per 1,000 runs."""
        return {
            "COCOON_PRICE_RUN_NANOTON": str(1_000 * self.run_nanoton),
            "COCOON_PRICE_SETUP_NANOTON": str(self.setup_nanoton),
            "COCOON_THREADS": str(self.threads),
        }


#: Three strangers: the cheapest wins, the second is its runner-up, the third asks too much for what it is.
PROVIDERS = {
    "provider-1": Ask(RUN_NANOTON, threads=2),
    "provider-2": Ask(RUN_NANOTON * 12 // 10, threads=1),
    "provider-3": Ask(RUN_NANOTON * 18 // 10, threads=1),
}
FUNDS_NANOTON = {"requester": 2_000_000_000, **dict.fromkeys(PROVIDERS, 500_000_000)}
"""A lane of 0.2 coins with its reserve and the fees need a fifth of it; a provider pays for its anchor."""
#: What must be nothing when the requester has closed its books.
_OPEN = ("unsettled_leases", "lanes_open", "lanes_waiting")


@dataclass(slots=True)
class Purses:
    """The wallets of the peers, by the peer's name."""

    clients: dict[str, Client]
    screen: Screen
    start: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    #: What the wallets that are not there yet will pay for that, as they said before their first message.
    deployment_nanoton: int = 0
    #: What each said when it closed its books.
    settled: dict[str, dict[str, Any]] = field(default_factory=dict)
    earned: dict[str, dict[str, Any]] = field(default_factory=dict)

    def fill(self) -> None:
        """Get coins for every wallet from the devnet's faucet."""
        self.screen.wallets()
        for name, client in self.clients.items():
            wallet = client.wallet()
            self.start[name] = wallet["balance_nanoton"]
            self.deployment_nanoton += wallet["deployment_nanoton"]
            found = client.fund(FUNDS_NANOTON[name])
            self.before[name] = found["balance_nanoton"]
            self.screen.wallet(name, found["address"], self.start[name], found["balance_nanoton"])

    def lanes(self) -> None:
        """Show the escrow and its lanes, as they stand on chain now."""
        self.screen.lanes(self.clients["requester"].wallet())

    def settle(self) -> None:
        """Settle what is owed, close the lanes, pay out, and anchor the receipts; ``close`` tells of it."""
        self.settled = {name: self.clients[name].settle() for name in sorted(self.clients, reverse=True)}
        self.earned = {name: self.clients[name].earnings() for name in self.providers}

    @property
    def providers(self) -> list[str]:
        """Those who sold something."""
        return [name for name in sorted(PROVIDERS) if self.settled.get(name, {}).get("anchored_receipts")]

    def close(self, promised_nanoton: int, receipts: int) -> dict[str, Any]:
        """Check what the chain did when everything was settled, and add everything up.

        Args:
            promised_nanoton: What all answers cost; the chain must have paid exactly this.
            receipts: How many there are; each must be under an anchored root.

        Returns:
            What goes into the totals: ``anchor_tx`` (of the best provider), ``balances``, ``left_nanoton`` (fees that
            all paid for good), ``deployment_nanoton`` (how much of that deployed wallets), ``supply``, ``conserved``.

        Raises:
            BooksNotClosed: something was not closed, paid or anchored.
            AuditFailed: a balance does not follow from the chain's transactions.
        """
        self.screen.settlement()
        self._check_closed(promised_nanoton, receipts)
        for name, found in self.earned.items():
            self.screen.settled(name, found, self.settled[name])
        accounts = {name: self._account(name) for name in self.clients}
        supply = self.clients["requester"].supply()
        conserved = supply["conserved"] and all(account["conserved"] for account in accounts.values())
        left_nanoton = sum(_left_nanoton(account) for account in accounts.values())
        self.screen.books(accounts, left_nanoton, self.deployment_nanoton, supply, conserved=conserved)
        if not conserved:
            raise AuditFailed("the balances do not follow from the chain's transactions")
        return {
            "anchor_tx": self.settled[self.providers[0]]["anchor_tx"],
            "balances": accounts, "left_nanoton": left_nanoton,
            "deployment_nanoton": self.deployment_nanoton, "supply": supply, "conserved": conserved,
        }

    def _check_closed(self, promised_nanoton: int, receipts: int) -> None:
        bought = self.settled["requester"]
        left = [f"{bought[name]} {name.replace('_', ' ')}" for name in _OPEN if bought[name]]
        vouched, claimed = (
            sum(found[what] for found in self.earned.values()) for what in ("earned_nanoton", "claimed_nanoton")
        )
        if claimed != promised_nanoton or vouched != promised_nanoton:
            left.append(f"{promised_nanoton} nanoton promised, {vouched} vouched, {claimed} paid")
        sold = [self.settled[name] for name in self.earned if self.settled[name]["anchor_tx"]]
        anchored = sum(found["anchored_receipts"] for found in sold)
        if anchored != receipts:
            left.append(f"{anchored} of {receipts} receipts anchored")
        if left:
            raise BooksNotClosed(f"the books are not closed: {'; '.join(left)}")

    def _account(self, name: str) -> dict[str, Any]:
        """One party: start + received - sent - fees = end, from its wallet's transactions."""
        found = self.clients[name].audit()
        flow, end_nanoton = found["wallet"], found["balance_nanoton"]
        left = self.start[name] + flow["received_nanoton"] - flow["sent_nanoton"] - flow["fees_nanoton"]
        contracts = self.clients[name].wallet()
        return {
            "start_nanoton": self.start[name], "funded_nanoton": self.before[name], **flow,
            "end_nanoton": end_nanoton, "escrow_nanoton": contracts["escrow_balance_nanoton"],
            "locked_nanoton": contracts["escrow_locked_nanoton"],
            "anchor_nanoton": contracts["anchor_balance_nanoton"], "conserved": found["clean"] and left == end_nanoton,
        }


def _left_nanoton(account: dict[str, Any]) -> int:
    """What a party has no more, and nobody paid back: what it got, less all that it and its contracts hold.

    Added over both parties, what one paid the other falls out; fees remain.
    """
    held = account["end_nanoton"] + account["escrow_nanoton"] + account["anchor_nanoton"]
    return int(account["funded_nanoton"] - held)
