"""TOK-6 to TOK-8: which token logits and draw choose."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cocoon.core.units import PPM
from cocoon.runtime.sampling import choose, draw, ranked
from cocoon.runtime.sequences import GREEDY, Sampling

logits = arrays.arrays(np.float32, st.integers(1, 300), elements=st.integers(-8, 8).map(lambda n: n / 2))
samplings = st.builds(
    Sampling, temperature_ppm=st.integers(1, 3 * PPM), top_tokens=st.integers(0, 400),
    top_share_ppm=st.integers(1, PPM), seed=st.integers(-(1 << 63), (1 << 63) - 1),
)
WARM = Sampling(temperature_ppm=PPM)


def plainly(scores, how, number):
    """The rules, written down with lists: the chosen token, and how near the draw was to another one."""
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))[: how.top_tokens or None]
    best = float(scores[order[0]])
    weights = [math.exp((float(scores[token]) - best) * (PPM / how.temperature_ppm)) for token in order]
    if how.top_share_ppm < PPM:
        share, sums = sum(weights) * (how.top_share_ppm / PPM), 0.0
        for place, weight in enumerate(weights):
            sums += weight
            if sums >= share * (1 - 1e-12):
                weights = weights[: place + 1]
                break
    target, sums = draw(how.seed, number) * sum(weights), 0.0
    for token, weight in zip(order, weights, strict=False):
        sums += weight
        if sums > target:
            return token
    return order[len(weights) - 1]


@given(logits, samplings, st.integers(1, 1 << 17))
def test_the_token_is_the_one_that_the_rules_give(scores, how, number):
    assert choose(scores, how, number) == plainly(scores.tolist(), how, number)


@given(logits, st.integers(1, 300))
def test_ranks_are_those_of_a_full_sort(scores, count):
    assert ranked(scores, count).tolist() == sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


@given(logits, st.integers(0, 9), st.integers(1, 9))
def test_temperature_zero_takes_the_most_likely_whatever_the_seed_and_of_equals_the_first(scores, seed, number):
    assert choose(scores, Sampling(seed=seed), number) == scores.tolist().index(max(scores.tolist()))


@given(logits, samplings, st.integers(1, 99))
def test_one_top_token_is_the_most_likely(scores, how, number):
    one = Sampling(how.temperature_ppm, 1, how.top_share_ppm, how.seed)
    assert choose(scores, one, number) == choose(scores, GREEDY, number)


def test_the_draw_is_block_number_of_the_stream_of_the_seed():
    material = (7).to_bytes(32, "big") + bytes(2) + b"tokens"
    key = hashlib.blake2b(material, digest_size=32, person=b"cocoon-rng").digest()
    block = hashlib.blake2b((3).to_bytes(8, "big"), key=key, digest_size=8).digest()
    assert draw(7, 3) == (int.from_bytes(block, "big") >> 11) / 2**53
    assert 0 <= draw(-1, 1) < 1


def test_another_seed_or_another_number_draws_another_token():
    even = np.zeros(1_000, np.float32)
    chosen = {choose(even, Sampling(PPM, seed=seed), number) for seed in range(20) for number in range(1, 21)}
    assert len(chosen) > 250
    assert choose(even, Sampling(PPM, seed=5), 4) == choose(even, Sampling(PPM, seed=5), 4)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    seen = Counter(choose(scores, Sampling(PPM, seed=11), number) for number in range(1, 4_001))
    assert [seen[token] / 4_000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_only_the_most_likely_that_have_the_share_are_drawn():
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    for share_ppm, among in ((500_000, {0}), (790_000, {0, 1}), (940_000, {0, 1, 2}), (PPM, {0, 1, 2, 3})):
        how = Sampling(PPM, top_share_ppm=share_ppm, seed=3)
        assert {choose(scores, how, number) for number in range(1, 400)} == among


@pytest.mark.parametrize("how", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_choose_nothing(how, bad):
    assert choose(np.array([1, bad, 2], np.float32), how, 1) is None
    assert choose(np.full(3, -np.inf, np.float32), how, 1) is None


def test_a_token_that_the_model_rules_out_is_never_drawn():
    scores = np.array([-np.inf, 0, -np.inf, 0], np.float32)
    assert {choose(scores, WARM, number) for number in range(1, 100)} == {1, 3}
