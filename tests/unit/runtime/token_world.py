"""Sequences as tests ask for them, and a decoder of a few lines whose next token depends on all that its row holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cocoon.core.machine import Effect
from cocoon.runtime.generating import (
    Choice,
    EndSequence,
    Generation,
    ReadPiece,
    RefuseSequence,
    SequenceAsked,
    StepRows,
    TellToken,
    TokensMade,
)
from cocoon.runtime.sequences import GREEDY, Sampling, Sequence

VOCABULARY = 64
#: Token n is written as one letter, so that texts are easily told.
PIECES = tuple(bytes([97 + token % 26]) for token in range(VOCABULARY))


def asked(
    number: int, lease: int = 1, prompt: Iterable[int] = (1, 2, 3), most: int = 5, stops: Iterable[int] = (),
    texts: tuple[bytes, ...] = (), sampling: Sampling = GREEDY,
) -> Sequence:
    """What a test wants."""
    return Sequence((bytes([lease]), number), tuple(prompt), most, frozenset(stops), texts, sampling)  # type: ignore[arg-type]


def follows(content: tuple[int, ...], choice: Choice) -> int:
    """The token behind this content; another one for another seed."""
    said = repr((content, choice.sampling.seed, choice.number)).encode()
    return hashlib.sha256(said).digest()[0] % VOCABULARY


def alone(sequence: Sequence) -> list[int]:
    """The tokens that it has if nothing ends it but its length, and nobody else is there."""
    content = sequence.prompt
    for number in range(1, sequence.most_tokens + 1):
        content += (follows(content, Choice(sequence.sampling, number)),)
    return list(content[len(sequence.prompt) :])


class World:
    """A machine and its decoder; what it told, by sequence number."""

    def __init__(self, rows: int = 2, capacity: int = 200) -> None:
        self.machine = Generation(PIECES, rows, capacity)
        self.content: list[tuple[int, ...]] = [()] * rows
        self.work: ReadPiece | StepRows | None = None
        self.told: dict[int, list[TellToken]] = {}
        self.ended: dict[int, EndSequence] = {}
        self.refused: dict[int, RefuseSequence] = {}
        self.orders: list[ReadPiece | StepRows] = []

    def tell(self, event: object) -> list[Effect]:
        """Give the machine a fact, and note what it orders."""
        effects = self.machine.handle(0, event)  # type: ignore[arg-type]
        for effect in effects:
            self._note(effect)
        return effects

    def ask(self, *sequences: Sequence) -> None:
        """All of them, in this order."""
        for sequence in sequences:
            self.tell(SequenceAsked(sequence))

    def turn(self) -> None:
        """The decoder does what it was ordered."""
        assert self.work is not None
        work, self.work = self.work, None
        self.tell(TokensMade(work.work, self.perform(work)))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self.work is not None:
            self.turn()

    def perform(self, work: ReadPiece | StepRows) -> tuple[int, ...]:
        """Append to rows; the tokens that follow."""
        match work:
            case ReadPiece(_, row, tokens, begins, choice):
                self.content[row] = (() if begins else self.content[row]) + tokens
                return () if choice is None else (follows(self.content[row], choice),)
            case StepRows(_, rows):
                for one in rows:
                    self.content[one.row] += (one.token,)
                return tuple(follows(self.content[one.row], one.choice) for one in rows)

    def tokens(self, number: int) -> list[int]:
        """What was told of one sequence."""
        return [effect.record.token for effect in self.told.get(number, [])]

    def _note(self, effect: Effect) -> None:
        match effect:
            case ReadPiece() | StepRows():
                assert self.work is None, "the decoder has something to do already"
                self.work = effect
                self.orders.append(effect)
            case TellToken(sequence, _):
                assert sequence[1] not in self.ended, "told after its end"
                self.told.setdefault(sequence[1], []).append(effect)
            case EndSequence(sequence):
                assert sequence[1] not in self.ended, "ended twice"
                self.ended[sequence[1]] = effect
            case RefuseSequence(sequence):
                self.refused[sequence[1]] = effect
