"""Receipts against answers: every output that was used must be under a signed receipt.

The SDK checks signatures and hashes of a receipt's record in this process,
which is none of the peers; what is compared here is that the answers we
received are the ones that the provider signed.

Purity: shell (asks the local peer for the records).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cocoon.core.errors import PeerFault, wrong
from cocoon.demo.cases import Case
from cocoon.sdk import Client, Result


def find_receipts(client: Client, cases: Sequence[Case]) -> None:
    """Give the answers that had no receipt when their task ended the one that they have now.

    Those are the last answers of a provider that died: it signs for them when it is back.
    """
    late = {
        (case.result.lease, case.result.number): case.result
        for case in cases if case.result is not None and case.result.receipt is None
    }
    for listed in client.receipts() if late else ():
        facts = client.receipt(listed["hash"])
        for line in facts["lines"]:
            if (result := late.get((facts["lease"], line["number"]))) is not None:
                result.receipt = listed["hash"]


def verify_answers(client: Client, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Check the receipts of all ``cases``; what each receipt proves, in their order.

    Raises:
        PeerFault: an answer without receipt.
        BadSignature, WrongField: a receipt that does not hold, or holds another answer.
    """
    by_receipt: dict[str, list[Result]] = {}
    for case in cases:
        if case.result is None or case.result.receipt is None:
            raise PeerFault(f"the answer for {case.path!r} is under no receipt")
        by_receipt.setdefault(case.result.receipt, []).append(case.result)
    found = [_verify(client, receipt, results) for receipt, results in by_receipt.items()]
    return sorted(found, key=lambda facts: (int(facts["lane"]), int(facts["seq"])))


def promised_nanoton(receipts: Iterable[Mapping[str, Any]]) -> int:
    """What the vouchers of ``receipts`` promise together.

    A total is that of the whole lane up to its receipt, whatever leases the lane has had: the highest one counts.
    """
    totals: dict[tuple[str, int], int] = {}
    for facts in receipts:
        lane = facts["escrow"], facts["lane"]
        totals[lane] = max(totals.get(lane, 0), facts["total_nanoton"])
    return sum(totals.values())


def _verify(client: Client, receipt: str, results: Sequence[Result]) -> dict[str, Any]:
    facts = client.receipt(receipt)
    lines = {line["number"]: line for line in facts["lines"]}
    for result in results:
        if facts["provider"] != result.provider or facts["lease"] != result.lease:
            raise wrong("lease", f"receipt {receipt} is of another lease than run {result.number}")
        line = lines.get(result.number)
        if line is None:
            raise wrong("number", f"receipt {receipt} does not hold run {result.number}")
        if (line["input_hash"], line["output_hash"]) != (result.input_hash, result.output_hash):
            raise wrong("output", f"receipt {receipt} holds another answer for run {result.number}")
        if line["price_nanoton"] != result.price_nanoton:
            raise wrong("price", f"receipt {receipt} holds another price for run {result.number}")
    return facts
