"""LEA-17: what is owed for a result is recorded before, or together with, whatever rests on it, or neither is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cocoon.core.errors import Duplicate, StorageFull
from cocoon.core.ids import LeaseId
from cocoon.ledger.events import TrancheClosed
from cocoon.ledger.tab import Head
from cocoon.node import records
from cocoon.node.tally import Tally
from cocoon.store.service import Journal, Row, open_journal
from cocoon.wire.schema import Message
from tests.unit.ledger import parties
from tests.unit.node.scripted import Clock, Memory

UNIT = Row(records.UNIT_ACCEPTED, b"a result that somebody is given")


@asynccontextmanager
async def tally_at(folder: Path, *, paid: bool) -> AsyncIterator[tuple[Tally, Journal, list[Message]]]:
    """A tally on a real journal, and what it says to the provider."""
    said: list[Message] = []

    async def settled(*_: Any) -> None:
        """No receipt comes here."""

    async with open_journal(folder / "journal.db", time.time_ns) as journal:
        purse: Any = SimpleNamespace(clock=Clock(), journal=journal)
        yield Tally(purse, parties.lease(paid=paid), Head(), said.append, settled), journal, said


def facts_in(journal: Journal, tally: Tally) -> list[bytes]:
    found = [entry.body for entry in journal.under(records.facts_of(tally.id)) if entry.kind == records.RECEIPT_FACT]
    return [fact for body in found for fact in records.unpack_facts(body)[1]]


async def test_what_is_owed_is_in_the_journal_with_what_comes_after_it(tmp_path: Path) -> None:
    async with tally_at(tmp_path, paid=True) as (tally, journal, said):
        for count in (1, 2):
            tally.owe([tally.accept(parties.next_statement(tally.tab))])
            before = journal.unflushed
            tally.record([UNIT])
            assert len(facts_in(journal, tally)) == count == len(list(journal.entries(records.UNIT_ACCEPTED)))
            assert journal.unflushed == before + 1, "in one transaction, and the disk is not waited for"


async def test_nothing_is_said_to_the_provider_before_all_that_it_rests_on_is_durable(tmp_path: Path) -> None:
    async with tally_at(tmp_path, paid=True) as (tally, journal, said):
        tally.owe([tally.accept(parties.next_statement(tally.tab))])
        tally.record([UNIT])
        lease: Any = parties.lease(paid=True)
        unflushed = list[int]()
        tally._say = lambda message: unflushed.append(journal.unflushed)
        assert journal.unflushed
        await tally.tell(TrancheClosed(1), lease)
        assert unflushed == [0] and len(facts_in(journal, tally)) == 2


async def test_nothing_is_recorded_or_said_that_rests_on_what_could_not_be_recorded(tmp_path: Path) -> None:
    async with tally_at(tmp_path, paid=True) as (tally, journal, said):
        lease: Any = parties.lease(paid=True)
        await journal.append(records.RECEIPT_FACT, b"", records.fact_key(LeaseId(lease.digest), 1))
        tally.owe([tally.accept(parties.next_statement(tally.tab))])
        for _ in range(2):
            with pytest.raises(Duplicate):
                tally.record([UNIT])
        with pytest.raises(Duplicate):
            await tally.tell(TrancheClosed(1), lease)
        assert journal.verify() == 1 and said == []


async def test_what_a_full_disk_kept_out_is_recorded_with_what_comes_next(tmp_path: Path) -> None:
    async with tally_at(tmp_path, paid=True) as (tally, journal, said):
        tally._purse.journal = Memory(full=1)  # type: ignore[assignment]
        tally.owe([tally.accept(parties.next_statement(tally.tab))])
        with pytest.raises(StorageFull):
            tally.record([UNIT])
        tally._purse.journal = journal
        tally.owe([tally.accept(parties.next_statement(tally.tab))])
        tally.record([UNIT])
        assert len(facts_in(journal, tally)) == 2


async def test_a_free_lease_owes_nothing(tmp_path: Path) -> None:
    async with tally_at(tmp_path, paid=False) as (tally, journal, said):
        tally.owe([tally.accept(parties.next_statement(tally.tab))])
        tally.record([UNIT])
        assert journal.verify() == 1
