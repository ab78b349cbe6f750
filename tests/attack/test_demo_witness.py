"""The demonstration, watched from outside: who maps ONNX Runtime or TON's machine, and what loopback carries.

Every process of the demonstration is found by its home and looked at whenever
the demonstration says a line. The capture is proven not to be blind by
a control that is sent in the clear.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cocoon.demo.purses import PROVIDERS
from tests.attack.test_capture import marked, send_in_the_clear
from tests.attack.wiretap import may_capture, tapped

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "build" / "magika"
FILES = 40
#: The model takes the first KiB of a file as int32 tokens, so that is how it would travel in the clear.
TEXT_BYTES = 4_096
SLICE_BYTES = 48
#: What a command line has of each part of a peer that is a process of its own.
PARTS = {
    b"cocoon.runtime.worker": "worker", b"cocoon.ledger.signer": "signer", b"\0devnet\0": "devnet",
}


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


def watched(below: Path) -> list[tuple[str, str, bool, bool]]:
    """Every process of the demonstration now: peer, part, and whether it maps ONNX Runtime, and TON's machine.

    A peer and its devnet know their home, a signer is told it, a worker knows nothing but its parent.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            part = next((part for word, part in PARTS.items() if word in words), "peer")
            at = folder
            if part == "worker":
                at = Path("/proc") / (folder / "stat").read_text().rpartition(")")[2].split()[1]
            environ = (at / "environ").read_bytes().split(b"\0")
            told = [item[12:] for item in environ if item.startswith(b"COCOON_HOME=")] + words.split(b"\0")
            homes = [Path(os.fsdecode(item)) for item in told if item.startswith(os.fsencode(below))]
            if homes:
                maps = (folder / "maps").read_text()
                # TMPDIR/cocoon-demo-x/NAME, and perhaps a folder in it.
                name = homes[0].relative_to(below).parts[1]
                found.append((name, part, "onnxruntime" in maps, "python_ton" in maps))
        except OSError:
            continue  # it ended meanwhile
    return found


def assert_who_maps(onnx: dict[tuple[str, str], list[bool]], ton: dict[tuple[str, str], list[bool]]) -> None:
    """Only the provider's worker ever maps ONNX Runtime, and only the devnet TON's machine."""
    parts = {("bootstrap", "peer"), ("bootstrap", "devnet")}
    parts |= {(name, part) for name in (*PROVIDERS, "requester") for part in ("peer", "signer")}
    assert {part for part, times in onnx.items() if len(times) > 2} >= parts, "a part was not looked at"
    # The winner and its runner-up ran files; the third may have a worker that never got a model.
    ran = {("provider-1", "worker"), ("provider-2", "worker")}
    assert ran <= {part for part, times in onnx.items() if any(times)} <= {*ran, ("provider-3", "worker")}
    assert {part for part, times in ton.items() if any(times)} == {("bootstrap", "devnet")}


@pytest.mark.skipif(not may_capture(), reason="NOT CHECKED: a packet capture needs root (CAP_NET_RAW) and Linux")
def test_a_watched_demonstration_shows_no_plaintext_and_no_runtime_at_the_requester(tmp_path: Path) -> None:
    files, scratch = tmp_path / "files", tmp_path / "scratch"
    files.mkdir()
    scratch.mkdir()
    secrets = [*marked_files(files), *model_slices()]
    control_marker, control = marked()
    onnx: dict[tuple[str, str], list[bool]] = {}
    ton: dict[tuple[str, str], list[bool]] = {}
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
            for name, part, maps_onnx, maps_ton in watched(scratch):
                onnx.setdefault((name, part), []).append(maps_onnx)
                ton.setdefault((name, part), []).append(maps_ton)
        assert process.wait(60) == 0, "".join(said)[-2_000:]
    assert_who_maps(onnx, ton)
    assert tap.dropped == 0
    assert tap.count(control_marker), "the capture is blind"
    assert tap.size_bytes - control.nbytes > (MODEL / "model.onnx").stat().st_size
    assert [secret for secret in secrets if tap.count(secret)] == []
