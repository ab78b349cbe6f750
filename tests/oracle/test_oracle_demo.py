"""The demonstration itself, end to end: real peers, a real model, and the package as the judge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import compare

EXAMPLES = compare.REPOSITORY / "examples" / "filetypes"
PATIENCE_S = 120


def left_running(directory: Path) -> list[int]:
    """Processes whose COCOON_HOME lies below ``directory``."""
    mark = b"COCOON_HOME=" + os.fsencode(directory)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass  # it ended meanwhile, or belongs to somebody else
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A temporary directory of this test alone, in which the demo must leave nothing."""
    yield {**os.environ, "COCOON_MAGIKA": str(compare.MODEL), "TMPDIR": str(tmp_path)}
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cocoon", "demo", *(str(argument) for argument in arguments)]


def demo(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment, cwd=compare.REPOSITORY, capture_output=True, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip


def test_the_examples_are_decided_by_a_provider_as_the_package_decides_them(
    environment: dict[str, str],
) -> None:
    done = demo(environment, EXAMPLES, "--json")
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    *lines, totals = map(json.loads, done.stdout.splitlines())
    paths = [line["path"] for line in lines]
    assert paths == sorted(str(path) for path in EXAMPLES.iterdir())
    ours = [(line["label"], line["score"]) for line in lines]
    assert compare.different(paths, ours, compare.package_labels(paths)) == []

    by = Counter(line["by"] for line in lines)
    assert (by["model"], by["rule"]) == (totals["by_model"], totals["by_rule"])
    assert by["model"] > 30 and by["rule"] == 4
    for line in lines:
        if line["by"] == "rule":
            assert (line["provider"], line["price_nanoton"], line["receipt"]) == (None, 0, None)
        else:
            assert line["provider"] == totals["provider"] and len(bytes.fromhex(line["receipt"])) == 32
    assert totals["files"] == len(lines) and totals["receipts"] > 1
    assert_auctioned(totals)
    assert_paid(lines, totals)


def assert_auctioned(totals: dict[str, Any]) -> None:
    """The cheapest of three bids won, the others read why not; when it was killed another one went on."""
    bids = {bid["expected_nanoton"]: bid for bid in totals["bids"]}
    assert len(bids) == 3
    best, second, third = (bids[price] for price in sorted(bids))
    assert best["provider"] == totals["provider"] and best["lost"] == "" and best["threads"] == 2
    assert second["lost"].startswith("up to 25 % dearer") and third["lost"].startswith("more than 50 % dearer")
    assert totals["again"] == 24
    answers = totals["providers"]
    assert answers.keys() == {best["provider"], second["provider"]}
    assert sum(answers.values()) == totals["by_model"] + totals["again"]
    assert answers[best["provider"]] > totals["by_model"] and answers[second["provider"]] >= 24 - 16


def assert_paid(lines: list[dict[str, Any]], totals: dict[str, Any]) -> None:
    """Every nanoton of a demonstration's totals, by figures of the chain alone."""
    assert sum(line["price_nanoton"] for line in lines) == 100_000 * totals["by_model"] + 500_000
    first, second = (totals["providers"][bid["provider"]] for bid in totals["bids"][:2])
    # A provider is paid for loading the model once for each lease; the first one's was still warm.
    assert totals["price_nanoton"] == 100_000 * first + 120_000 * second + totals["setup_nanoton"]
    assert totals["setup_nanoton"] == 1_000_000
    assert len(bytes.fromhex(totals["anchor_tx"])) == 32 and set(totals["anchor_tx"]) != {"0"}
    for party in totals["balances"].values():
        moved = party["received_nanoton"] - party["sent_nanoton"] - party["fees_nanoton"]
        assert party["start_nanoton"] == 0 and party["start_nanoton"] + moved == party["end_nanoton"]
        assert party["locked_nanoton"] == 0
    supply = totals["supply"]
    sellers = [totals["balances"][f"provider-{number}"] for number in (1, 2, 3)]
    gained = sum(party["end_nanoton"] + party["anchor_nanoton"] - party["funded_nanoton"] for party in sellers)
    # What the providers have more than they got from the faucet is the price, less their fees and their anchors'.
    assert 0 < totals["price_nanoton"] - gained - sum(party["fees_nanoton"] for party in sellers) < 10_000_000
    assert sellers[2]["fees_nanoton"] == 0 and sellers[2]["end_nanoton"] == sellers[2]["funded_nanoton"]
    assert supply["genesis_nanoton"] == supply["balances_nanoton"] + supply["fees_nanoton"] == 5_000_000 * 10**9
    assert 0 < totals["deployment_nanoton"] < totals["left_nanoton"] < supply["fees_nanoton"]
    # A first task with a new provider costs both no more than that, once their wallets are there; these are two.
    assert totals["left_nanoton"] - totals["deployment_nanoton"] <= 2 * 45_000_000
    assert supply["conserved"] is totals["conserved"] is True


def test_without_a_provider_the_demo_fails_with_the_documented_code(environment: dict[str, str]) -> None:
    program = (
        "import sys; from cocoon.demo.main import run_demo; from cocoon.core.errors import NoProvider\n"
        "try: run_demo(sys.argv[1], as_json=True, magika=None, out=print, provider=False)\n"
        "except NoProvider as error: sys.exit(error.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLES)], env=environment, cwd=compare.REPOSITORY,
        capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (10, b""), done.stderr[-2_000:]


def test_ctrl_c_in_the_middle_leaves_nothing_behind(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        command(EXAMPLES), env=environment, cwd=compare.REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Discovery" in line:
                process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
