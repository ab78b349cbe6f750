"""Receipt records through the client: fetched, shown, written, verified offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cocoon.core.errors import LimitExceeded, Malformed, NotFound, UsageError, WrongField
from cocoon.core.limits import EXPORT_BYTES
from cocoon.sdk import connect
from cocoon.sdk.records import load_record, save_record, verify_record
from tests.control_server import Talk, serving
from tests.unit.ledger.parties import BIRTH
from tests.unit.ledger.test_record import settled

RECORD = settled(3).pack()


def giving(record: Any) -> Any:
    """A peer that answers every question with this record."""

    def script(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.send({"done": {"record": record}})

    return script


def test_a_true_record_is_shown_with_its_lines(home: Path) -> None:
    digest = verify_record(RECORD)["receipt"]
    with serving(home, giving(RECORD)) as server:
        shown = connect(home).receipt(digest)
        assert server.requests == [("receipts_show", {"hash": digest})]
    assert shown["receipt"] == digest and shown["runs"] == len(shown["lines"]) == 3
    assert shown["provider"].startswith("12D3KooW") and shown["requester"].startswith("12D3KooW")
    assert all(len(line["output_hash"]) == 64 for line in shown["lines"])


def test_a_record_says_which_lane_pays_it_and_what_that_lane_has_cost() -> None:
    paid = verify_record(settled(2, paid=True).pack())
    assert paid["escrow"] == BIRTH.address().hex() and paid["lane"] > 0 and paid["total_nanoton"] > 0
    free = verify_record(RECORD)
    assert free["escrow"] == "00" * 32 and free["lane"] == 0


def test_another_receipt_than_the_asked_one_is_refused(home: Path) -> None:
    with serving(home, giving(RECORD)), pytest.raises(WrongField, match="not of 0000"):
        connect(home).receipt("00" * 32)


@pytest.mark.parametrize("record", [b"", b"\x90", RECORD + b"\0", RECORD[:-1]])
def test_a_damaged_record_is_refused(home: Path, record: bytes) -> None:
    with serving(home, giving(record)), pytest.raises(Malformed):
        connect(home).receipt("00" * 32)


@pytest.mark.parametrize("record", ["text", 5, [RECORD]])
def test_a_record_that_is_no_bytes_is_refused(home: Path, record: Any) -> None:
    with serving(home, giving(record)), pytest.raises(Malformed):
        connect(home).record("00" * 32)


def test_a_record_file_needs_no_peer(tmp_path: Path) -> None:
    save_record(tmp_path / "r", RECORD)
    assert load_record(tmp_path / "r") == RECORD
    with pytest.raises(UsageError, match="exists"):
        save_record(tmp_path / "r", b"")
    save_record(tmp_path / "r", b"new", overwrite=True)
    assert load_record(tmp_path / "r") == b"new"


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(EXPORT_BYTES + 1))
    with pytest.raises(LimitExceeded):
        load_record(tmp_path / "long")
    for missing in ("nothing", "."):
        with pytest.raises(NotFound):
            load_record(tmp_path / missing)
