"""Log lines: what appears, what never does, and what a bad line costs."""

from __future__ import annotations

import io
import json
import os
import stat

import pytest

from cocoon.core.errors import Corrupt, StorageFull, UsageError
from cocoon.core.ids import peer_id
from cocoon.telemetry import log as log_module
from cocoon.telemetry.log import counters, describe, frames, get_logger, hide
from cocoon.telemetry.service import open_log

KEY = bytes(range(32))


class Written(io.StringIO):
    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def written():
    stream = Written()
    with open_log(level="info", stream=stream):
        yield stream


@pytest.fixture
def secrets(monkeypatch):
    monkeypatch.setattr(log_module, "_secrets", [])


def test_a_line_is_one_json_object_with_time_level_name_and_event(written):
    get_logger("p2p").info("peer_connected", peer=KEY, count=3, inbound=True, code="ok")
    (record,) = written.records()
    assert str(record.pop("at_utc")).endswith("Z")
    assert record == {
        "level": "info", "logger": "p2p", "event": "peer_connected",
        "peer": "000102030405", "count": 3, "inbound": True, "code": "ok",
    }  # fmt: skip


@pytest.mark.parametrize(
    "field",
    [
        {"inputs": b"secret"},
        {"note": "unlisted"},
        {"peer": "text where bytes belong"},
        {"peer": bytes(3)},
        {"peer": bytes(65)},
        {"count": True},
        {"count": 1.5},
        {"count": 10**20},
        {"text": b"bytes where text belongs"},
        {"code": "not a\ncode"},
        {"low": 1},
        {"event_": "x"},
    ],
)
def test_what_is_not_listed_with_its_type_is_dropped_and_counted(written, field):
    before = counters.snapshot().get("log_fields_dropped", 0)
    get_logger("x").info("something", **field)
    (record,) = written.records()
    assert set(record) == {"at_utc", "level", "logger", "event"}
    assert counters.snapshot()["log_fields_dropped"] == before + 1


def test_in_tests_a_dropped_field_is_an_error():
    with open_log(stream=io.StringIO(), strict=True):
        with pytest.raises(UsageError, match="'note'"):
            get_logger("x").info("something", note="x")
        with pytest.raises(UsageError, match="event"):
            get_logger("x").info(f"built from {KEY!r}")


def test_requester_and_task_never_meet_in_one_record(written):
    """Also when one of them was bound long before."""
    log = get_logger("x").bind(requester=KEY)
    log.info("lease_opened", task=KEY[::-1], lease=KEY)
    get_logger("x").bind(task=KEY).info("task_done", requester=KEY)
    log.info("lease_closed")
    first, second, third = written.records()
    assert not {"requester", "task"} & (set(first) | set(second))
    assert first["lease"] == third["requester"] == "000102030405"


def test_text_is_clipped_and_its_control_characters_are_escaped(written):
    get_logger("x").info("said", text="\x1b[31mred\nline\u202e\u2028\x9b" + "a b " * 200)
    (record,) = written.records()
    text = str(record["text"])
    assert len(text) == 256 and text.endswith("...")
    assert text.startswith(r"\x1b[31mred\nline\u202e\u2028\x9b")
    assert len(written.getvalue().splitlines()) == 1


def test_what_looks_like_a_key_in_a_text_is_cut_short(written):
    get_logger("x").info("said", text=f"{KEY.hex()} {KEY!r} {'A' * 30}=")
    (record,) = written.records()
    assert record["text"] == "000102030405... b'...' AAAAAAAAAAAA..."


def test_words_paths_and_peer_ids_stay_readable(written):
    peer = peer_id(KEY)
    text = f"the job's file /var/lib/cocoon/models/cache/index.db of {peer} is gone, that's all"
    get_logger("x").info("said", text=text, address=f"/ip4/127.0.0.1/tcp/4001/p2p/{peer}")
    (record,) = written.records()
    assert record["text"] == text
    assert record["address"] == f"/ip4/127.0.0.1/tcp/4001/p2p/{peer}"


def test_base64_with_slashes_is_cut_although_paths_are_not(written):
    get_logger("x").info("said", text="token q8Zx/Yw9+Aa/7Bbk/CcD3dEe/F5f6Gg== used")
    assert written.records()[0]["text"] == "token q8Zx/Yw9+Aa/... used"


def test_a_registered_secret_is_hidden_in_every_spelling(written, secrets):
    hide(b"correct horse battery")
    hide(b"short")
    for text in ("a correct horse battery b", b"correct horse battery".hex()):
        get_logger("x").info("said", text=text, address=f"/home/{text}")
    for record in written.records():
        assert "horse" not in json.dumps(record) and b"horse".hex() not in json.dumps(record)
    get_logger("x").info("said", text="short words stay")
    assert written.records()[-1]["text"] == "short words stay"


def test_secrets_are_bounded(secrets):
    for number in range(log_module.SECRETS):
        hide(number.to_bytes(8, "big"))
    hide((0).to_bytes(8, "big"))
    with pytest.raises(UsageError):
        hide(b"one more secret")


def test_levels_below_the_wanted_one_are_not_written(written):
    log = get_logger("x")
    log.debug("quiet")
    log.warning("loud")
    log.error("louder")
    assert [r["event"] for r in written.records()] == ["loud", "louder"]


def raising(error: BaseException) -> BaseException:
    """The error as it looks after it was raised through a frame with a local secret."""
    try:
        marked_secret = "marked-secret-local"
        raise error
    except BaseException as caught:
        del marked_secret
        return caught


def test_our_exceptions_are_code_text_and_remedy(written):
    get_logger("x").failure("append_failed", raising(StorageFull("no room for 5 bytes")), count=5)
    (record,) = written.records()
    assert (record["level"], record["code"], record["text"]) == (
        "warning",
        "storage_full",
        "no room for 5 bytes",
    )
    assert "trace" not in record and record["remedy"]


def test_foreign_exceptions_show_their_type_and_place_only(written):
    """Their text may quote data: KeyError shows the key, numpy shows values."""
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [raising(KeyError("marked-secret"))])])
    get_logger("x").failure("task_failed", group)
    (record,) = written.records()
    assert (record["level"], record["code"], record["text"]) == ("error", "defect", "KeyError")
    assert "test_log.py:" in str(record["trace"])
    assert "marked" not in written.getvalue()


@pytest.mark.parametrize("error", [KeyError("marked-secret"), repr(KeyError("marked-secret"))])
def test_an_error_field_shows_the_type_only(written, error):
    get_logger("x").info("p2p.handler_failed", error=error)
    assert written.records()[0]["error"] == "KeyError"
    assert written.records()[0]["event"] == "p2p.handler_failed"
    get_logger("x").info("p2p.handler_failed", error="marked-secret")
    assert "marked" not in written.getvalue()


def test_our_exceptions_show_their_place_only_at_level_debug_and_without_locals_or_source():
    stream = Written()
    with open_log(level="debug", stream=stream):
        get_logger("x").failure("task_failed", raising(Corrupt("a row is short")))
    (record,) = stream.records()
    assert "test_log.py:" in str(record["trace"]) and "in" not in str(record["trace"]).split()
    assert "marked" not in stream.getvalue()


def test_describe_and_frames_survive_an_exception_that_was_never_raised():
    assert describe(Corrupt("x"))["code"] == "corrupt"
    assert frames(Corrupt("x")) == ""


def test_without_a_sink_lines_are_counted_and_thrown_away(capfd):
    before = counters.snapshot().get("log_lines_without_sink", 0)
    get_logger("x").info("nobody_listens")
    assert counters.snapshot()["log_lines_without_sink"] == before + 1
    assert capfd.readouterr() == ("", "")


def test_the_file_is_private_and_rotated_by_size(tmp_path):
    old = os.umask(0)
    try:
        with open_log(home=tmp_path, max_bytes=2_000, files=2):
            for number in range(100):
                get_logger("x").info("counted", number=number)
    finally:
        os.umask(old)
    found = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert found == ["peer.jsonl", "peer.jsonl.1", "peer.jsonl.2"]
    for path in (tmp_path / "log").iterdir():
        assert path.stat().st_size <= 2_000
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
    assert json.loads((tmp_path / "log" / "peer.jsonl").read_text().splitlines()[-1])["number"] == 99


def test_a_log_that_cannot_be_written_is_counted_and_does_not_raise():
    """/dev/full answers every write with ENOSPC."""
    before = counters.snapshot().get("log_lines_lost", 0)
    stream = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    with open_log(stream=stream):
        get_logger("x").info("lost")
    assert counters.snapshot()["log_lines_lost"] == before + 1


@pytest.mark.parametrize("options", [{}, {"level": "loud", "stream": io.StringIO()}])
def test_open_log_refuses_an_impossible_call(options):
    with pytest.raises(UsageError), open_log(**options):
        pass
