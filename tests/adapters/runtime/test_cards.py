"""RUN-38: what the driver of a card says, through NVIDIA's own binding and a driver that stands in for theirs.

tests/gpu asks a real one, where there is a card.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoon.runtime.cards import find_card

GIB = 1 << 30
STATE = f"memory {80 * GIB} {60 * GIB}\npower 700000\nprocess 11\nprocess 12\n"
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libnvidia-ml."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("LOUD SKIP: no C compiler makes the driver that stands in for NVIDIA's")
    folder = tmp_path_factory.mktemp("driver")
    source, library = Path(__file__).with_name("driver.c"), folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return folder


@pytest.fixture
def ask(driver: Path, tmp_path: Path) -> Ask:
    """Asks a card in a process that finds this driver: ``ask(state, expression)``; the card is ``card``."""

    def asked(state: str | None, expression: str, **more: str) -> Any:
        (tmp_path / "state").write_text(state or "")
        code = (
            "import json, sys; from cocoon.runtime import cards, hardware; from cocoon.core.errors import Unavailable\n"
            f"card = cards.find_card()\nprint(json.dumps({expression}))"
        )
        environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "CARD_ASKED": str(tmp_path / "asked"), **more}
        environment |= {} if state is None else {"CARD_STATE": str(tmp_path / "state")}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return asked


def test_a_card_has_a_name_and_memory_of_which_some_is_free(ask: Ask) -> None:
    assert ask(STATE, "[card.name, card.memory_bytes, card.free_bytes()]") == ["Card 1", 80 * GIB, 60 * GIB]
    assert ask(STATE, "[hardware.gpu().name, hardware.gpu().memory_bytes]") == ["Card 1", 80 * GIB]


@pytest.mark.parametrize(("visible", "name"), [("1,0", "Card 2"), ("GPU-9", "Card 9"), ("", "Card 1")])
def test_the_card_is_the_one_that_cuda_shows_first(ask: Ask, visible: str, name: str) -> None:
    assert ask(STATE, "card.name", CUDA_VISIBLE_DEVICES=visible) == name


def test_what_other_programs_do_is_told_apart_from_what_we_do(ask: Ask) -> None:
    busy = STATE + "sample 11 100 90\nsample 40 100 20\nsample 40 200 30\nsample 41 150 5\n"
    assert ask(busy, "card.others_ppm({11, 12})") == 350_000, "the newest of each, ours left out"
    assert ask(busy, "[card.others_ppm({11}), card.others_ppm({11})]") == [350_000, 0], "each time is counted once"
    assert ask(STATE, "card.others_ppm({12})") == 0
    assert ask(STATE + "sample 40 1 80\nsample 41 1 70\n", "card.others_ppm({11})") == 1_000_000


def test_a_driver_that_counts_processes_by_other_numbers_is_not_believed(ask: Ask) -> None:
    assert ask(STATE + "sample 40 1 80\n", "card.others_ppm({7, 8})") is None


def test_the_power_is_held_while_it_is_asked_for_and_then_what_it_was(ask: Ask) -> None:
    read = "open(__import__('os').environ['CARD_ASKED']).read()"
    held = f"[(held := card.held_to(250)), held.__enter__(), {read}, held.__exit__(None, None, None), {read}][2::2]"
    assert ask(STATE + "root\n", held) == ["250000\n", "250000\n700000\n"]


def test_who_is_not_root_learns_what_root_can_do(driver: Path, ask: Ask, tmp_path: Path) -> None:
    code = (
        "from cocoon.runtime.cards import find_card\nfrom cocoon.core.errors import Unavailable\n"
        "try:\n    find_card().held_to(200).__enter__()\nexcept Unavailable as error:\n    print(error.text)\n"
    )
    (tmp_path / "state").write_text(STATE)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "CARD_STATE": str(tmp_path / "state")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "Card 1 to 200 W: Insufficient Permissions" in done.stdout and "nvidia-smi -pl 200" in done.stdout


def test_a_driver_that_does_not_answer_is_no_card(ask: Ask) -> None:
    assert ask(None, "card") is None
    assert ask("power 1\n", "card") is None, "it names no memory"
    assert ask(None, "hardware.gpu().name") == "CUDA device"


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="LOUD SKIP: this machine has a card")
def test_a_machine_without_a_driver_has_no_card() -> None:
    assert find_card() is None
