"""TOK-2, TOK-3 and TOK-14 to TOK-18 on real sessions of a tiny decoder: what ONNX Runtime makes of graph and cache.

Bits were equal wherever 0 stands below, where this was written; another processor may add in another order.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODELS = ("exact", "blocks", "halves", "positions")
#: Logits of these models are 8 apart on average; two that have nothing to do with each other differ by 40 somewhere.
ROUNDING = 1e-3


@pytest.fixture(scope="module")
def found():
    """By name of the model: what ``decoding.py`` found."""
    return printed("decoding")


def printed(program):
    """What one of the programs beside this file says."""
    command = [sys.executable, "-m", f"tests.adapters.runtime.{program}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_graph_computes_what_the_formulas_say(found):
    assert found["exact"]["formulas"] < ROUNDING                # 6e-5
    assert found["halves"]["formulas"] < ROUNDING               # 4e-5
    assert found["positions"]["formulas"] < ROUNDING
    assert found["blocks"]["formulas"] < 5                      # 2.2: products round their inputs to 8 bits


def test_the_tiny_decoder_has_half_a_megabyte(found):
    assert found["exact"]["bytes"] < 500_000


@pytest.mark.parametrize("name", MODELS)
def test_prefill_and_steps_give_what_a_full_recompute_gives(found, name):
    assert found[name]["steps"] < ROUNDING                      # 5e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_read_in_pieces_gives_what_it_gives_whole(found, name):
    assert found[name]["pieces"] < ROUNDING                     # 0


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_unequal_lengths_in_company_are_as_alone_whatever_their_rows_held_before(found, name):
    assert found[name]["company"] < ROUNDING                    # 0


@pytest.mark.parametrize("name", MODELS)
def test_a_row_between_two_others_is_computed_along_and_stays_as_it_is(found, name):
    assert found[name]["between"] < ROUNDING                    # 0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", ["greedy", "sampled"])
def test_eight_sequences_on_three_rows_have_the_tokens_that_each_has_alone(found, name, how):
    together, alone = found[name]["loop"][how]
    assert together == alone
    assert [len(together[str(number)]) for number in range(8)] == [6 + number for number in range(8)]


@pytest.mark.parametrize("name", MODELS)
def test_a_cancelled_sequence_has_no_further_token_and_the_other_ends_as_it_would(found, name):
    seen = found[name]["cancelled"]
    assert seen["told"] == seen["before"] > 0
    assert seen["ends"] == {"6": "cancelled", "7": "length"}


def test_what_is_no_decoder_or_has_no_room_is_refused(found):
    assert found["exact"]["refusals"] == {
        "no decoder": "model_refused", "no rows": "limit_exceeded", "too many rows": "limit_exceeded",
        "too long": "limit_exceeded", "full": "usage", "no such token": "run_failed", "other pieces": "model_refused",
    }


def test_a_confined_worker_may_make_every_call_that_decoding_makes(found):
    confinement, tokens = printed("confined_decoding")
    assert tokens == found["blocks"]["loop"]["greedy"][0]
    assert "writes_no_files" in confinement
