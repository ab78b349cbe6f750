"""What a failed command owes its user: cause, remedy, documented exit code, and nothing else broken."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import cocoon
from cocoon.core.errors import CocoonError, Unavailable
from cocoon.sdk.npz import save
from tests.loopback.town import PATIENCE_S, Outcome, Peer, Town
from tests.models import Feeds, affine_inputs, affine_model

#: Words of log lines that tell of a mistake of ours.
DEFECTS = ('"defect"', "handler_failed", "task_failed")
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


@cache
def documented() -> dict[str, int]:
    """Exit codes by error code, as docs/reference/errors.md says."""
    rows = [line.split("|") for line in REFERENCE.read_text().splitlines() if line.startswith("| `")]
    return {
        row[1].strip(" `"): int(cell)
        for row in rows for cell in (row[2].strip(), row[3].strip()) if cell.isdigit()
    }


def refused(done: Outcome, error: type[CocoonError], *words: str) -> None:
    """The ``--json`` command ended with exactly this error: its cause holds ``words``, told to people and programs."""
    assert done.code == documented()[error.code] == error.exit_code, done
    assert done.error["code"] == error.code, done
    assert done.error["remedy"] == error.remedy
    text = done.error["text"]
    for word in words:
        assert word in text, text
    assert f"error: {text} [{error.code}]" in done.err
    assert f"remedy: {error.remedy}" in done.err
    assert "Traceback" not in done.out + done.err


def run(place: Town, peer: Peer, folder: Path, model: bytes, inputs: Feeds, *arguments: str) -> Outcome:
    """``cocoon run`` of a model and inputs that are written into ``folder`` first."""
    (folder / "model.onnx").write_bytes(model)
    save(folder / "in.npz", inputs, overwrite=True)
    names = ("run", str(folder / "model.onnx"), "--input", str(folder / "in.npz"), *arguments, "--json")
    return place.cocoon(peer, *names)


def good_task_runs(peer: Peer, folder: Path) -> None:
    """The next good task of this peer succeeds."""
    (folder / "good.onnx").write_bytes(affine_model())
    result = cocoon.connect(peer.home).run(folder / "good.onnx", affine_inputs(), deadline_s=PATIENCE_S)
    assert result.outputs["y"].shape == (2, 3) and result.receipt is not None


def all_up(place: Town) -> None:
    """Every peer of the town runs, and none wrote a traceback or logged a defect."""
    for peer in place.peers:
        assert peer.process.poll() is None, f"{peer.name} ended: {peer.last_words()}"
        assert "Traceback" not in peer.last_words(), peer.last_words()
        lines = peer.log().splitlines()
        defects = [line for line in lines if any(word in line for word in DEFECTS)]
        assert not defects, f"{peer.name} logged defects: {defects}"


def wait_log(peer: Peer, *words: str) -> str:
    """The log line that holds all ``words``, once it is written; the peer's own answers set the pace."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for line in peer.log().splitlines():
            if all(word in line for word in words):
                return line
        assert time.monotonic() < deadline, f"{peer.name} logged nothing with {words}: {peer.log()[-2_000:]}"
        if (peer.home / "control.json").exists():
            cocoon.connect(peer.home).status()


def runs_again(peer: Peer, folder: Path) -> None:
    """A good task succeeds as soon as this peer has found a provider again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return good_task_runs(peer, folder)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
