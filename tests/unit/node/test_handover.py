"""CTL-24, the peer's side: memory that a client shares is used as far as it can do no harm."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cocoon.core.errors import LimitExceeded, UsageError
from cocoon.core.limits import PAYLOAD_BYTES, SHARED_TASK_BYTES
from cocoon.core.shared import new_shared
from cocoon.node.handover import Handover

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")
SIZE = 1 << 16


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Memory of a client, which keeps a descriptor of its own."""
    made = new_shared(SIZE)
    yield made
    os.close(made)


@pytest.fixture
def shared(descriptor: int) -> tuple[Handover, memoryview]:
    """What the peer has, and what the client sees."""
    handover = Handover()
    handover.share(os.dup(descriptor), SIZE)
    return handover, memoryview(mmap.mmap(descriptor, SIZE))


def test_inputs_are_copied_and_outputs_come_where_there_is_room(shared: tuple[Handover, memoryview]) -> None:
    handover, memory = shared
    memory[64:68] = b"abcd"
    assert handover.inputs(7, [[64, 4], b"small"], [[128, 3], [0, 0]], 2) == [b"abcd", b"small"]
    assert handover.outputs(7, b"xyz") == {"outputs_bytes": 3} and bytes(memory[126:133]) == b"\0\0xyz\0\0"
    assert handover.outputs(8, b"xyz") == {"outputs": b"xyz"}


def test_what_a_client_writes_later_changes_nothing(shared: tuple[Handover, memoryview]) -> None:
    handover, memory = shared
    memory[:4] = b"good"
    inputs = handover.inputs(0, [[0, 4]], None, 1)
    memory[:4] = b"evil"
    assert inputs == [b"good"]


def test_outputs_that_need_more_than_their_room_go_over_the_socket(shared: tuple[Handover, memoryview]) -> None:
    handover, memory = shared
    handover.inputs(0, [b"in"], [[SIZE - 2, 2]], 1)
    assert handover.outputs(0, b"xyz") == {"outputs": b"xyz"} and bytes(memory[SIZE - 2 :]) == b"\0\0"


def test_a_room_is_used_once_and_not_for_a_unit_that_failed(shared: tuple[Handover, memoryview]) -> None:
    handover, _ = shared
    handover.inputs(0, [b"a", b"b"], [[0, 9], [9, 9]], 2)
    handover.forget(1)
    assert handover.outputs(1, b"y") == {"outputs": b"y"}
    assert handover.outputs(0, b"y") == {"outputs_bytes": 1}
    assert handover.outputs(0, b"y") == {"outputs": b"y"}


@pytest.mark.parametrize("place", [
    [SIZE - 3, 4], [SIZE, 1], [SIZE + 1, 0], [-1, 1], [-4, 4], [0, -1], [5, -5], [1 << 63, 1 << 63], [0, SIZE + 1],
    [0], [0, 1, 2], [], "no", None, 3, [0, 1.0], [b"0", 1], {0: 1},
])
def test_a_place_outside_of_the_memory_is_refused(shared: tuple[Handover, memoryview], place: Any) -> None:
    handover, _ = shared
    with pytest.raises(UsageError, match="a place"):
        handover.inputs(0, [place], None, 1)
    with pytest.raises(UsageError, match="a place"):
        handover.inputs(0, [b"x"], [place], 1)


@pytest.mark.parametrize(("given", "rooms"), [
    ([], None), ([b"a"] * 3, None), (b"a", None), (None, None), ([b"a"], []), ([b"a"], [[0, 1]] * 2), ([b"a"], b"0"),
])
def test_inputs_that_are_none_are_refused(shared: tuple[Handover, memoryview], given: Any, rooms: Any) -> None:
    with pytest.raises(UsageError, match="due|room"):
        shared[0].inputs(0, given, rooms, 2)


def test_places_without_shared_memory_are_refused() -> None:
    with pytest.raises(UsageError, match="a place in the 0 bytes"):
        Handover().inputs(0, [[0, 1]], None, 1)


def test_inputs_above_the_limit_are_refused_before_they_are_copied() -> None:
    handover = Handover()
    handover.share(new_shared(SHARED_TASK_BYTES), SHARED_TASK_BYTES)
    with pytest.raises(LimitExceeded, match="above"):
        handover.inputs(0, [[0, PAYLOAD_BYTES + 1]], None, 1)


def test_the_memory_goes_with_the_task_even_if_somebody_keeps_the_object(
    descriptor: int, shared: tuple[Handover, memoryview]
) -> None:
    def mappings() -> int:
        inode = str(os.fstat(descriptor).st_ino)
        return sum(line.split()[4] == inode for line in Path("/proc/self/maps").read_text().splitlines())

    handover, memory = shared
    handover.inputs(0, [b"a"], [[0, 9]], 1)
    before = mappings()
    handover.close()
    assert (before, mappings()) == (2, 1), "the client's own is left"
    assert handover.outputs(0, b"y") == {"outputs": b"y"} and bytes(memory[:1]) == b"\0"


def unsealed() -> int:
    """Memory that its maker can still make shorter."""
    made = os.memfd_create("ours", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(made, SIZE)
    return made


def a_file() -> int:
    return os.open(Path(__file__), os.O_RDONLY | os.O_CLOEXEC)


def a_pipe() -> int:
    ours, theirs = os.pipe()
    os.close(theirs)
    return ours


def read_only() -> int:
    made = new_shared(SIZE)
    try:
        return os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)


@pytest.mark.parametrize("make", [unsealed, a_file, a_pipe, read_only, lambda: new_shared(SIZE - 1)])
def test_memory_that_could_end_the_peer_or_is_none_is_refused(make: Any) -> None:
    """A process that reads beyond the end of what was cut dies of SIGBUS."""
    with pytest.raises(UsageError, match="share"):
        Handover().share(descriptor := make(), SIZE)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


@pytest.mark.parametrize("size_bytes", [0, -1, SHARED_TASK_BYTES + 1, 1 << 62, True, "65536", None])
def test_a_size_that_is_none_is_refused(size_bytes: Any) -> None:
    with pytest.raises(UsageError, match="shared memory has 1 to"):
        Handover().share(new_shared(SIZE), size_bytes)


def test_a_second_piece_and_none_at_all_are_refused(shared: tuple[Handover, memoryview]) -> None:
    with pytest.raises(UsageError, match="second"):
        shared[0].share(new_shared(SIZE), SIZE)
    with pytest.raises(UsageError, match="no descriptor"):
        Handover().share(None, SIZE)
