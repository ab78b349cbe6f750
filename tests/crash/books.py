"""What two journals and the chain say of each other: the assertions of every case of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from cocoon.config.service import read_network
from cocoon.ledger import rows
from cocoon.ledger.chain import open_chain
from cocoon.ledger.events import RunAccepted
from cocoon.ledger.journal import unpack_event
from cocoon.ledger.onchain import Transaction
from cocoon.ledger.rows import EndedRow, QueuedRow, Sent
from cocoon.ledger.verify import ReceiptFacts, verify_record
from cocoon.ledger.wallet import Outgoing
from cocoon.node import records
from cocoon.node.clock import MonotonicClock
from cocoon.store.reader import Reader, open_reader
from cocoon.store.service import JOURNAL_FILE
from cocoon.wire.cells import Cell

Run = tuple[bytes, int]


@contextmanager
def journal(home: Path) -> Iterator[Reader]:
    """The journal of a home, whether its peer lives or not."""
    with open_reader(home / JOURNAL_FILE) as reader:
        yield reader


@dataclass(frozen=True, slots=True)
class Bought:
    """What the requester's journal says: what it owes, and what it promised."""

    units: tuple[records.UnitAccepted, ...]
    accepted: tuple[Run, ...]
    receipts: tuple[ReceiptFacts, ...]


def bought(home: Path) -> Bought:
    """Read a requester's home."""
    with journal(home) as reader:
        facts = [records.unpack_fact(entry.body) for entry in reader.entries(records.RECEIPT_FACT)]
        events = [(lease, unpack_event(body)) for lease, body in facts]
        return Bought(
            tuple(records.UnitAccepted.unpack(entry.body) for entry in reader.entries(records.UNIT_ACCEPTED)),
            tuple((lease, event.statement.number) for lease, event in events if isinstance(event, RunAccepted)),
            tuple(verify_record(entry.body) for entry in reader.entries(records.RECEIPT_ACCEPTED)),
        )


def sold(home: Path) -> tuple[ReceiptFacts, ...]:
    """The countersigned receipts in a provider's home."""
    with journal(home) as reader:
        return tuple(verify_record(entry.body) for entry in reader.entries(records.RECEIPT_SETTLED))


def paid_runs(receipts: tuple[ReceiptFacts, ...]) -> Counter[Run]:
    """How often each run stands under a receipt."""
    return Counter((facts.lease, statement.number) for facts in receipts for statement in facts.statements)


def check_receipts(requester: Path, provider: Path) -> int:
    """No unit paid twice, none accepted and not paid, and both hold the same receipts; runs paid without a unit."""
    left, right = bought(requester), sold(provider)
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


def check_wallet(home: Path, wallet: bytes) -> int:
    """The wallet has one transaction for each intention; returns how many of them their receiver refused."""
    everything = wallet_transactions(home, wallet)
    transactions = [tx for tx in everything if tx.in_source is None]
    wanted = intentions(home)
    for one in wanted:
        carried = sum(_carries(tx, one.message) for tx in transactions)
        assert one.ends.count("sent") + one.ends.count("open") <= 1, one
        # A lane that expired meanwhile may be pruned just now.
        least, most = one.ends.count("sent"), one.ends.count("sent") + one.ends.count("open")
        assert least <= carried <= most, f"{one.key[:24]!r} was carried {carried} times: {one.ends}"
    assert len(transactions) <= sum(one.ends.count("sent") + one.ends.count("open") for one in wanted), "unintended"
    return sum(tx.in_bounced for tx in everything)


def _carries(tx: Transaction, message: Outgoing) -> bool:
    body = (message.body or Cell(0, 0)).hash()
    wanted = (message.dest, message.value_nanoton, body)
    return any((out.dest, out.value_nanoton, out.body.hash()) == wanted for out in tx.outs)


def wallet_transactions(home: Path, wallet: bytes) -> list[Transaction]:
    """All transactions of an account, from the liteserver of the home's network."""
    network = read_network(home)
    assert network is not None and network.chain is not None
    facts, liteservers = network.chain, network.liteservers

    async def read() -> list[Transaction]:
        async with open_chain(facts, liteservers, MonotonicClock()) as chain:
            return await chain.transactions(wallet, 0, 1_024)

    return trio.run(read)
