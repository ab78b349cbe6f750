"""The recorded story has the hashes that were committed; ``make crosscheck`` compares them with a second TVM."""

from __future__ import annotations

import json
from pathlib import Path

from tests.tvm.story import summary, tell

RECORDED = Path(__file__).with_name("recorded.json")


def test_the_story_has_the_recorded_hashes() -> None:
    """Written anew by ``python -m tests.tvm.record``, which is due after every change of a contract."""
    assert summary(tell()) == json.loads(RECORDED.read_text(encoding="utf-8"))


def test_the_story_holds_every_kind_of_transaction_and_refusal() -> None:
    steps = json.loads(RECORDED.read_text(encoding="utf-8"))
    labels = [step["label"] for step in steps]
    for label in ("deploy", "open", "top up", "claim", "external claim", "expire", "close", "withdraw", "prune"):
        assert label in labels
    assert labels.count("anchor") == 17
    assert sum(label.startswith("refused") for label in labels) >= 25
    for step in steps:
        assert (step["exit_code"] != 0) == step["label"].startswith("refused"), step
    assert sum(step["transaction"] != "" for step in steps) >= 40
