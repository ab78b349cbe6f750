"""``cocoon run``: outputs, files, JSON lines, partial failures."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cocoon.sdk import npz
from tests.control_server import Talk, result_of, serving
from tests.unit.cli.conftest import Command, environment

INPUTS = ("--input", "a.npz", "--input", "b.npz", "--input", "c.npz")


def second_fails(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """Of three units the second does not fit the model."""
    talk.event("credit", count=3)
    for _ in range(3):
        message = talk.unit()
        assert message is not None
        if message["unit"] == 1:
            talk.event("failed", unit=1, code="inputs_mismatch", text="x should be float32")
        else:
            talk.send(result_of(message["unit"], message["inputs"], number=message["unit"]))
    talk.send({"done": {"units": 3, "failed": 1}})


def test_one_run_writes_its_outputs_bit_by_bit(command: Command, home: Path, files: Path) -> None:
    with serving(home):
        said = command("run", "model.onnx", "--input", "b.npz", "--output", "out.npz")
    assert said.code == 0 and "b.npz -> out.npz" in said.out and "receipt " in said.out and said.err == ""
    read = npz.load(files / "out.npz")
    assert read["out_x"].tolist() == [[1, 1], [1, 1]] and read["out_x"].dtype == np.float16
    assert read["out_t"].tolist() == ["b\0"]


def test_several_runs_fill_a_directory_and_tell_each(command: Command, home: Path, files: Path) -> None:
    with serving(home):
        said = command("run", "model.onnx", *INPUTS, "--output", "new/out", "--json")
    assert said.code == 0
    *lines, last = said.objects
    assert [line["unit"] for line in lines] == [0, 1, 2]
    for line, name in zip(lines, "abc", strict=True):
        assert line["input"] == f"{name}.npz" and line["output"] == f"new/out/{name}.npz"
        assert line["outputs"]["out_x"]["dtype"] == "float16" and line["outputs"]["out_x"]["shape"] == [2, 2]
        assert line["outputs"]["out_t"]["dtype"] == "string"
        assert len(line["receipt"]) == 64 and line["provider"].startswith("12D3KooW")
        assert npz.load(files / line["output"])["out_t"].tolist() == [f"{name}\0"]
    assert last["summary"]["units"] == 3 and len(last["summary"]["receipts"]) == 1


def test_without_output_nothing_is_written(command: Command, home: Path, files: Path) -> None:
    before = sorted(os.listdir(files))
    with serving(home):
        said = command("run", "model.onnx", *INPUTS)
    assert said.code == 0 and said.out.count("shown only") == 3 and "out_x: float16 [2, 2]" in said.out
    assert sorted(os.listdir(files)) == sorted([*before, "home"])


def test_existing_outputs_are_replaced_only_with_force(command: Command, home: Path, files: Path) -> None:
    (files / "out").mkdir()
    (files / "out" / "b.npz").write_text("precious")
    with serving(home) as server:
        said = command("run", "model.onnx", *INPUTS, "--output", "out")
        assert said.code == 2 and "--force" in said.err and server.requests == []
        assert (files / "out" / "b.npz").read_text() == "precious"
        assert command("run", "model.onnx", *INPUTS, "--output", "out", "--force").code == 0
    assert npz.load(files / "out" / "b.npz")["out_t"].tolist() == ["b\0"]


@pytest.mark.parametrize(("arguments", "code"), [
    (("run", "missing.onnx", "--input", "a.npz"), 18),
    (("run", "model.onnx", "--input", "missing.npz"), 18),
    (("run", "model.onnx", "--input", "."), 18),
    (("run", "model.onnx", "--input", "model.onnx"), 31),
    (("run", "model.onnx", *INPUTS, "--output", "model.onnx"), 2),
    (("run", "model.onnx", "--input", "a.npz", "--output", "a.txt"), 2),
    (("run", "model.onnx", "--input", "a.npz", "--output", "no/where/a.npz"), 18),
    (("run", "model.onnx", "--input", "a.npz", "--input", "home/../a.npz", "--output", "out/"), 2),
    (("run", "model.onnx", "--input", "a.npz", "--deadline", "nan"), 2),
    (("run", "model.onnx", "--input", "a.npz", "--deadline", "-3"), 2),
])
def test_a_bad_call_is_refused_before_anything_is_paid(
    command: Command, home: Path, files: Path, arguments: tuple[str, ...], code: int
) -> None:
    with serving(home):
        said = command(*arguments)
    assert said.code == code and "error: " in said.err and "remedy: " in said.err


def test_a_failed_unit_does_not_take_the_others_with_it(command: Command, home: Path, files: Path) -> None:
    with serving(home, second_fails):
        said = command("run", "model.onnx", *INPUTS, "--output", "out", "--json")
    assert said.code == 23
    assert sorted(os.listdir(files / "out")) == ["a.npz", "c.npz"]
    assert said.objects[1]["error"]["code"] == "inputs_mismatch" and said.objects[1]["input"] == "b.npz"
    assert said.objects[-1]["error"]["code"] == "inputs_mismatch"
    assert said.objects[-1]["summary"]["failed"] == 1
    assert "b.npz: x should be float32" in said.err


def test_a_peer_that_dies_keeps_what_came_before(command: Command, home: Path, files: Path) -> None:
    def dies(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1)
        message = talk.unit()
        assert message is not None
        talk.send(result_of(0, message["inputs"], number=1))

    with serving(home, dies):
        said = command("run", "model.onnx", *INPUTS, "--output", "out", "--json")
    assert said.code == 29 and said.objects[-1]["error"]["code"] == "local_peer_lost"
    assert os.listdir(files / "out") == ["a.npz"]
    assert said.objects[0]["unit"] == 0 and said.objects[0]["receipt"] is None


def test_price_and_deadline_reach_the_peer(command: Command, home: Path, files: Path) -> None:
    with serving(home) as server:
        command("run", "ab" * 32, "--input", "a.npz", "--max-price", "7", "--deadline", "1.5")
    assert server.requests == [
        ("run", {"model": "ab" * 32, "units": 1, "max_price_nanoton": 7, "deadline_ms": 1_500})
    ]


def test_the_number_of_providers_reaches_the_peer_and_the_split_is_told_in_one_line(
    command: Command, home: Path, files: Path
) -> None:
    providers = [
        {"provider": "12D3KooWfirst", "units": 2, "price_nanoton": 70},
        {"provider": "12D3KooWsecond", "units": 1, "price_nanoton": 5},
        {"provider": "12D3KooWidle", "units": 0, "price_nanoton": 0},
    ]

    def split(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=3)
        for number in range(3):
            message = talk.unit()
            assert message is not None
            talk.send(result_of(message["unit"], message["inputs"], number=number))
        talk.send({"done": {"units": 3, "failed": 0, "providers": providers}})

    with serving(home, split) as server:
        said = command("run", "model.onnx", *INPUTS, "--spread", "3")
        told = command("run", "model.onnx", *INPUTS, "--spread", "3", "--json")
    assert server.requests[0][1]["spread"] == 3
    *_, last = said.out.splitlines()
    assert last == "split: 12D3KooWfirst ran 2 for 0.00000007 TON; 12D3KooWsecond ran 1 for 0.000000005 TON"
    assert told.objects[-1]["summary"]["providers"] == providers


@pytest.mark.parametrize("count", ["0", "9", "many"])
def test_nobody_works_with_no_provider_or_more_than_are_asked(
    command: Command, home: Path, files: Path, count: str
) -> None:
    with serving(home) as server:
        assert command("run", "model.onnx", "--input", "a.npz", "--spread", count).code == 2
    assert server.requests == []


def test_results_of_a_lease_that_ended_are_told_without_waiting_and_those_of_others_with_their_receipt(
    command: Command, home: Path, files: Path
) -> None:
    gone, lives = bytes(32), bytes([1]) * 32

    def script(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=3)
        for lease in (gone, lives, lives):
            message = talk.unit()
            assert message is not None
            unit = message["unit"]
            talk.send(result_of(unit, message["inputs"], number=unit, lease=lease))
            if lease == gone:
                talk.event("lease_ended", lease=gone, code="provider_lost")
        talk.event("lease", provider=bytes(32), lease=bytes([2]) * 32, warm=False)
        talk.event("receipt", hash=bytes([7]) * 32, seq=1, lease=lives, first_number=1, runs=2, verified=True)
        talk.send({"done": {"units": 3, "failed": 0}})

    with serving(home, script):
        said = command("run", "model.onnx", *INPUTS, "--json")
    assert [line["receipt"] for line in said.objects[:3]] == [None, "07" * 32, "07" * 32]


def test_a_terminal_sees_progress_and_a_pipe_does_not(home: Path, root: Path, files: Path) -> None:
    arguments = [sys.executable, "-m", "cocoon", "run", "model.onnx", "--input", "a.npz"]
    leader, follower = pty.openpty()
    with serving(home):
        process = subprocess.Popen(
            arguments, env=environment(home, root), cwd=files, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=follower,
        )
        os.close(follower)
        shown = b""
        try:
            while data := os.read(leader, 1 << 16):
                shown += data
        except OSError:  # Linux says so when the last writer is gone
            pass
        out, _ = process.communicate()
    os.close(leader)
    assert process.returncode == 0 and b"looking for providers" in shown and shown.endswith(b"\r\x1b[K")
    assert b"\x1b" not in out and b"a.npz -> shown only" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_a_full_disk_is_told_and_leaves_no_half_file(command: Command, home: Path, files: Path) -> None:
    npz.save(files / "big.npz", {"x": np.zeros(1 << 20, dtype=np.uint8)})
    small = files / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with serving(home):
            said = command("run", "model.onnx", "--input", "big.npz", "--output", "small/o.npz")
        assert said.code == 30 and "[storage_full]" in said.err and os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
