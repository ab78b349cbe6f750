"""Padding classes and their one spelling (SEA-4, SEA-5)."""

import pytest

from cocoon.core.errors import NonCanonical, UsageError
from cocoon.privacy.padding import pad, padded_bytes, unpad


@pytest.mark.parametrize(
    ("length", "size"),
    [
        (0, 1024), (1, 1024), (1020, 1024), (1021, 1152), (1148, 1152), (1149, 1280),
        (2044, 2048), (2045, 2304), (4 << 20, (4 << 20) + (512 << 10)), ((4 << 20) - 4, 4 << 20),
        ((1 << 32) - 1, (1 << 32) + (1 << 29)),
    ],
)
def test_sizes_are_multiples_of_an_eighth_of_the_leading_power_of_two(length: int, size: int) -> None:
    assert padded_bytes(length) == size


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
