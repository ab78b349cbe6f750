"""RUN-4, RUN-30: memory that a worker shares keeps its size, and each run's bytes keep their places."""

import mmap
import os
import sys

import numpy as np
import pytest

from cocoon.core.limits import ALIGNMENT_BYTES, SHARED_BYTES
from cocoon.core.shared import new_shared
from cocoon.runtime.room import Room
from cocoon.runtime.shared import BOTH_BYTES, Shared
from cocoon.wire.tensors import encode_tensors


@pytest.fixture
def memory():
    """A descriptor of shared memory."""
    descriptor = new_shared(BOTH_BYTES)
    yield descriptor
    os.close(descriptor)


def test_both_parts_lie_apart_and_are_seen_by_whoever_maps_them(memory):
    ours, theirs = Shared.of(memory), Shared.of(memory)
    assert len(ours.inputs) == len(ours.outputs) == SHARED_BYTES
    ours.inputs[:1] = ours.inputs[-1:] = b"\1"
    theirs.outputs[:1] = theirs.outputs[-1:] = b"\2"
    assert bytes(theirs.inputs[:1]) == bytes(theirs.inputs[-1:]) == b"\1"
    assert bytes(ours.outputs[:1]) == bytes(ours.outputs[-1:]) == b"\2"


@pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")
def test_nobody_can_make_the_memory_shorter_or_longer(memory):
    """A peer that reads beyond the end of a file that was cut dies of SIGBUS."""
    size_bytes = os.fstat(memory).st_size
    for wanted_bytes in (0, size_bytes - 1, size_bytes + mmap.PAGESIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, wanted_bytes)
    assert os.fstat(memory).st_size == size_bytes


def test_parts_begin_where_kernels_like_it(memory):
    for part in (Shared.of(memory).inputs, Shared.of(memory).outputs):
        assert np.frombuffer(part, np.uint8).ctypes.data % ALIGNMENT_BYTES == 0


def test_outputs_lie_one_behind_the_other_until_there_is_no_room():
    one, two = {"y": np.ones(2, "u1")}, {"y": np.ones(30, "u1")}
    room = Room(memoryview(bytearray(60)))
    at, size = room.place(one)
    assert (at, bytes(room.part[:size])) == (0, encode_tensors(one))
    assert room.place({"y": np.ones(60, "u1")}) is None
    at, again = room.place(two)
    assert (at, bytes(room.part[at : at + again])) == (size, encode_tensors(two))
    assert room.place(one) is None


def test_an_output_that_was_lent_memory_is_found_where_it_lies(memory):
    room = Room(Shared.of(memory).outputs)
    room.place({"y": np.ones(3, "u1")})
    shapes = {"a": ("uint8", (3,)), "b": ("float32", (20_000,)), "c": ("bool", (1 << 20,))}
    lent = room.lend(shapes)
    assert list(lent) == ["b"]
    lent["b"][:] = np.arange(20_000)
    made = {"a": np.ones(3, "u1"), "b": lent["b"], "c": np.zeros(1 << 20, bool)}
    at, size = room.place(made)
    assert bytes(room.part[at : at + size]) == encode_tensors(made)
    assert lent["b"].ctypes.data % ALIGNMENT_BYTES == 0


def test_an_output_that_did_not_take_the_memory_lent_is_written_anyway(memory):
    room = Room(Shared.of(memory).outputs)
    room.lend({"y": ("float32", (20_000,))})
    made = {"y": np.arange(40_000, dtype="f4")}
    at, size = room.place(made)
    assert (at, bytes(room.part[at : at + size])) == (0, encode_tensors(made))


@pytest.mark.parametrize("shapes", [None, {}, {"y": ("float32", (100,))}, {"y": ("float32", (1 << 40,))}])
def test_nothing_is_lent_for_outputs_that_are_small_or_unknown_or_do_not_fit(memory, shapes):
    assert Room(Shared.of(memory).outputs).lend(shapes) == {}
