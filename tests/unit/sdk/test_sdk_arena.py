"""CTL-24, the client's side: slots in shared memory, and a task whose large tensors lie in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import CocoonError, InputsMismatch, Malformed, WrongField
from cocoon.core.limits import ALIGNMENT_BYTES, SMALL_PAYLOAD_BYTES
from cocoon.sdk import Failure, Result, connect
from cocoon.sdk.arena import Arena, Slot
from tests.control_server import PROVIDER, TASK, Talk, result_of, serving

SIZE = 4_096
MIB = 1 << 20


@given(st.lists(st.one_of(st.tuples(st.integers(0, 900), st.integers(0, 900)), st.integers(0, 50)), max_size=60))
def test_slots_never_overlap_lie_inside_and_begin_aligned(steps: list[Any]) -> None:
    arena = Arena(memoryview(bytearray(SIZE)))
    held: list[Slot] = []
    for step in steps:
        if isinstance(step, int):
            if held:
                arena.free(held.pop(step % len(held)))
            continue
        if (slot := arena.take(*step)) is not None:
            held.append(slot)
        places = sorted((one.at, one.end) for one in held)
        assert all(end <= begin for (_, end), (begin, _) in zip(places, places[1:], strict=False))
        assert all(one.at % ALIGNMENT_BYTES == one.room_at % ALIGNMENT_BYTES == 0 for one in held)
        assert all(one.at + one.inputs_bytes <= one.room_at and one.end <= SIZE for one in held)


def test_the_lowest_place_that_is_free_is_taken_again() -> None:
    arena = Arena(memoryview(bytearray(SIZE)))
    first, second = arena.take(64, 64), arena.take(64, 64)
    assert first is not None and second is not None and (first.at, second.at) == (0, 128)
    arena.free(first)
    assert arena.take(128, 64) == Slot(256, 128, 384, 64), "what does not fit there goes behind the others"
    assert arena.take(64, 64) == first


def test_an_arena_is_ready_while_one_like_the_last_fits_or_nothing_is_taken() -> None:
    arena = Arena(memoryview(bytearray(SIZE)))
    slot = arena.take(SIZE // 2, 64)
    assert slot is not None and not arena.ready
    arena.free(slot)
    assert arena.ready and arena.take(SIZE, 64) is None and arena.ready, "it never will fit, so nobody waits for it"


def run_shared(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """Takes memory, and answers where it was given room; the second unit fails."""
    talk.event("licence", model=bytes(32), licence="none", shares=True)
    talk.event("credit", count=4)
    for number in range(args["units"]):
        unit = talk.unit()
        assert unit is not None
        talk.event("credit", count=1)
        if number == 1:
            talk.handover.forget(1)
            talk.event("failed", unit=1, code="inputs_mismatch", text="the second")
        else:
            talk.hand(result_of(unit["unit"], unit["inputs"], number=number))
    talk.send({"done": {"task": TASK, "units": args["units"], "failed": 1, "receipts": [], "price_nanoton": 0,
                        "provider": PROVIDER}})


def mapped() -> set[str]:
    """Inodes of all memory that was ever shared and is still mapped, of tests before this one too."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:cocoon" in line}


def large(value: int, items: int = MIB) -> dict[str, Any]:
    return {"x": np.arange(value, value + items, dtype=np.int32)}



def longest_bytes(value: object) -> int:
    """Of the byte strings in a message."""
    if isinstance(value, bytes):
        return len(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max(map(longest_bytes, items), default=0)


@pytest.fixture
def crossed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The longest byte string of each message that crosses the socket."""
    found: list[int] = []
    receive, send = Talk.receive, Talk.send

    def watched_receive(talk: Talk) -> dict[str, Any] | None:
        message = receive(talk)
        found.append(longest_bytes(message))
        return message

    def watched_send(talk: Talk, message: dict[str, Any]) -> None:
        found.append(longest_bytes(message))
        send(talk, message)

    monkeypatch.setattr(Talk, "receive", watched_receive)
    monkeypatch.setattr(Talk, "send", watched_send)
    return found


def test_large_tensors_cross_in_shared_memory_and_only_places_cross_the_socket(
    home: Path, model: Path, crossed: list[int]
) -> None:
    inputs = [large(value) for value in range(40)]      # 160 MiB, more than is shared at a time
    with serving(home, run_shared):
        outcomes = list(connect(home).map(model, inputs, keep_going=True))
        links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert not [link for link in links if "memfd:cocoon" in link], "the descriptors of the memory are closed"
    assert isinstance(outcomes[1], Failure)
    for value, one in enumerate(outcomes):
        if value != 1:
            assert isinstance(one, Result)
            assert np.array_equal(one.outputs["out_x"], inputs[value]["x"])
    assert max(crossed) == 32, "no message held a tensor"


def octets(value: int) -> dict[str, Any]:
    """A tensor that is aligned wherever it lies, so that it could be used there."""
    return {"x": np.full(MIB, value, np.uint8)}


def test_results_stay_what_they_are_when_their_place_is_used_again(home: Path, model: Path) -> None:
    before = mapped()
    with serving(home, run_shared), connect(home).session(model, runs=9) as session:
        first = session.run(octets(0))
        kept = first.outputs["out_x"].copy()
        with pytest.raises(InputsMismatch, match="the second"):
            session.run(octets(1))
        for value in range(2, 8):
            session.run(octets(value))
        assert mapped() - before
        session.run(octets(8))
        assert np.array_equal(first.outputs["out_x"], kept)
    session.close()
    assert mapped() <= before


def test_one_array_that_is_filled_again_for_each_unit_is_sent_as_it_was(home: Path, model: Path) -> None:
    array = np.zeros(MIB, np.int32)

    def filled() -> Iterator[dict[str, Any]]:
        for value in (3, 4, 5, 6):
            array[:] = value
            yield {"x": array}

    with serving(home, run_shared):
        outcomes = list(connect(home).map(model, filled(), keep_going=True))
    assert [one.outputs["out_x"][-1] for one in outcomes if isinstance(one, Result)] == [3, 5, 6]


def test_small_tensors_share_nothing(home: Path, model: Path, crossed: list[int]) -> None:
    def unshared(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        run_shared(talk, verb, args)
        assert talk.handover.outputs(0, b"") == {"outputs": b""}

    with serving(home, unshared):
        outcomes = list(connect(home).map(model, [large(value, 9) for value in range(4)], keep_going=True))
    assert [one.outputs["out_x"][0] for one in outcomes if isinstance(one, Result)] == [0, 2, 3]


def test_a_peer_that_takes_no_memory_gets_all_over_the_socket(home: Path, model: Path, crossed: list[int]) -> None:
    with serving(home):
        results = list(connect(home).map(model, [large(value) for value in range(3)]))
    assert [one.outputs["out_x"][0] for one in results] == [0, 1, 2]
    assert max(crossed) >= 4 * MIB


def lying(change: dict[str, Any]) -> Any:
    """A peer that takes memory, and says of the outputs of the one unit what is not so."""

    def script(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("licence", model=bytes(32), licence="none", shares=True)
        talk.event("credit", count=1)
        unit = talk.unit()
        assert unit is not None
        told = result_of(0, unit["inputs"], number=1)
        told["results"][0] |= talk.handover.outputs(0, told["results"][0].pop("outputs"))
        assert "outputs_bytes" in told["results"][0]
        told["results"][0] |= change
        talk.send(told)

    return script


@pytest.mark.parametrize(("change", "error"), [
    ({"outputs_bytes": 1 << 40}, Malformed), ({"outputs_bytes": -1}, Malformed), ({"outputs_bytes": "4"}, Malformed),
    ({"outputs_bytes": True}, Malformed), ({"outputs_bytes": 4}, WrongField),
])
def test_outputs_are_taken_from_their_room_only_and_hash_to_their_commitment(
    home: Path, model: Path, change: dict[str, Any], error: type[CocoonError]
) -> None:
    with serving(home, lying(change)), pytest.raises(error):
        connect(home).run(model, large(0))


def test_a_unit_without_outputs_and_without_a_room_is_malformed(home: Path, model: Path) -> None:
    def script(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1)
        unit = talk.unit()
        assert unit is not None
        talk.send(result_of(0, unit["inputs"], number=1, outputs=..., outputs_bytes=4))

    with serving(home, script), pytest.raises(Malformed, match="no outputs"):
        connect(home).run(model, large(0, SMALL_PAYLOAD_BYTES))
