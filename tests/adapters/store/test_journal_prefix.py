"""Looking up records by the beginning of their unique key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.core.errors import Corrupt
from cocoon.store.service import Row, open_journal
from tests.adapters.store.test_journal import SMALL, edit

COUNT = 200


async def keys_under(path: Path, prefix: bytes) -> list[bytes]:
    async with open_journal(path, lambda: 0, room=SMALL) as journal:
        return [entry.unique or b"" for entry in journal.under(prefix)]


async def fill(path: Path) -> None:
    """Keys of two owners, written out of order, and records without a key between them."""
    async with open_journal(path, lambda: 0, room=SMALL) as journal:
        for index in reversed(range(COUNT)):
            key = index.to_bytes(2, "big")
            await journal.append_many([Row("run", b"", b"a" + key), Row("run", b"", b"b\xff" + key), Row("note", b"")])


async def test_records_come_by_ascending_key_over_all_pages_and_no_others(tmp_path: Path) -> None:
    await fill(tmp_path / "journal.db")
    assert await keys_under(tmp_path / "journal.db", b"a") == [b"a" + i.to_bytes(2, "big") for i in range(COUNT)]
    assert len(await keys_under(tmp_path / "journal.db", b"b\xff")) == COUNT
    assert await keys_under(tmp_path / "journal.db", b"c") == []


async def test_the_last_record_under_a_prefix_has_the_highest_key(tmp_path: Path) -> None:
    await fill(tmp_path / "journal.db")
    async with open_journal(tmp_path / "journal.db", lambda: 0, room=SMALL) as journal:
        for prefix in (b"a", b"b", b"b\xff"):
            last = journal.last_under(prefix)
            assert last is not None and last.unique == max(entry.unique or b"" for entry in journal.under(prefix))
        assert journal.last_under(b"c") is None


async def test_an_edited_record_is_not_handed_out(tmp_path: Path) -> None:
    await fill(tmp_path / "journal.db")
    edit(tmp_path / "journal.db", "UPDATE entries SET body = x'01' WHERE unique_key = x'610000'")
    with pytest.raises(Corrupt):
        await keys_under(tmp_path / "journal.db", b"a")
