"""The border of the process: exit codes, error lines, and never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cocoon.core.errors import all_errors
from tests.control_server import Talk, serving
from tests.unit.cli.conftest import LIMIT_S, Command, environment


def test_help_names_every_command_and_loads_nothing_heavy(root: Path) -> None:
    program = (
        "import sys; from cocoon.cli.main import main; code = main(['--help'])\n"
        "heavy = {'numpy', 'trio', 'libp2p', 'rich', 'msgpack', 'nacl', 'cocoon.sdk.client'}\n"
        "sys.exit(code or ' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    for name in "up run offers quote receipts models status doctor config demo stop".split():
        assert f"\n  {name} ".encode() in done.stdout


def test_a_command_that_reads_tensors_starts_no_thread_for_it(root: Path) -> None:
    program = (
        "import os; from cocoon.cli.main import main; main(['--version'])\n"
        "import numpy; print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, timeout=LIMIT_S)
    assert done.stdout.endswith(b"\n1\n"), done.stdout


def test_no_peer_is_told_with_its_remedy_and_code(command: Command) -> None:
    said = command("status")
    assert said.code == 11 and said.out == ""
    assert "error: no peer runs on" in said.err and "[no_local_peer]" in said.err
    assert "remedy: start one with `cocoon up`" in said.err


@pytest.mark.parametrize("arguments", [
    ("status",), ("offers",), ("stop",), ("receipts", "ls"), ("receipts", "show", "00" * 32),
    ("receipts", "verify", "00" * 32), ("models", "ls"), ("models", "add", "model.onnx"),
    ("run", "model.onnx", "--input", "a.npz"), ("quote", "model.onnx"),
])
def test_every_command_that_needs_a_peer_says_so_in_json(
    command: Command, files: Path, arguments: tuple[str, ...]
) -> None:
    said = command(*arguments, "--json")
    assert said.code == 11
    assert said.objects[-1]["error"]["code"] == "no_local_peer"
    assert set(said.objects[-1]["error"]) == {"code", "text", "remedy"}


@pytest.mark.parametrize("arguments", [
    ("nonsense",), ("run",), ("run", "m"), ("run", "m", "--input"), ("status", "--nonsense"), ("receipts",),
    ("receipts", "verify"), ("run", "m", "--input", "x", "--max-price", "-1"), ("up", "--role", "king"),
    ("run", "m", "--input", "x", "--deadline", "soon"), ("quote",), ("quote", "m", "--runs", "0"),
])
def test_a_wrong_call_ends_with_code_2(command: Command, arguments: tuple[str, ...]) -> None:
    said = command(*arguments)
    assert said.code == 2
    if arguments != ("receipts",):
        assert "[usage]" in said.err


def test_the_exit_code_is_that_of_the_error_for_every_error(command: Command, home: Path) -> None:
    """Spot checks over the families; the table itself is checked elsewhere."""
    classes = {cls.code: cls for cls in all_errors()}
    for code in ("no_provider", "wrong_network", "storage_full", "wrong_root", "corrupt", "busy"):

        def script(talk: Talk, verb: str, args: dict[str, Any], code: str = code) -> None:
            talk.error(code, "because")

        with serving(home, script):
            said = command("offers", "--json")
        (home / "control.sock").unlink()
        assert said.code == classes[code].exit_code
        assert said.objects == [
            {"error": {"code": code, "text": "because", "remedy": classes[code].remedy}}
        ]


def test_text_of_another_peer_cannot_drive_the_terminal(command: Command, home: Path) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202eevil\r\nerror: fake"

    def script(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        if verb == "offers":
            talk.send({"done": {"offers": [{"device": hostile}]}})
        else:
            talk.error("no_provider", hostile)

    with serving(home, script):
        for said in (command("offers"), command("status")):
            for control in ("\x1b", "\x07", "\u202e", "\r"):
                assert control not in said.out + said.err
        assert command("offers", "--json").objects[0]["device"] == hostile
        assert command("status").err.count("\n") == 2


def test_a_garbled_socket_ends_with_the_code_of_a_peer_fault(command: Command, home: Path) -> None:
    with serving(home, lambda talk, verb, args: talk.socket.sendall(b"\x80\x00\x00\x00")):
        said = command("status")
    assert said.code == 5 and "[too_large]" in said.err and "2147483648" in said.err


def test_a_stale_control_file_and_lax_permissions_have_their_codes(command: Command, home: Path) -> None:
    with serving(home) as server:
        server.write_contact(mode=0o644)
        said = command("status")
        assert said.code == 15 and "[lax_permissions]" in said.err and "0644" in said.err
        dead = subprocess.Popen([sys.executable, "-S", "-c", ""])
        dead.wait()
        server.write_contact(pid=dead.pid)
        assert command("status").code == 11


def test_a_defect_is_one_line_without_traceback(root: Path) -> None:
    program = (
        "import sys, click; from cocoon.cli.main import cocoon, main\n"
        "@cocoon.command()\n"
        "@click.option('--json', is_flag=True)\n"
        "def boom(json): raise ZeroDivisionError('a\\nb')\n"
        "sys.exit(main(['boom', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, timeout=LIMIT_S)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "cocoon"
    assert b"ZeroDivisionError at <string>:4" in done.stderr and done.stderr.count(b"\n") == 2


def test_ctrl_c_ends_with_130(home: Path, root: Path) -> None:
    def silent(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        process.send_signal(signal.SIGINT)
        talk.receive()

    with serving(home, silent):
        process = subprocess.Popen(
            [sys.executable, "-m", "cocoon", "status"], env=environment(home, root), cwd=root,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out, err) == (130, b"", b"interrupted\n")


def test_a_closed_pipe_is_quiet(home: Path, root: Path) -> None:
    def much(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.send({"done": {"offers": [{"device": "x" * 500, "queue": index} for index in range(2_000)]}})

    with serving(home, much):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", "cocoon", "offers"], env=environment(home, root), cwd=root, stdout=write,
            stderr=subprocess.PIPE, timeout=LIMIT_S,
        )
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_device_is_a_typed_error(home: Path, root: Path) -> None:
    with serving(home), open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cocoon", "status"], env=environment(home, root), cwd=root, stdout=full,
            stderr=subprocess.PIPE, timeout=LIMIT_S,
        )
    assert done.returncode == 30 and b"[storage_full]" in done.stderr and b"Traceback" not in done.stderr


def test_the_home_option_wins_over_the_environment(command: Command, tmp_path: Path) -> None:
    with serving(tmp_path / "other"):
        assert command("status").code == 11
        assert command("status", "--home", str(tmp_path / "other")).code == 0
