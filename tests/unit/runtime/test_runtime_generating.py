"""TOK-9 to TOK-21: which sequences a decoder continues, and how each of them ends."""

from __future__ import annotations

import pytest

from cocoon.core.errors import UsageError
from cocoon.core.limits import LEASE_SEQUENCES, PREFILL_TOKENS, SEQUENCES_WAITING, SEQUENCES_WAITING_TOKENS
from cocoon.runtime.generating import ReadPiece, SequenceCancelled, StepRows, TokensMade, WorkFailed
from cocoon.runtime.sequences import Reason, Sampling
from cocoon.wire.tokens import first_head, next_head
from tests.unit.runtime.token_world import PIECES, World, alone, asked


def done(*sequences, rows=2, capacity=200):
    """A world in which all of these ran to their ends."""
    world = World(rows, capacity)
    world.ask(*sequences)
    world.run()
    return world


# --- tokens and their records ----------------------------------------------


def test_a_sequence_has_its_tokens_in_order_and_ends_at_its_length():
    world = done(asked(1, most=6))
    assert world.tokens(1) == alone(asked(1, most=6))
    assert [effect.record.number for effect in world.told[1]] == [1, 2, 3, 4, 5, 6]
    assert world.ended[1].reason is Reason.LENGTH and world.ended[1].tokens == 6


def test_each_record_carries_the_running_hash_over_all_tokens_before_it():
    world = done(asked(1, prompt=(4, 5), most=4))
    head = first_head((4, 5))
    for effect in world.told[1]:
        head = next_head(head, effect.record.token)
        assert effect.record.head == head
    assert world.ended[1].head == head


def test_company_changes_no_token():
    many = [asked(n, lease=n % 3, prompt=range(1, 1 + n), most=3 + n % 5) for n in range(1, 12)]
    world = done(*many, rows=4)
    assert {one.id[1]: world.tokens(one.id[1]) for one in many} == {one.id[1]: alone(one) for one in many}


def test_the_seed_reaches_the_choice_of_every_token():
    first, second = (asked(n, sampling=Sampling(temperature_ppm=1, seed=n)) for n in (1, 2))
    world = done(first, second)
    assert world.tokens(1) == alone(first) and world.tokens(2) == alone(second)
    assert world.tokens(1) != world.tokens(2)


# --- how it ends -----------------------------------------------------------


def test_a_stop_token_is_told_and_ends_the_sequence():
    tokens = alone(asked(1, most=9))
    world = done(asked(1, most=9, stops=[tokens[3]]))
    at = tokens.index(tokens[3])
    assert world.tokens(1) == tokens[: at + 1]
    assert world.ended[1].reason is Reason.STOP_TOKEN and world.ended[1].text_bytes == at


def test_a_stop_text_across_two_tokens_ends_the_sequence_and_is_no_part_of_the_answer():
    tokens = alone(asked(1, most=9))
    text = b"".join(PIECES[token] for token in tokens)
    stop = text[3:5]
    world = done(asked(1, most=9, texts=(stop,)))
    end = text.index(stop)
    assert world.tokens(1) == tokens[: end + 2]
    assert world.ended[1].reason is Reason.STOP_TEXT and world.ended[1].text_bytes == end


def test_text_that_only_began_like_a_stop_text_is_part_of_the_answer():
    tokens = alone(asked(1, most=4))
    text = b"".join(PIECES[token] for token in tokens)
    world = done(asked(1, most=4, texts=(text[-1:] + b"~",)))
    assert world.ended[1].reason is Reason.LENGTH and world.ended[1].text_bytes == 4


def test_logits_that_are_no_numbers_end_their_sequence_and_no_other():
    world = World()
    world.ask(asked(1), asked(2))
    while not isinstance(world.work, StepRows) or len(world.work.rows) < 2:
        world.turn()
    work, world.work = world.work, None
    tokens = world.perform(work)
    world.tell(TokensMade(work.work, (None, tokens[1])))
    world.run()
    assert world.ended[1].reason is Reason.FAILED and world.ended[1].code == "run_failed"
    assert world.tokens(2) == alone(asked(2))


def test_a_decoder_that_fails_ends_those_it_was_working_for():
    world = World()
    world.ask(asked(1), asked(2))
    work, world.work = world.work, None
    world.tell(WorkFailed(work.work, "memory_exceeded", "too large"))
    world.run()
    assert world.ended[1].reason is Reason.FAILED and world.ended[1].code == "memory_exceeded"
    assert world.tokens(2) == alone(asked(2))


# --- cancelling ------------------------------------------------------------


def test_a_cancelled_sequence_ends_with_the_token_that_is_being_made_which_is_not_told():
    world = World()
    world.ask(asked(1, most=50))
    for _ in range(4):
        world.turn()
    told = world.tokens(1)
    world.tell(SequenceCancelled(asked(1).id))
    world.turn()
    assert world.tokens(1) == told and world.work is None
    assert world.ended[1].reason is Reason.CANCELLED and world.ended[1].tokens == len(told)


def test_a_sequence_cancelled_while_its_prompt_is_read_is_read_no_further():
    world = World()
    world.ask(asked(1, prompt=[1] * (3 * PREFILL_TOKENS), most=5), asked(2))
    world.turn()
    if isinstance(world.work, StepRows) or world.work.row != 0:
        world.turn()
    world.tell(SequenceCancelled(asked(1).id))
    world.run()
    assert world.ended[1].reason is Reason.CANCELLED and 1 not in world.told
    assert world.tokens(2) == alone(asked(2))


def test_a_sequence_cancelled_while_it_waits_ends_at_once_and_is_never_begun():
    world = World(rows=1)
    world.ask(asked(1), asked(2))
    world.tell(SequenceCancelled(asked(2).id))
    assert world.ended[2].reason is Reason.CANCELLED
    world.run()
    assert 2 not in world.told and world.tokens(1) == alone(asked(1))


def test_cancelling_what_nobody_asked_for_or_what_has_ended_is_nothing():
    world = done(asked(1))
    assert world.tell(SequenceCancelled(asked(1).id)) == [] == world.tell(SequenceCancelled(asked(9).id))


# --- rows ------------------------------------------------------------------


def test_a_row_goes_to_the_next_as_soon_as_its_sequence_ends():
    world = done(asked(1, most=9), asked(2, most=60), asked(3, most=4), asked(4, most=4))
    begun = [order for order in world.orders if isinstance(order, ReadPiece) and order.begins]
    assert [order.row for order in begun] == [0, 1, 0, 0]
    assert list(world.ended) == [1, 3, 4, 2]


def test_a_row_is_begun_anew_for_each_sequence():
    world = done(asked(1), asked(2, prompt=(9,)), rows=1)
    assert world.tokens(2) == alone(asked(2, prompt=(9,)))


def test_a_row_is_not_given_away_while_the_decoder_writes_into_it():
    world = World(rows=1)
    world.ask(asked(1, most=50), asked(2))
    world.turn()
    world.tell(SequenceCancelled(asked(1).id))
    assert 1 not in world.ended and isinstance(world.work, StepRows)
    world.run()
    assert world.ended[1].reason is Reason.CANCELLED and world.tokens(2) == alone(asked(2))


def test_a_free_row_goes_to_the_lease_that_has_fewest():
    world = World(rows=2)
    world.ask(*(asked(n, lease=1, prompt=[n], most=9 * n) for n in range(1, 5)), asked(9, lease=2, prompt=[9]))
    world.run()
    begun = [order.tokens for order in world.orders if isinstance(order, ReadPiece)]
    assert begun == [(1,), (2,), (9,), (3,), (4,)]


def test_a_long_prompt_is_read_in_pieces_and_others_make_a_token_between_two():
    world = World()
    world.ask(asked(1, most=30))
    world.turn()
    world.ask(asked(2, prompt=[5] * (3 * PREFILL_TOKENS + 1), most=1))
    world.run()
    kinds = [type(order) for order in world.orders]
    pieces = [at for at, order in enumerate(world.orders) if isinstance(order, ReadPiece) and order.row == 1]
    assert [len(world.orders[at].tokens) for at in pieces] == [PREFILL_TOKENS] * 3 + [1]
    assert all(kinds[at + 1] is StepRows for at in pieces)
    assert world.tokens(2) == alone(asked(2, prompt=[5] * (3 * PREFILL_TOKENS + 1), most=1))


# --- bounds ----------------------------------------------------------------


def test_a_sequence_that_is_under_way_is_not_begun_again():
    world = done(asked(1), asked(1), asked(1))
    assert world.tokens(1) == alone(asked(1)) and len(world.ended) == 1


def test_what_has_no_room_in_the_line_is_refused():
    world = World(rows=1)
    numbers = range(SEQUENCES_WAITING + 2)
    world.ask(*(asked(n, lease=n // LEASE_SEQUENCES) for n in numbers))
    assert set(world.refused) == {SEQUENCES_WAITING + 1} and world.refused[SEQUENCES_WAITING + 1].code == "busy"


def test_prompts_that_are_too_long_together_are_refused():
    long = SEQUENCES_WAITING_TOKENS // 8
    world = World(rows=1, capacity=long + 5)
    world.ask(*(asked(n, prompt=[1] * long) for n in range(10)))
    assert set(world.refused) == {9} and world.refused[9].code == "busy"


def test_a_lease_may_not_fill_the_line():
    world = World(rows=1)
    world.ask(*(asked(n) for n in range(LEASE_SEQUENCES + 1)))
    assert {number: end.code for number, end in world.refused.items()} == {LEASE_SEQUENCES: "limit_exceeded"}
    world.ask(asked(1_000, lease=2))
    world.run()
    assert 1_000 in world.ended
    world.ask(asked(2_000))
    assert 2_000 not in world.refused


@pytest.mark.parametrize(
    ("sequence", "code"),
    [
        (asked(1, prompt=()), "inputs_mismatch"),
        (asked(1, prompt=(64,)), "inputs_mismatch"),
        (asked(1, prompt=(-1,)), "inputs_mismatch"),
        (asked(1, most=0), "inputs_mismatch"),
        (asked(1, texts=(b"",)), "inputs_mismatch"),
        (asked(1, sampling=Sampling(temperature_ppm=-1)), "inputs_mismatch"),
        (asked(1, sampling=Sampling(top_share_ppm=0)), "inputs_mismatch"),
        (asked(1, sampling=Sampling(seed=1 << 63)), "inputs_mismatch"),
        (asked(1, most=198), "limit_exceeded"),
        (asked(1, texts=(b"x",) * 17), "limit_exceeded"),
        (asked(1, texts=(b"x" * 257,)), "limit_exceeded"),
        (asked(1, stops=range(65)), "limit_exceeded"),
    ],
)
def test_what_a_decoder_cannot_do_is_refused_and_never_begun(sequence, code):
    world = done(sequence)
    assert world.refused[1].code == code and not world.orders


def test_an_answer_to_an_older_order_changes_nothing():
    world = World()
    world.ask(asked(1))
    first = world.work.work
    world.turn()
    assert world.tell(TokensMade(first, (1,))) == [] == world.tell(WorkFailed(first, "run_failed", ""))
    world.run()
    assert world.tokens(1) == alone(asked(1))


def test_an_answer_with_another_number_of_tokens_is_a_defect_of_ours():
    world = World()
    world.ask(asked(1))
    with pytest.raises(UsageError):
        world.tell(TokensMade(world.work.work, ()))
