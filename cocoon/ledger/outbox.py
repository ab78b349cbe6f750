"""One wallet's messages, each executed exactly once, in spite of crashes and silence.

The wallet executes a sequence number once, and only before the message's
valid-until. So one message is under way at a time, and what became of it is read
off the chain alone:

    its body is in a transaction of the wallet       sent, or skipped for want of coins
    the number was used by another message           dead: sign again under the next one
    the chain's time is past valid-until             dead: sign again under the same number
    otherwise                                        send the same bytes again, later

Invariants
    A signature is made only when the one before it is dead for good.
    Nothing is sent that is not in the journal.
    Places end in their order.

Purity: pure. Spec: docs/spec/outbox.md, rules OUT-1 to OUT-8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from cocoon.core.errors import Corrupt, InsufficientFunds, LimitExceeded
from cocoon.core.limits import OUTBOX_ITEMS, OUTBOX_RESEND_NS, SIGNATURE_DEFAULT_S, WALLET_RESERVE_NANOTON
from cocoon.core.machine import Effect, Event
from cocoon.core.units import format_nanoton
from cocoon.ledger.onchain import Transaction
from cocoon.ledger.rows import EndedRow, Failure, QueuedRow, Sent, SignedRow
from cocoon.ledger.wallet import Outgoing
from cocoon.wire.cells import Cell


class MessageQueued(Event):
    """A row with this message is durable."""

    row: QueuedRow


class MessageSigned(Event):
    """A row with this signature is durable."""

    row: SignedRow


class SigningRefused(Event):
    """The signer would not sign for this place; nothing was signed."""

    place: int
    failure: Failure


class SigningLost(Event):
    """There is no signature for this place, and no reason to give the message up."""

    place: int


class WalletSeen(Event):
    """A proven state of the wallet, and its transactions.

    Attributes:
        seqno: Next sequence number; 0 while the wallet is not deployed.
        last_lt: Newest transaction at that state.
        at_s: Chain time of that state: whatever comes later is executed at this time or later.
        transactions: All with lt above ``Outbox.after_lt``, up to that state or a later one.
    """

    seqno: int
    balance_nanoton: int
    last_lt: int
    at_s: int
    transactions: tuple[Transaction, ...]


class SignMessage(Effect):
    """Have this signed, write the row, and say ``MessageSigned``."""

    place: int
    attempt: int
    seqno: int
    valid_until_s: int
    after_lt: int
    message: Outgoing


class SendExternal(Effect):
    """Hand this body to the chain; with the wallet's first state if ``deploy``."""

    durable: ClassVar[bool] = True
    body: Cell
    deploy: bool


class EndPlace(Effect):
    """Write this row, then tell whoever waits."""

    durable: ClassVar[bool] = True
    row: EndedRow


@dataclass(slots=True)
class Outbox:
    """The wallet's machine. The shell shows it the wallet after every block while it is ``busy``."""

    _queue: dict[int, QueuedRow] = field(default_factory=dict)
    _flight: SignedRow | None = None
    _attempts: int = 0
    _signing: bool = False
    _sent_ns: int | None = None

    @classmethod
    def restored(cls, queued: Iterable[QueuedRow], signed: SignedRow | None) -> Outbox:
        """The machine of an earlier life: its open places, and the newest signature of the first of them.

        Raises:
            Corrupt: they do not belong together.
        """
        outbox = cls({row.place: row for row in queued})
        if signed is not None:
            if signed.place != outbox._first().place:
                raise Corrupt(f"the outbox signed place {signed.place}, which is not the first open one")
            outbox._flight = signed
            outbox._attempts = signed.attempt + 1
        return outbox

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._queue)

    @property
    def waiting(self) -> int:
        """Open places."""
        return len(self._queue)

    @property
    def under_way(self) -> bool:
        """Whether a signed message waits for the chain."""
        return self._flight is not None

    @property
    def after_lt(self) -> int | None:
        """Transactions of the wallet above this must be shown; None if none are needed."""
        return None if self._flight is None else self._flight.after_lt

    def deadline_ns(self) -> int | None:
        """Never: the chain's blocks are this machine's clock."""
        return None

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; see ``core.machine``.

        Raises:
            LimitExceeded: more than ``OUTBOX_ITEMS`` wait.
        """
        match event:
            case MessageQueued(row):
                if len(self._queue) >= OUTBOX_ITEMS:
                    raise LimitExceeded(f"{OUTBOX_ITEMS} messages of the wallet wait already")
                self._queue[row.place] = row
            case MessageSigned(row) if self._signing and row.place == self._first().place:
                self._signing, self._flight, self._attempts = False, row, row.attempt + 1
                return self._send(now_ns)
            case SigningRefused(place, failure) if self._signing and place == self._first().place:
                self._signing = False
                return [self._end(failure)]
            case SigningLost(place) if self._signing and place == self._first().place:
                self._signing = False
            case WalletSeen():
                return self._see(now_ns, event)
        return []

    def _see(self, now_ns: int, seen: WalletSeen) -> list[Effect]:
        flight = self._flight
        if flight is None:
            return self._next(seen)
        transaction = _carrier(flight, seen)
        if transaction is not None:
            # The state may be older than the transaction: the next one is signed by the next state.
            return [self._end(_outcome(self._first().message, transaction))]
        if seen.seqno > flight.seqno or seen.at_s > flight.valid_until_s:
            self._flight = self._sent_ns = None
            return self._next(seen)
        if self._sent_ns is None or now_ns - self._sent_ns >= OUTBOX_RESEND_NS:
            return self._send(now_ns)
        return []

    def _next(self, seen: WalletSeen) -> list[Effect]:
        """Order a signature for the first place that the wallet can carry; those before it are given up."""
        effects: list[Effect] = []
        while self._queue and not self._signing:
            row = self._first()
            needed = row.message.value_nanoton + WALLET_RESERVE_NANOTON
            if seen.balance_nanoton < needed:
                effects.append(self._end(_short(row.message, seen.balance_nanoton)))
                continue
            self._signing = True
            valid_until_s = seen.at_s + SIGNATURE_DEFAULT_S
            effects.append(
                SignMessage(row.place, self._attempts, seen.seqno, valid_until_s, seen.last_lt, row.message)
            )
        return effects

    def _send(self, now_ns: int) -> list[Effect]:
        assert self._flight is not None
        self._sent_ns = now_ns
        return [SendExternal(self._flight.body, deploy=self._flight.seqno == 0)]

    def _end(self, outcome: Sent | Failure) -> EndPlace:
        row = self._first()
        del self._queue[row.place]
        self._flight, self._sent_ns, self._attempts = None, None, 0
        return EndPlace(EndedRow(row.place, row.key, outcome))

    def _first(self) -> QueuedRow:
        if not self._queue:
            raise Corrupt("the outbox has a signature and no message")
        return self._queue[min(self._queue)]


def _short(message: Outgoing, balance_nanoton: int) -> Failure:
    """Why a wallet with this balance does not carry ``message``."""
    text = (
        f"the wallet holds {format_nanoton(balance_nanoton)}; the message sends "
        f"{format_nanoton(message.value_nanoton)} and {format_nanoton(WALLET_RESERVE_NANOTON)} are kept for fees"
    )
    return Failure(InsufficientFunds.code, text)


def _carrier(flight: SignedRow, seen: WalletSeen) -> Transaction | None:
    """The wallet's transaction that this very signature caused."""
    wanted = flight.body.hash()
    return next(
        (t for t in seen.transactions if t.in_source is None and t.in_body is not None and t.in_body.hash() == wanted),
        None,
    )


def _outcome(message: Outgoing, transaction: Transaction) -> Sent | Failure:
    """Whether the message left: the wallet skips what its balance does not cover, and counts on (OUT-6)."""
    body = (message.body or Cell(0, 0)).hash()
    left = any(
        (out.dest, out.value_nanoton, out.body.hash()) == (message.dest, message.value_nanoton, body)
        for out in transaction.outs
    )
    if left:
        return Sent(transaction.hash, transaction.lt, transaction.at_s)
    return Failure(InsufficientFunds.code, "the wallet's balance did not cover the message when it was executed")
