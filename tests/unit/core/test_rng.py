"""MAC-5: draws can be repeated, from any place, and are spread evenly."""

import hashlib
from collections import Counter

from cocoon.core.rng import Stream, stream


def test_draws_are_the_words_of_keyed_blocks_in_order() -> None:
    draws = stream(7, b"peer", "purpose")
    blocks = b"".join(hashlib.blake2b(number.to_bytes(8, "big"), key=draws.key).digest() for number in range(3))
    expected = [int.from_bytes(blocks[at : at + 8], "big") for at in range(0, len(blocks), 8)]
    assert [draws.bits64() for _ in expected] == expected


def test_a_stream_goes_on_from_any_of_its_draws() -> None:
    whole = stream(7, b"peer", "purpose")
    draws = [whole.bits64() for _ in range(40)]
    for begin in range(len(draws)):
        rest = Stream(whole.key, begin)
        assert [rest.bits64() for _ in draws[begin:]] == draws[begin:]
        assert rest == whole


def test_streams_of_another_seed_peer_or_purpose_share_no_draw() -> None:
    streams = [stream(*names) for names in ((7, b"a", "b"), (8, b"a", "b"), (7, b"ab", ""), (7, b"a", "c"))]
    draws = [one.bits64() for one in streams for _ in range(16)]
    assert len(set(draws)) == len(draws)


def test_each_number_below_a_bound_is_drawn_about_as_often() -> None:
    draws = stream(1, b"", "even")
    counted = Counter(draws.below(5) for _ in range(10_000))
    assert sorted(counted) == list(range(5))
    assert all(abs(count - 2_000) < 200 for count in counted.values())      # five standard deviations
