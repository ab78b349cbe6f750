"""What two journals and the chain say of each other: the assertions of every case of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoon.ledger import rows
from cocoon.ledger.events import RunAccepted
from cocoon.ledger.journal import unpack_event
from cocoon.ledger.onchain import Transaction
from cocoon.ledger.rows import EndedRow, QueuedRow, Sent
from cocoon.ledger.verify import ReceiptFacts
from cocoon.ledger.wallet import Outgoing
from cocoon.node import records
from cocoon.wire.cells import Cell
from tests.journals import accepted, journal, receipts
from tests.loopback.paid import transactions

Run = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Bought:
    """What the requester's journal says: what it owes, and what it promised."""

    units: tuple[records.UnitAccepted, ...]
    accepted: tuple[Run, ...]
    receipts: tuple[ReceiptFacts, ...]


def bought(home: Path) -> Bought:
    """Read a requester's home."""
    with journal(home) as reader:
        rows = [records.unpack_facts(entry.body) for entry in reader.entries(records.RECEIPT_FACT)]
        events = [(lease, unpack_event(fact)) for lease, facts in rows for fact in facts]
        return Bought(
            tuple(accepted(home)),
            tuple((lease, event.statement.number) for lease, event in events if isinstance(event, RunAccepted)),
            tuple(receipts(home)),
        )


def sold(home: Path) -> list[ReceiptFacts]:
    """The countersigned receipts in a provider's home."""
    return receipts(home, records.RECEIPT_SETTLED)


def price_of(facts: Iterable[ReceiptFacts]) -> int:
    """The sum of the statements under these receipts, nanoton."""
    return sum(statement.price_nanoton for one in facts for statement in one.statements)


def paid_runs(found: Iterable[ReceiptFacts]) -> Counter[Run]:
    """How often each run stands under a receipt."""
    return Counter((facts.lease, statement.number) for facts in found for statement in facts.statements)


def check_receipts(requester: Path, providers: Sequence[Path], told: Set[str]) -> int:
    """No unit paid twice, none accepted and not paid, and both sides hold the same; returns runs paid without a unit.

    Args:
        providers: Homes of all that the requester ever bought from.
        told: Every receipt that the requester's client was told of, hex: its peer knows all of them.
    """
    left, right = bought(requester), [facts for home in providers for facts in sold(home)]
    assert told <= {facts.receipt.hex() for facts in left.receipts}, "a receipt was told and is not in the journal"
    paid = paid_runs(left.receipts)
    assert set(paid.values()) <= {1}, "a run is under two receipts"
    keys = [(unit.task, unit.unit, unit.slot) for unit in left.units]
    assert len(set(keys)) == len(keys), "a unit was accepted twice"
    units = {(unit.lease, unit.number) for unit in left.units}
    assert len(units) == len(keys), "one run answered two units"
    assert units <= set(left.accepted), "a unit was accepted whose statement is in no account"
    assert set(left.accepted) == set(paid), f"unpaid: {len(set(left.accepted) - set(paid))}"
    assert {facts.receipt for facts in left.receipts} == {facts.receipt for facts in right}, (
        f"{len(left.receipts)} receipts bought, {len(right)} sold"
    )
    return len(set(paid) - units)


@dataclass(frozen=True, slots=True)
class Intention:
    """One message that the wallet meant to send."""

    key: bytes
    message: Outgoing
    ends: tuple[str, ...]


def intentions(home: Path) -> list[Intention]:
    """Every place of the outbox, joined by name; each with how its tries ended."""
    found: dict[bytes, tuple[Outgoing, list[str]]] = {}
    with journal(home) as reader:
        for entry in reader.entries(rows.OUTBOX_QUEUED):
            queued = QueuedRow.unpack(entry.body)
            ended = reader.find(rows.ended_key(queued.place))
            end = "open" if ended is None else _end(EndedRow.unpack(ended.body))
            found.setdefault(queued.key, (queued.message, []))[1].append(end)
    return [Intention(key, message, tuple(ends)) for key, (message, ends) in found.items()]


def _end(row: EndedRow) -> str:
    return "sent" if isinstance(row.outcome, Sent) else row.outcome.code


def check_settlement(provider: Path, settled: Sequence[Mapping[str, Any]], earned: Mapping[str, Any]) -> None:
    """Everything sold is paid, or lies in a lane that ends by its expiry.

    Args:
        settled: What the requester and the provider answered when they closed their books.
        earned: What the provider says that it earned.
    """
    assert all(answer["unsettled_leases"] == answer["lanes_open"] == 0 for answer in settled), settled
    assert earned["lost_nanoton"] == 0, earned
    assert earned["claimed_nanoton"] + earned["pending_nanoton"] == price_of(sold(provider)), earned
    waiting = sum(answer["lanes_waiting"] for answer in settled)
    assert waiting or not earned["pending_nanoton"], f"{earned} and no lane waits for its expiry"


def check_wallet(home: Path, wallet: bytes) -> list[bytes]:
    """The wallet has one transaction for each intention; returns who refused one of them."""
    # A lane that expired meanwhile may be pruned just now: the chain is read between two looks at the journal.
    sent_before = {one.key: one.ends.count("sent") for one in intentions(home)}
    everything = transactions(home, wallet)
    sent = [tx for tx in everything if tx.in_source is None]
    wanted = intentions(home)
    for one in wanted:
        carried = sum(_carries(tx, one.message) for tx in sent)
        assert one.ends.count("sent") + one.ends.count("open") <= 1, one
        least, most = sent_before.get(one.key, 0), one.ends.count("sent") + one.ends.count("open")
        assert least <= carried <= most, f"{one.key[:24]!r} was carried {carried} times: {one.ends}"
    assert len(sent) <= sum(one.ends.count("sent") + one.ends.count("open") for one in wanted), "unintended"
    return [tx.in_source for tx in everything if tx.in_bounced and tx.in_source is not None]


def check_refused_claims(home: Path, refused: Sequence[bytes]) -> None:
    """A claim may come behind a close that paid the same voucher; nothing else of a provider is refused."""
    claims = sum(one.key.startswith(b"claim:") for one in intentions(home))
    assert len(refused) <= claims, f"{len(refused)} of {claims} claims were refused"
    assert set(refused) <= {facts.escrow for facts in sold(home)}, "somebody else than an escrow refused a message"


def _carries(tx: Transaction, message: Outgoing) -> bool:
    body = (message.body or Cell(0, 0)).hash()
    wanted = (message.dest, message.value_nanoton, body)
    return any((out.dest, out.value_nanoton, out.body.hash()) == wanted for out in tx.outs)
