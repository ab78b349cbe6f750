"""What the demonstration says and refuses before any peer runs, and how it judges receipts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cocoon.core.errors import NotFound, NothingToDo, PeerFault, WrongField
from cocoon.core.limits import USUAL_CEILING_NANOTON
from cocoon.demo import main
from cocoon.demo.cases import Case
from cocoon.demo.errors import DemoModelBroken, DemoModelMissing
from cocoon.demo.files import FILES
from cocoon.demo.labels import Label
from cocoon.demo.main import run_demo
from cocoon.demo.model import Magika
from cocoon.demo.purses import FUNDS_NANOTON, RUN_NANOTON, SETUP_NANOTON
from cocoon.demo.screen import Screen, printable
from cocoon.demo.verify import find_receipts, promised_nanoton, verify_answers
from cocoon.sdk import Result

CONFIG = {
    "beg_size": 1024, "mid_size": 0, "end_size": 1024, "use_inputs_at_offsets": False,
    "medium_confidence_threshold": 0.5, "min_file_size_for_dl": 8, "padding_token": 256, "block_size": 4096,
    "target_labels_space": ["txt"], "thresholds": {}, "overwrite_map": {},
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that looks like Magika's; the model itself is never read here."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"never read")
    (directory / "config.min.json").write_text(json.dumps(CONFIG))
    (directory / "content_types_kb.min.json").write_text(json.dumps({"txt": {"is_text": True}}))
    return directory


@pytest.fixture(autouse=True)
def no_peer_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of these are known before a peer is needed."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("a peer was started for nothing")

    monkeypatch.setattr(main, "crew", refuse)


def demo(path: Path | None, model: Path | None, *, as_json: bool = False) -> list[str]:
    lines: list[str] = []
    run_demo(path, as_json=as_json, magika=model, out=lines.append)
    return lines


def test_an_empty_directory_is_nothing_to_do(tmp_path: Path, model: Path) -> None:
    (tmp_path / "files").mkdir()
    with pytest.raises(NothingToDo, match="no readable regular file"):
        demo(tmp_path / "files", model)


def test_files_that_need_no_model_are_nothing_to_do_for_a_provider(tmp_path: Path, model: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "empty").touch()
    (tmp_path / "files" / "blank").write_bytes(b" " * 5_000)
    with pytest.raises(NothingToDo, match="2 decided by rule"):
        demo(tmp_path / "files", model)


def test_a_missing_directory_is_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(NotFound, match="absent"):
        demo(tmp_path / "absent", model)


@pytest.mark.parametrize("gone", ["model.onnx", "config.min.json", "content_types_kb.min.json"])
def test_a_missing_model_says_how_to_get_it(tmp_path: Path, model: Path, gone: str) -> None:
    (model / gone).unlink()
    with pytest.raises(DemoModelMissing, match=gone) as caught:
        demo(tmp_path, model)
    assert "make demo" in caught.value.remedy


def test_the_model_is_looked_for_in_the_environment_and_then_in_build(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COCOON_MAGIKA", raising=False)
    with pytest.raises(DemoModelMissing, match="build/magika"):
        demo(tmp_path, None)
    monkeypatch.setenv("COCOON_MAGIKA", str(model))
    with pytest.raises(NotFound, match="absent"):
        demo(Path("absent"), None)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{}", b" " * (1 << 21)])
def test_a_strange_configuration_is_refused(tmp_path: Path, model: Path, content: bytes) -> None:
    (model / "config.min.json").write_bytes(content)
    with pytest.raises(DemoModelBroken):
        demo(tmp_path, model)


def test_without_a_path_the_examples_are_taken_even_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(main.default_directory()).name == "filetypes"


def test_json_says_nothing_but_objects(tmp_path: Path, model: Path) -> None:
    with pytest.raises(NotFound):
        demo(tmp_path / "absent", model, as_json=True)
    lines: list[str] = []
    screen = Screen(lines.append, quiet=True)
    screen.peers()
    screen.event({"event": "discovering"})
    assert lines == []


def test_a_file_name_cannot_move_the_cursor_or_break_a_line() -> None:
    assert printable("a\x1b[2Jb\nc\udcffd\u202ee") == r"a\x1b[2Jb\nc\udcffd\u202ee"
    assert printable("maçã.txt") == "maçã.txt"


def test_an_event_that_this_version_does_not_know_is_passed_over() -> None:
    lines: list[str] = []
    screen = Screen(lines.append)
    screen.event({"event": "invented", "by": "a newer peer"})
    screen.event({})
    assert lines == []


# --- receipts ---------------------------------------------------------------


def answered(number: int = 1) -> Case:
    result = Result(
        unit=number - 1, outputs={}, provider="12D3KooWprovider", lease="aa" * 32, number=number,
        units=1, price_nanoton=0, input_hash="11" * 32, output_hash=f"{number:02x}" * 32, ran_us=9, receipt="cc" * 32,
    )  # fmt: skip
    return Case(f"file{number}", np.zeros(2048, np.uint16), Label("txt", 0.75), result)


class Records:
    """What the SDK proves of receipts; the test changes it to what a liar would send."""

    def __init__(self, cases: list[Case]) -> None:
        self.facts: dict[str, Any] = {
            "provider": "12D3KooWprovider",
            "lease": "aa" * 32,
            "lane": 1,
            "seq": 1,
            "lines": [
                {
                    "number": case.result.number, "input_hash": case.result.input_hash,
                    "output_hash": case.result.output_hash, "price_nanoton": case.result.price_nanoton,
                }
                for case in cases if case.result is not None
            ],
        }  # fmt: skip
        self.asked: list[str] = []

    def receipt(self, receipt: str) -> dict[str, Any]:
        self.asked.append(receipt)
        return self.facts

    def receipts(self) -> list[dict[str, Any]]:
        return [{"hash": "cc" * 32}]


def test_one_receipt_over_many_answers_is_fetched_once() -> None:
    cases = [answered(1), answered(2)]
    records = Records(cases)
    assert verify_answers(records, cases) == [records.facts]  # type: ignore[arg-type]
    assert records.asked == ["cc" * 32]


def test_the_receipts_of_a_provider_that_came_back_are_found_by_lease_and_number() -> None:
    late, other = answered(1), answered(2)
    assert late.result is not None and other.result is not None
    records = Records([late, other])
    late.result.receipt = None
    find_receipts(records, [late, other])  # type: ignore[arg-type]
    assert late.result.receipt == "cc" * 32
    late.result.receipt, late.result.number = None, 7
    find_receipts(records, [late])  # type: ignore[arg-type]
    assert late.result.receipt is None, "a receipt of other runs is none of it"


def test_an_answer_without_a_receipt_is_refused() -> None:
    case = answered()
    assert case.result is not None
    case.result.receipt = None
    with pytest.raises(PeerFault, match="no receipt"):
        verify_answers(Records([case]), [case])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("number", 7, "wrong_number"),
        ("input_hash", "00" * 32, "wrong_output"),
        ("output_hash", "00" * 32, "wrong_output"),
        ("price_nanoton", 1, "wrong_price"),
    ],
)
def test_a_receipt_over_another_answer_is_refused(field: str, value: object, code: str) -> None:
    cases = [answered(1), answered(2)]
    records = Records(copy.deepcopy(cases))
    records.facts["lines"][1][field] = value
    with pytest.raises(WrongField) as caught:
        verify_answers(records, cases)  # type: ignore[arg-type]
    assert caught.value.code == code


@pytest.mark.parametrize("field", ["provider", "lease"])
def test_a_receipt_of_another_lease_is_refused(field: str) -> None:
    case = answered()
    records = Records([case])
    records.facts[field] = "somebody else"
    with pytest.raises(WrongField, match="another lease"):
        verify_answers(records, [case])  # type: ignore[arg-type]


# --- what was paid -----------------------------------------------------------

SETUP = 500
RUN = 100


class Ledger:
    """A client whose receipts are what a test says."""

    def __init__(self, receipts: dict[str, dict[str, Any]]) -> None:
        self.receipts = receipts

    def receipt(self, receipt: str) -> dict[str, Any]:
        return self.receipts[receipt]


def on_lease(lease: str, number: int, price_nanoton: int, receipt: str) -> Case:
    case = answered(number)
    assert case.result is not None
    case.result.lease, case.result.price_nanoton, case.result.receipt = lease, price_nanoton, receipt
    return case


def facts(cases: list[Case], *, seq: int, total_nanoton: int, escrow: str = "ee" * 32, lane: int = 1) -> dict[str, Any]:
    """A receipt over ``cases``, as the SDK proves it."""
    shown = Records(cases).facts
    (lease,) = {case.result.lease for case in cases if case.result is not None}
    return shown | {
        "lease": lease, "seq": seq, "total_nanoton": total_nanoton, "escrow": escrow, "lane": lane,
        "runs": len(cases), "receipt": "cc" * 32,
    }  # fmt: skip


def told(*leases: tuple[str, int]) -> main.Demo:
    """A demonstration that heard of these leases and the set-up price that each was bid for."""
    magika = Magika(Path("model.onnx"), cast(Any, None), 0)
    demo = main.Demo("files", magika, Screen(lambda line: None, quiet=True), cast(Any, None))
    for lease, setup_nanoton in leases:
        bid = {"provider": "p", "setup_nanoton": setup_nanoton, "expected_nanoton": 1, "threads": 1, "lost": ""}
        demo._event({"event": "bids", "bids": [bid], "chosen": "", "missed": []})
        demo._event({"event": "lease", "lease": lease, "provider": "p"})
    return demo


def test_two_leases_on_one_lane_are_not_counted_twice() -> None:
    """The first was given back in the middle; the totals of the second go on where the first ended."""
    first = [on_lease("aa" * 32, 1, SETUP + RUN, "r1"), on_lease("aa" * 32, 2, RUN, "r2")]
    second = [on_lease("bb" * 32, 1, SETUP + RUN, "r3")]
    receipts = {
        "r1": facts(first[:1], seq=1, total_nanoton=600), "r2": facts(first[1:], seq=2, total_nanoton=700),
        "r3": facts(second, seq=3, total_nanoton=1_300),
    }  # fmt: skip
    assert promised_nanoton(receipts.values()) == 1_300
    demo = told(("aa" * 32, SETUP), ("bb" * 32, SETUP))
    demo.batch.cases = [*first, *second]
    demo._verify(cast(Any, Ledger(receipts)))


def test_two_lanes_are_added_up() -> None:
    first, second = [on_lease("aa" * 32, 1, 600, "r1")], [on_lease("bb" * 32, 1, 700, "r2")]
    demo = told(("aa" * 32, SETUP), ("bb" * 32, SETUP))
    demo.batch.cases = [*first, *second]
    receipts = {
        "r1": facts(first, seq=1, total_nanoton=600), "r2": facts(second, seq=1, total_nanoton=700, lane=2),
    }  # fmt: skip
    demo._verify(cast(Any, Ledger(receipts)))
    receipts["r2"]["lane"] = 1
    with pytest.raises(WrongField, match="promise 700 nanoton for answers of 1300"):
        demo._verify(cast(Any, Ledger(receipts)))


def test_a_set_up_counts_where_an_answer_was_paid() -> None:
    demo = told(("aa" * 32, 500), ("bb" * 32, 700), ("cc" * 32, 900))
    demo.batch.cases = [on_lease("aa" * 32, 1, 600, "r1"), on_lease("cc" * 32, 1, 1_000, "r2")]
    assert demo._setup() == 1_400


def test_all_the_files_that_a_demonstration_takes_can_be_paid() -> None:
    """They cost more than a task may cost whose user says nothing, so the demonstration says something."""
    assert USUAL_CEILING_NANOTON < SETUP_NANOTON + FILES * RUN_NANOTON < FUNDS_NANOTON["requester"]
    asked: list[dict[str, Any]] = []

    class Market:
        def map(self, model: Any, inputs: Any, **options: Any) -> Any:
            asked.append(options)
            return iter(())

    told()._classify(cast(Any, Market()))
    assert asked[0]["max_price_nanoton"] == FUNDS_NANOTON["requester"]


def test_the_line_of_a_file_names_who_decided_it() -> None:
    assert answered().line() == {
        "path": "file1", "label": "txt", "score": 0.75, "by": "model", "provider": "12D3KooWprovider",
        "price_nanoton": 0, "receipt": "cc" * 32,
    }  # fmt: skip
    assert Case("blank", None, Label("txt", 1.0)).line() == {
        "path": "blank", "label": "txt", "score": 1.0, "by": "rule", "provider": None,
        "price_nanoton": 0, "receipt": None,
    }  # fmt: skip
