"""The accounts (LAN-30): they do not hold up the links of their peer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from cocoon.node import accounts, records
from cocoon.node.accounts import Accounts
from tests.unit.node.scripted import Memory

RECEIPTS = 150


async def test_an_audit_lets_others_work_between_two_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    journal, turns, seen = Memory(), [0], []

    async def work() -> None:
        while True:
            turns[0] += 1
            await trio.lowlevel.checkpoint()

    def verify(record: bytes) -> SimpleNamespace:
        seen.append(turns[0])
        return SimpleNamespace(escrow=b"", lane=1, number=record)

    monkeypatch.setattr(accounts, "verify_record", verify)
    for number in range(RECEIPTS):
        await journal.append(records.RECEIPT_SETTLED, b"%d" % number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        books = Accounts(*[None] * 2, journal, *[None] * 5)  # type: ignore[arg-type]
        found = await books._receipts(records.RECEIPT_SETTLED)
        nursery.cancel_scope.cancel()
    assert [facts.number for facts in found[b"", 1]] == [b"%d" % number for number in range(RECEIPTS)]
    # trio runs the tasks of one round in any order, so another one has its turn with every second receipt at least.
    assert all(later > sooner for sooner, later in zip(seen, seen[2:], strict=False)), "three without a pause"


async def test_a_receipt_that_comes_during_an_audit_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Memory()

    def verify(record: bytes) -> SimpleNamespace:
        return SimpleNamespace(escrow=b"", lane=1, number=record)

    async def one_more() -> None:
        await journal.append(records.RECEIPT_SETTLED, b"late")

    monkeypatch.setattr(accounts, "verify_record", verify)
    for number in range(3):
        await journal.append(records.RECEIPT_SETTLED, b"%d" % number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_more)
        books = Accounts(*[None] * 2, journal, *[None] * 5)  # type: ignore[arg-type]
        found = await books._receipts(records.RECEIPT_SETTLED)
    assert [facts.number for facts in found[b"", 1]][-1] == b"late"


@pytest.mark.parametrize(("looks", "clean", "read"), [
    ([True], True, 1), ([False, True], True, 2), ([False, False, True], True, 3),
    ([False, False, False, True], False, 3),
])
async def test_what_moved_between_two_readings_is_no_difference(
    looks: list[bool], clean: bool, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    books, begun = Accounts(*[None] * 8), list(looks)  # type: ignore[arg-type]

    async def audited(self: Accounts) -> dict[str, object]:
        return {"clean": begun.pop(0)}

    monkeypatch.setattr(Accounts, "_audited", audited)
    assert (await books.audit())["clean"] is clean
    assert len(looks) - len(begun) == read
