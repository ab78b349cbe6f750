"""status, offers, receipts, models, doctor, config."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from cocoon.core.ids import peer_id
from cocoon.sdk.records import verify_record
from tests.control_server import PROVIDER, Script, Talk, honest, receipt_hash, serving
from tests.unit.cli.conftest import Command
from tests.unit.ledger.test_record import settled

RECORD = settled(3).pack()
DIGEST = verify_record(RECORD)["receipt"]


def with_record(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """Holds one receipt."""
    if verb in ("receipts_show", "receipts_export") and args == {"hash": DIGEST}:
        talk.send({"done": {"record" if verb == "receipts_show" else "export": RECORD}})
    else:
        honest(talk, verb, args)


def telling(**status: Any) -> Script:
    """A peer with this status."""
    return lambda talk, verb, args: talk.send({"done": {"peer": PROVIDER, **status}})


def test_lists_are_tables_for_people_and_objects_for_programs(command: Command, home: Path) -> None:
    with serving(home):
        said = command("offers")
        assert said.out.splitlines() == ["provider\tsetup_nanoton", f"{peer_id(PROVIDER)}\t0"]
        assert command("offers", "--json").objects == [
            {"provider": peer_id(PROVIDER), "setup_nanoton": 0}, {"summary": {"offers": 1}}
        ]
        assert receipt_hash(0).hex() in command("receipts", "ls").out
        assert "no models" in command("models", "ls").out
        assert command("models", "ls", "--json").objects == [{"summary": {"models": 0}}]
        assert f"peer         {peer_id(PROVIDER)}" in command("status").out
        assert command("stop", "--json").objects == [{"summary": {"stopping": True}}]


def test_a_model_is_added_and_its_id_printed(command: Command, home: Path, files: Path) -> None:
    with serving(home) as server:
        said = command("models", "add", "model.onnx", "--public", "--json")
    assert said.code == 0 and len(said.objects[-1]["summary"]["model"]) == 64
    assert server.requests == [("models_add", {"path": str(files / "model.onnx"), "public": True})]


def test_the_commands_of_models_tell_what_the_peer_told(command: Command, home: Path) -> None:
    with serving(home):
        told = command("models", "inspect", "mine").out
        assert "licence  MIT" in told and "inputs   x float32 (n, 3)" in told
        assert f"model.onnx\t5\t{'00' * 32}" in told
        assert "size_bytes" in command("models", "pull", "mine").out
        assert command("models", "rm", "mine", "--json").objects[-1]["summary"]["removed"] is True
        assert command("models", "alias").out.splitlines() == ["name\tmodel", f"mine\t{'00' * 32}"]
        assert command("models", "alias", "mine").code == 2


def test_a_receipt_is_shown_written_and_verified_without_a_peer(
    command: Command, home: Path, tmp_path: Path
) -> None:
    with serving(home, with_record):
        assert command("receipts", "verify", DIGEST).code == 0
        said = command("receipts", "show", DIGEST, "--output", "r.cocoon")
        assert said.code == 0 and DIGEST in said.out and "output_hash" in said.out
        assert command("receipts", "show", DIGEST, "--output", "r.cocoon").code == 2
        assert command("receipts", "show", "00" * 32).code == 18
    said = command("receipts", "verify", "r.cocoon", "r.cocoon", "--json")
    assert said.code == 0
    assert said.objects[0]["verified"] is True and said.objects[0]["receipt"] == DIGEST
    assert said.objects[-1]["summary"] == {"verified": True, "receipts": 2, "runs": 6}


@pytest.mark.parametrize("at", [10, 200, len(RECORD) // 2, len(RECORD) - 1])
def test_a_changed_receipt_does_not_verify(command: Command, tmp_path: Path, at: int) -> None:
    (tmp_path / "r").write_bytes(RECORD[:at] + bytes([RECORD[at] ^ 1]) + RECORD[at + 1 :])
    said = command("receipts", "verify", "r", "--json")
    assert said.code == 5 and "error" in said.objects[-1]


def test_doctor_without_a_peer_warns_and_passes(command: Command, home: Path) -> None:
    said = command("doctor", "--json")
    assert said.code == 0, said.err
    found = {item["check"]: item["state"] for item in said.objects[:-1]}
    assert (found["python"], found["home"], found["peer"], found["port"]) == ("ok", "warn", "warn", "ok")
    assert said.objects[-1]["summary"]["fail"] == 0 and not home.exists()


def test_doctor_asks_a_running_peer(command: Command, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as open_port:
        address = f"/ip4/127.0.0.1/tcp/{open_port.getsockname()[1]}/p2p/{peer_id(PROVIDER)}"
        device = {"provider": "CPUExecutionProvider", "engine": "onnxruntime"}
        with serving(home, telling(addresses=[address], connections=2, sells=True, device=device)):
            said = command("doctor", "--json")
    found = {item["check"]: (item["state"], item["text"]) for item in said.objects[:-1]}
    assert said.code == 0
    assert found["home"][0] == "ok" and found["peer"][0] == "ok"
    assert found["port"] == ("ok", f"answers: {address}") and found["peers"] == ("ok", "connected to 2")
    assert "CPUExecutionProvider" in found["device"][1]


def test_doctor_finds_what_is_wrong(command: Command, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
    with serving(home, telling(addresses=[closed], connections=0, sells=True, device={"engine": "x"})):
        said = command("doctor")
    assert said.code == 3
    assert "fail  port" in said.out and "warn  peers" in said.out and "fail  device" in said.out
    home.chmod(0o755)
    said = command("doctor", "--json")
    assert said.code == 15 and said.objects[-1]["error"]["code"] == "lax_permissions"
    home.chmod(0o700)
    assert command("doctor", COCOON_THREADS="many").code == 16


def test_doctor_sees_a_taken_port(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = command("doctor", COCOON_LISTEN=f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}")
    assert said.code == 2 and "cannot be listened on" in said.out


def test_config_shows_each_value_and_its_origin(command: Command, home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text("threads = 3\n")
    said = command("config", "show", "--origin", "--json", COCOON_LOG_LEVEL="debug")
    rows = {row["name"]: row for row in said.objects[:-1]}
    assert said.code == 0
    assert rows["threads"]["value"] == 3 and rows["threads"]["origin"] == f"file {home}/config.toml:1"
    assert rows["log_level"]["origin"] == "env COCOON_LOG_LEVEL"
    assert rows["max_leases"]["origin"] == "default"
    assert "threads\t3\tfile" in command("config", "show", "--origin").out


def test_a_wrong_setting_is_told_with_its_place(command: Command, home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text("\nthread = 3\n")
    said = command("config", "show")
    assert said.code == 16 and "config.toml:2" in said.err and "threads" in said.err
