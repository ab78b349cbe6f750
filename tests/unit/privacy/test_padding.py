"""Padding classes and their one spelling (SEA-4, SEA-5)."""

import numpy as np
import pytest

from cocoon.core.errors import NonCanonical, UsageError
from cocoon.privacy.padding import pad, padded_bytes, unpad
from cocoon.wire.messages import RunRequest
from cocoon.wire.schema import pack
from cocoon.wire.tensors import encode_tensors


@pytest.mark.parametrize(
    ("length", "size"),
    [
        (0, 1024), (1, 1024), (1020, 1024), (1021, 1152), (1148, 1152), (1149, 1280),
        (2044, 2048), (2045, 2304), ((64 << 10) - 4, 64 << 10), ((64 << 10) - 3, 65 << 10), ((65 << 10) - 4, 65 << 10),
        ((65 << 10) - 3, 73 << 10), (4 << 20, (4 << 20) + 1024), ((4 << 20) + 1020, (4 << 20) + 1024),
        ((4 << 20) + 1021, (4 << 20) + (512 << 10) + 1024), ((1 << 32) - 1, (1 << 32) + 1024),
    ],
)
def test_sizes_are_multiples_of_an_eighth_of_the_leading_power_of_two(length: int, size: int) -> None:
    assert padded_bytes(length) == size


@pytest.mark.parametrize("items", [1 << 16, 1 << 20, 16 << 20])
def test_a_tensor_of_a_power_of_two_stays_in_its_class_with_all_that_stands_around_it(items: int) -> None:
    values = encode_tensors({"a name of an input, as long as they become": np.zeros((1, items), "u1")})
    request = pack(RunRequest(number=(1 << 32) - 1, salt=bytes(16), inputs=values))
    assert padded_bytes(len(request)) == items + 1024


@pytest.mark.parametrize("length", [-1, 1 << 32])
def test_a_length_outside_its_prefix_is_our_own_fault(length: int) -> None:
    with pytest.raises(UsageError):
        padded_bytes(length)


def test_padding_is_zero_and_a_set_bit_in_it_is_refused() -> None:
    padded = bytearray(pad(b"abc"))
    assert not any(padded[7:])
    for index in (7, 500, 1023):
        changed = padded.copy()
        changed[index] = 1
        with pytest.raises(NonCanonical):
            unpad(changed)


@pytest.mark.parametrize("size", [0, 3, 7, 1023, 1025, 1152])
def test_another_size_than_that_of_the_class_is_refused(size: int) -> None:
    with pytest.raises(NonCanonical):
        unpad((pad(b"abc") + bytes(128))[:size])


def test_a_prefix_that_promises_more_than_there_is_is_refused() -> None:
    padded = bytearray(pad(b"abc"))
    padded[:4] = (5000).to_bytes(4, "big")
    with pytest.raises(NonCanonical):
        unpad(padded)
