"""The demonstration, watched from outside: who maps ONNX Runtime, and what a capture of loopback holds.

Every process of the demonstration is found by its COCOON_HOME and looked at
whenever the demonstration says a line. The capture is proven not to be blind by
a control that is sent in the clear.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attack.test_capture import marked, send_in_the_clear
from tests.attack.wiretap import may_capture, tapped

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "build" / "magika"
FILES = 40
#: The model takes the first KiB of a file as int32 tokens, so that is how it would travel in the clear.
TEXT_BYTES = 4_096
SLICE_BYTES = 48


def marked_files(folder: Path) -> list[bytes]:
    """Write files full of a marker each; the markers as they would travel: as text and as tokens."""
    forms = []
    for index in range(FILES):
        marker = os.urandom(16).hex().encode()
        (folder / f"{index:02}.txt").write_bytes((marker + b"\n") * (TEXT_BYTES // len(marker)))
        forms += [marker, b"".join(struct.pack("<i", byte) for byte in marker)]
    return forms


def model_slices() -> list[bytes]:
    """Stretches of the model's weights, spread over the file."""
    data = (MODEL / "model.onnx").read_bytes()
    starts = range(len(data) // 8, len(data) - SLICE_BYTES, len(data) // 16)
    slices = [data[start : start + SLICE_BYTES] for start in starts]
    return [piece for piece in slices if len(set(piece)) > SLICE_BYTES // 4]


def homes_and_maps(below: Path) -> dict[str, list[bool]]:
    """For each peer of the demonstration: does each of its processes map ONNX Runtime now?"""
    found: dict[str, list[bool]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            home = next((item[12:] for item in environ if item.startswith(b"COCOON_HOME=")), b"")
            if os.fsencode(below) in home:
                name = os.fsdecode(home.rsplit(b"/", 1)[1])
                found.setdefault(name, []).append("onnxruntime" in (folder / "maps").read_text())
        except OSError:
            continue  # it ended meanwhile
    return found


def workers_map(below: Path) -> bool:
    """Whether a worker of the demonstration's provider maps ONNX Runtime; a worker knows no home, its parent does."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"cocoon.runtime.worker" not in (folder / "cmdline").read_bytes():
                continue
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if os.fsencode(below) in Path(f"/proc/{parent}/environ").read_bytes():
                if "onnxruntime" in (folder / "maps").read_text():
                    return True
        except OSError:
            continue
    return False


@pytest.mark.skipif(not may_capture(), reason="NOT CHECKED: a packet capture needs root (CAP_NET_RAW) and Linux")
def test_a_watched_demonstration_shows_no_plaintext_and_no_runtime_at_the_requester(tmp_path: Path) -> None:
    files, scratch = tmp_path / "files", tmp_path / "scratch"
    files.mkdir()
    scratch.mkdir()
    secrets = [*marked_files(files), *model_slices()]
    control_marker, control = marked()
    seen: dict[str, list[bool]] = {}
    worker_seen = False
    environment = {**os.environ, "COCOON_MAGIKA": str(MODEL), "TMPDIR": str(scratch)}
    with tapped() as tap:
        send_in_the_clear(control.tobytes())
        process = subprocess.Popen(
            [sys.executable, "-m", "cocoon", "demo", str(files)], env=environment, cwd=REPOSITORY,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            for name, maps in homes_and_maps(scratch).items():
                seen.setdefault(name, []).extend(maps)
            worker_seen = worker_seen or workers_map(scratch)
        assert process.wait(60) == 0, "".join(said)[-2_000:]
    assert len(seen["requester"]) > 2 and not any(seen["requester"]), "the requester maps ONNX Runtime"
    assert not any(seen["provider"]), "the provider's own process maps ONNX Runtime"
    assert worker_seen, "no worker was seen with it, so the witness is blind"
    assert tap.dropped == 0
    assert tap.count(control_marker), "the capture is blind"
    assert tap.size_bytes - control.nbytes > (MODEL / "model.onnx").stat().st_size
    assert [secret for secret in secrets if tap.count(secret)] == []
