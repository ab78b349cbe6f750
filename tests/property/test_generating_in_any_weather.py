"""Laws of continuous batching: sequences cancelled at any time, a decoder that fails; each ends once, as if alone."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cocoon.runtime.generating import ReadPiece, SequenceCancelled, StepRows, WorkFailed
from cocoon.runtime.sequences import Reason, Sampling, Sequence
from cocoon.wire.tokens import first_head, next_head
from tests.unit.runtime.token_world import World, alone, asked

ROWS = 3


class Weather(RuleBasedStateMachine):
    """Sequences of four leases on three rows; two machines are told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.world, self.twin = World(ROWS), World(ROWS)
        self.asked: dict[int, Sequence] = {}
        self.cancelled: set[int] = set()

    def both(self, do) -> None:
        do(self.world)
        do(self.twin)

    @rule(
        lease=st.integers(0, 3), length=st.integers(1, 150), most=st.integers(1, 12),
        stops=st.sets(st.integers(0, 63), max_size=4), seed=st.integers(0, 2),
        texts=st.lists(st.sampled_from([b"ab", b"x", b"qrs"]), max_size=2),
    )
    def somebody_asks(self, lease, length, most, stops, texts, seed):
        number = len(self.asked)
        prompt = [(number * 7 + place) % 64 for place in range(length)]
        self.asked[number] = asked(number, lease, prompt, most, stops, tuple(texts), Sampling(1, seed=seed))
        self.both(lambda world: world.ask(self.asked[number]))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def somebody_cancels(self, data):
        number = data.draw(st.sampled_from(sorted(self.asked)))
        if number not in self.world.ended:
            self.cancelled.add(number)
        self.both(lambda world: world.tell(SequenceCancelled(self.asked[number].id)))

    @precondition(lambda self: self.world.work)
    @rule()
    def the_decoder_answers(self):
        before = {number: len(told) for number, told in self.world.told.items()}
        self.both(World.turn)
        for number in self.cancelled:
            assert len(self.world.told.get(number, [])) == before.get(number, 0), "told though it was cancelled"

    @precondition(lambda self: self.world.work)
    @rule()
    def the_decoder_fails(self):
        def fail(world: World) -> None:
            work, world.work = world.work, None
            world.tell(WorkFailed(work.work, "run_failed", "no"))

        self.both(fail)

    @invariant()
    def what_was_told_is_what_each_would_have_alone(self):
        for number, told in self.world.told.items():
            head, tokens = first_head(self.asked[number].prompt), alone(self.asked[number])
            for place, effect in enumerate(told):
                head = next_head(head, tokens[place])
                record = effect.record
                assert (record.number, record.token, record.head) == (place + 1, tokens[place], head)

    @invariant()
    def each_end_says_what_was_told(self):
        for number, end in self.world.ended.items():
            assert end.tokens == len(self.world.told.get(number, []))
            assert end.reason is not Reason.CANCELLED or number in self.cancelled

    @invariant()
    def rows_rise_and_are_no_more_than_there_are(self):
        match self.world.work:
            case StepRows(_, rows):
                numbers = [one.row for one in rows]
                assert numbers == sorted(set(numbers)) and numbers[-1] < ROWS
            case ReadPiece(_, row, tokens):
                assert row < ROWS and tokens

    @invariant()
    def while_the_decoder_idles_nothing_waits(self):
        if self.world.work is None:
            assert self.asked.keys() == self.world.ended.keys()

    @invariant()
    def two_machines_that_were_told_the_same_are_the_same(self):
        assert self.world.orders == self.twin.orders and self.world.ended == self.twin.ended


Weather.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestGeneratingInAnyWeather = Weather.TestCase
