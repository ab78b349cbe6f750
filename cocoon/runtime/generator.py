"""The decode loop: a decoder, and the machine that says what it does next.

A turn is one piece of a prompt or one step. What is asked and cancelled comes between
two turns, so a cancelled sequence costs one token at most.

Imports numpy, so only a worker imports it.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-5 and TOK-17 to TOK-21.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.errors import CocoonError, ModelRefused
from cocoon.core.machine import Effect, Event
from cocoon.runtime.decoder import Decoder
from cocoon.runtime.generating import Generation, ReadPiece, StepRows, TokensMade, WorkFailed
from cocoon.runtime.sampling import choose

Work = ReadPiece | StepRows


class Generator:
    """Tell it what happened, and give it turns while it is busy."""

    def __init__(self, decoder: Decoder, pieces: Sequence[bytes]) -> None:
        """``pieces`` are the bytes of each token, by id.

        Raises:
            ModelRefused: the decoder has logits for another number of tokens.
        """
        if len(pieces) != decoder.vocabulary:
            raise ModelRefused(f"{len(pieces)} tokens have bytes, and {decoder.vocabulary} have logits")
        self._decoder = decoder
        self._machine = Generation(pieces, decoder.rows, decoder.capacity)
        self._work: Work | None = None

    @property
    def busy(self) -> bool:
        """Whether a turn would do something."""
        return self._work is not None

    def tell(self, now_ns: int, event: Event) -> list[Effect]:
        """Take a fact from outside; what is to be told to whoever asked."""
        told: list[Effect] = []
        for effect in self._machine.handle(now_ns, event):
            if isinstance(effect, ReadPiece | StepRows):
                self._work = effect
            else:
                told.append(effect)
        return told

    def turn(self, now_ns: int) -> list[Effect]:
        """Do one piece or step; what is to be told to whoever asked."""
        if (work := self._work) is None:
            return []
        self._work = None
        try:
            event: Event = TokensMade(work.work, self._perform(work))
        except CocoonError as error:
            event = WorkFailed(work.work, error.code, error.text)
        return self.tell(now_ns, event)

    def _perform(self, work: Work) -> tuple[int | None, ...]:
        match work:
            case ReadPiece(_, row, tokens, begins, choice):
                if begins:
                    self._decoder.begin(row)
                logits = self._decoder.read(row, tokens)
                return () if choice is None else (choose(logits, choice.sampling, choice.number),)
            case StepRows(_, rows):
                logits = self._decoder.step([(one.row, one.token) for one in rows])
                return tuple(
                    choose(mine, one.choice.sampling, one.choice.number) for one, mine in zip(rows, logits, strict=True)
                )
