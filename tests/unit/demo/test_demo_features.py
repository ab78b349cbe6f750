"""Tokens and rules at every edge where Magika's own code branches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon.core.errors import WrongField
from cocoon.demo.errors import DemoModelBroken
from cocoon.demo.features import Geometry, edges_of, model_input, tokens_of
from cocoon.demo.labels import Label, by_model, by_rule, parse_rules

GEOMETRY = Geometry(head_bytes=1024, tail_bytes=1024, block_bytes=4096, floor_bytes=8, padding_token=256)
CONFIG = {
    "beg_size": 1024, "mid_size": 0, "end_size": 1024, "use_inputs_at_offsets": False,
    "medium_confidence_threshold": 0.5, "min_file_size_for_dl": 8, "padding_token": 256, "block_size": 4096,
    "target_labels_space": ["markdown", "png", "randomtxt", "randombytes"],
    "thresholds": {"markdown": 0.75, "randomtxt": 0.9},
    "overwrite_map": {"randomtxt": "txt", "randombytes": "unknown"},
}  # fmt: skip
KINDS = {
    name: {"is_text": name in ("markdown", "txt")} for name in ("markdown", "png", "txt", "unknown", "empty")
}
RULES = parse_rules(json.dumps(CONFIG), json.dumps(KINDS))
PAD = 256


def tokens(content: bytes) -> list[int]:
    return [int(token) for token in tokens_of(edges_of(content, 4096), GEOMETRY)]


def rule(content: bytes) -> Label | None:
    edges = edges_of(content, 4096)
    return by_rule(edges, tokens_of(edges, GEOMETRY), RULES)


def reference(content: bytes) -> list[int]:
    """The original's rules, written the slow way round: as lists, from the whole file."""
    space = b" \t\n\r\v\f"
    block = min(4096, len(content))
    first, last = list(content[:block]), list(content[len(content) - block :])
    while first and first[0] in space:
        first.pop(0)
    while last and last[-1] in space:
        last.pop()
    first, last = first[:1024], last[-1024:]
    return first + [PAD] * (1024 - len(first)) + [PAD] * (1024 - len(last)) + last


@given(
    lead=st.integers(0, 4200),
    body=st.binary(max_size=64),
    repeat=st.integers(0, 90),
    trail=st.integers(0, 4200),
)
@example(lead=0, body=b"", repeat=0, trail=0)
@example(lead=4096, body=b"x", repeat=1, trail=0)
@example(lead=0, body=b"x" * 64, repeat=64, trail=0)
@example(lead=0, body=b"x" * 64, repeat=64, trail=1)
@example(lead=3000, body=b"ab\n" * 21, repeat=17, trail=3000)
def test_tokens_equal_the_slow_reference_for_any_file(
    lead: int, body: bytes, repeat: int, trail: int
) -> None:
    content = b" \n" * (lead // 2) + body * repeat + b"\t\r" * (trail // 2)
    assert tokens(content) == reference(content)


def test_a_small_file_stands_at_the_start_and_again_at_the_end() -> None:
    got = tokens(b"  hello world\n")
    assert bytes(got[:12]) == b"hello world\n"  # the head keeps what is behind it
    assert got[12:1024] == [PAD] * 1012
    assert bytes(got[-13:]) == b"  hello world"  # the tail keeps what is before it
    assert got[1024:-13] == [PAD] * 1011


def test_head_and_tail_of_a_file_between_one_and_two_blocks_overlap() -> None:
    content = bytes(i % 251 for i in range(1500))
    got = tokens(content)
    assert bytes(got[:1024]) == content[:1024]
    assert bytes(got[1024:]) == content[-1024:]


@pytest.mark.parametrize("size", [4095, 4096, 4097, 8191, 8192, 8193])
def test_only_the_outer_blocks_are_looked_at(size: int) -> None:
    content = bytearray(b"a" * size)
    if size > 8192:
        content[4096:-4096] = b"\xff" * (size - 8192)
    assert tokens(bytes(content)) == [ord("a")] * 2048


def test_blanks_that_fill_the_first_block_hide_the_rest_from_the_head() -> None:
    content = b" " * 4096 + b"import os\n" * 500
    assert tokens(content)[:1024] == [PAD] * 1024
    assert rule(content) == Label("txt", 1.0)


def test_the_model_gets_one_row_of_32_bit_tokens() -> None:
    (name, array), = model_input(tokens_of(edges_of(b"\x00" * 9, 4096), GEOMETRY)).items()
    assert (name, array.shape, array.dtype) == ("bytes", (1, 2048), np.dtype(np.int32))
    assert int(array.max()) == PAD and int(array.min()) == 0


def test_an_empty_file_is_empty() -> None:
    assert rule(b"") == Label("empty", 1.0)


@pytest.mark.parametrize("size", range(1, 8))
def test_fewer_than_eight_bytes_are_text_or_unknown_without_the_model(size: int) -> None:
    assert rule(b"x" * size) == Label("txt", 1.0)
    assert rule(b"\xff" * size) == Label("unknown", 1.0)


def test_eight_bytes_are_asked_about() -> None:
    assert rule(b"x" * 8) is None
    assert rule(b"\xff" * 8) is None


def test_seven_bytes_behind_blanks_are_not_asked_about() -> None:
    assert rule(b"\n" * 100 + b"x" * 7) == Label("txt", 1.0)
    assert rule(b"\n" * 100 + b"\xff" * 7) == Label("unknown", 1.0)
    assert rule(b"\n" * 100 + b"x" * 8) is None


def test_blanks_behind_count_towards_the_eight() -> None:
    assert rule(b"x\n\n\n\n\n\n\n") is None


def test_blanks_only_are_text() -> None:
    assert rule(b" \t\r\n" * 5) == Label("txt", 1.0)


def test_a_character_cut_by_the_block_makes_it_unknown_as_in_the_original() -> None:
    assert rule(b" " * 4095 + "é".encode() + b"more text") == Label("unknown", 1.0)


def scores(**values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([[values.get(name, 0.0) for name in RULES.names]], np.float32)


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"png": 0.5}, "png"),
        ({"png": 0.49}, "unknown"),
        ({"markdown": 0.75}, "markdown"),
        ({"markdown": 0.74}, "txt"),
        ({"randomtxt": 0.95}, "txt"),
        ({"randomtxt": 0.6}, "txt"),
        ({"randombytes": 0.6}, "unknown"),
        ({"markdown": 0.3, "png": 0.3}, "txt"),  # the first of equals wins
    ],
)
def test_the_threshold_is_the_raw_labels_and_the_fallback_the_renamed_ones(
    values: dict[str, float], label: str
) -> None:
    assert by_model(scores(**values), RULES).name == label


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((1, 3), np.float32),
        np.zeros((4,), np.float32),
        np.zeros((2, 4), np.float32),
        np.zeros((1, 4), np.float64),
        np.full((1, 4), np.nan, np.float32),
        np.full((1, 4), -0.1, np.float32),
        np.full((1, 4), 1.1, np.float32),
    ],
)
def test_an_answer_that_is_not_this_models_is_refused(answer: np.ndarray) -> None:
    with pytest.raises(WrongField) as caught:
        by_model(answer, RULES)
    assert caught.value.code == "wrong_output"


@pytest.mark.parametrize(
    "change",
    [
        {"mid_size": 512},
        {"use_inputs_at_offsets": True},
        {"block_size": 100},
        {"min_file_size_for_dl": 0},
        {"padding_token": 255},
        {"target_labels_space": []},
        {"target_labels_space": ["nobody"]},
        {"thresholds": None},
    ],
)
def test_a_configuration_we_do_not_know_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DemoModelBroken):
        parse_rules(json.dumps({**CONFIG, **change}), json.dumps(KINDS))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{", '"x"'])
def test_a_configuration_that_is_no_map_of_settings_is_refused(text: str) -> None:
    with pytest.raises(DemoModelBroken):
        parse_rules(text, json.dumps(KINDS))
    with pytest.raises(DemoModelBroken):
        parse_rules(json.dumps(CONFIG), text)
