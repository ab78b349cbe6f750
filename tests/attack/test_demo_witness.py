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
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cocoon.demo.purses import PROVIDERS
from tests.attack.test_capture import marked, send_in_the_clear
from tests.attack.wiretap import Wiretap, may_capture, tapped

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


@dataclass(frozen=True)
class Watched:
    """A demonstration that is over."""

    said: str
    #: By peer and part: at each look, whether it mapped ONNX Runtime, and TON's machine.
    onnx: dict[tuple[str, str], list[bool]]
    ton: dict[tuple[str, str], list[bool]]
    secrets: list[bytes]
    #: What loopback carried, and what was sent there in the clear; None where nobody may look.
    tap: Wiretap | None
    control: tuple[bytes, int]


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """One for all tests here; it leaves nothing behind."""
    place = tmp_path_factory.mktemp("demonstration")
    files, scratch = place / "files", place / "scratch"
    files.mkdir()
    scratch.mkdir()
    marker, control = marked()
    seen = Watched("", {}, {}, [*marked_files(files), *model_slices()], None, (marker, control.nbytes))
    with tapped() if may_capture() else nullcontext() as tap:
        if tap is not None:
            send_in_the_clear(control.tobytes())
        said = watch(files, scratch, seen)
    assert list(scratch.iterdir()) == []
    return replace(seen, said=said, tap=tap)


def watch(files: Path, scratch: Path, seen: Watched) -> str:
    """Let the demonstration run to its end, and look at all its processes whenever it says something."""
    environment = {**os.environ, "COCOON_MAGIKA": str(MODEL), "TMPDIR": str(scratch)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cocoon", "demo", str(files)], env=environment, cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        for name, part, maps_onnx, maps_ton in watched(scratch):
            seen.onnx.setdefault((name, part), []).append(maps_onnx)
            seen.ton.setdefault((name, part), []).append(maps_ton)
    assert process.wait(60) == 0, "".join(said)[-2_000:]
    return "".join(said)


def test_a_person_reads_every_step(demonstration: Watched) -> None:
    said = demonstration.said
    steps = [
        "Peers", "Wallets", "Discovery", "Auction", "Sealed transfer", "Answers", "Failover", "Lane", "Receipts",
        "Verification", "Settlement", "Balances", "Done",
    ]
    places = [said.index(f"{number}  {step}") for number, step in enumerate(steps, start=1)]
    assert places == sorted(places)
    for told in ("500000 nanoton, once a lease", "voucher 1: 0.0006 TON in all", "every nanoton is accounted for"):
        assert told in said
    assert max(map(len, said.splitlines())) <= 120
    assert "Try next" in said and "\x1b" not in said and said.isascii()


def test_only_a_provider_runs_a_model_and_only_the_devnet_is_a_chain(demonstration: Watched) -> None:
    assert_who_maps(demonstration.onnx, demonstration.ton)


@pytest.mark.skipif(not may_capture(), reason="NOT CHECKED: a packet capture needs root (CAP_NET_RAW) and Linux")
def test_loopback_carries_no_plaintext_of_a_demonstration(demonstration: Watched) -> None:
    tap, (marker, control_bytes) = demonstration.tap, demonstration.control
    assert tap is not None and tap.dropped == 0
    assert tap.count(marker), "the capture is blind"
    assert tap.size_bytes - control_bytes > (MODEL / "model.onnx").stat().st_size
    assert [secret for secret in demonstration.secrets if tap.count(secret)] == []
