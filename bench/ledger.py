"""Figures of money: vouchers made durable, signatures checked, receipts anchored, what a first task costs.

Fees are those of the real TVM; nothing here is a model of it.

Purity: shell.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from bench.rows import ROOT, Row
from cocoon.core.units import NANOTON_PER_TON
from cocoon.ledger.anchoring import AnchorBatcher, AnchorSeen, SendAnchor
from cocoon.ledger.record import ReceiptRecord
from cocoon.ledger.till import TILL_FACTS, VoucherKept
from cocoon.ledger.verify import verify_record
from cocoon.node import records
from cocoon.node.clock import wall_ns
from cocoon.store.service import Row as JournalRow
from cocoon.store.service import open_journal
from cocoon.wire.judged import Voucher, verify_cell

VOUCHERS = 20_000
#: Leases whose vouchers reach the disk at the same time, one each.
LEASES = 256
#: Runs under one receipt of the demo's prices: half a tranche.
RUNS = 5
_CHECK_S = 1.0
ANCHORED = 10_000
GAS_PRICES = (400, 400 // 6)


def vouchers() -> list[Row]:
    """A settled receipt and its voucher as a provider journals them; then both signatures' checks."""
    record = _record()
    words = record.words
    voucher, signature = Voucher.unpack(words.voucher), words.signature
    terms = verify_record(record)
    kept = TILL_FACTS.pack(VoucherKept(terms.escrow, terms.lane, words.voucher, signature))
    per_s = trio.run(_durable, record.pack(), kept)
    key = _lane_key()
    return [
        Row(f"durable vouchers, {LEASES} leases, group commit", f"{per_s:,.0f}/s", "5,000/s"),
        Row("voucher checked", f"{_rate(lambda: verify_cell(voucher.hash(), key, signature)):,.0f}/s"),
        Row(f"receipt of {RUNS} runs checked, whole record", f"{_rate(lambda: verify_record(record.pack())):,.0f}/s"),
    ]


async def _durable(settled: bytes, kept: bytes) -> float:
    """Vouchers a second: each its receipt's record and its own row, acknowledged when both are on disk."""
    with tempfile.TemporaryDirectory(prefix="cocoon-bench-", dir=ROOT / "build") as folder:
        async with open_journal(Path(folder) / "journal.db", wall_ns) as journal:

            async def lease(number: int) -> None:
                for seq in range(VOUCHERS // LEASES):
                    unique = records.settled_key(number.to_bytes(16, "big") + seq.to_bytes(16, "big"))
                    await journal.append_many([
                        JournalRow(records.RECEIPT_SETTLED, settled, unique), JournalRow(records.TILL_FACT, kept),
                    ])

            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(LEASES):
                    nursery.start_soon(lease, number)
            return VOUCHERS // LEASES * LEASES / (time.perf_counter() - began)


def anchor() -> list[Row]:
    """Ten thousand receipts under one root: the batcher's work, and what the transaction costs."""
    from tests.tvm.chain import GAS_PRICE
    from tests.tvm.gas import anchor_rows

    receipts = [number.to_bytes(32, "big") for number in range(ANCHORED)]
    batcher = AnchorBatcher()
    batcher.restore(0, receipts, [])                    # type: ignore[arg-type]
    began = time.perf_counter()
    (order,) = batcher.handle(0, AnchorSeen(None))
    took_ms = (time.perf_counter() - began) * 1e3
    assert isinstance(order, SendAnchor) and order.ordered.count == ANCHORED
    (steady,) = [row for row in anchor_rows() if row.what == "anchor, number 17"]
    burnt = steady.result.burnt
    return [
        Row(f"anchor of {ANCHORED:,} receipts, one transaction", f"{burnt / NANOTON_PER_TON:.5f} TON"),
        Row(f"  for each, at {GAS_PRICE} nanoton per gas", f"{burnt / ANCHORED:,.0f} nanoton"),
        Row("  their Merkle root", f"{took_ms:.0f} ms"),
    ]


def first_task() -> list[Row]:
    """What leaves both parties for good, deposits and reserve apart, at both prices of gas."""
    from tests.tvm.first_task import first_task as priced

    rows = []
    for price, goal in zip(GAS_PRICES, ("0.045 TON", "0.008 TON"), strict=True):
        bill = priced(price)
        rows.append(Row(f"first task, {price} nanoton per gas", f"{bill.total / NANOTON_PER_TON:.4f} TON", goal))
        rows += [Row(f"  {what}", f"{cost / NANOTON_PER_TON:.4f} TON") for what, cost in bill.lines.items()]
    return rows


def demo() -> list[Row]:
    """`cocoon demo` with everything installed: peers, chain, work, settlement, end."""
    command = [str(ROOT / ".venv" / "bin" / "cocoon"), "demo", "--json"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr, cwd=ROOT)
    return [Row("cocoon demo, installed", f"{time.perf_counter() - began:.1f} s", "180 s with the installation")]


def _rate(work: Callable[[], object]) -> float:
    """How often a second ``work`` is done on one core."""
    done, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < _CHECK_S:
        work()
        done += 1
    return done / took


def _record() -> ReceiptRecord:
    """A receipt of a paid lane with its countersignature."""
    from tests.unit.ledger import parties

    seller, buyer = parties.issuer(paid=True), parties.verifier(paid=True)
    parties.deliver(seller, buyer, RUNS)
    promise = parties.settle(seller, buyer, parties.close(seller, buyer))
    return parties.record_of(promise.statements, promise, paid=True)


def _lane_key() -> bytes:
    from tests.unit.ledger.parties import LANE_OWNER

    return LANE_OWNER.key
