"""Continuous batching: which sequences a decoder reads and continues next, and what becomes of each token.

A decoder has a few rows. A sequence takes one when it is free, is read piece by piece,
then makes a token at each step together with all others that do. It leaves its row
the moment it ends, and the next one takes it: nobody waits for the longest of a batch.
Pieces and steps take turns, so a long prompt holds nobody up for longer than a piece.

Invariants
    Every sequence ends once: ended, or refused. Nothing is told of it afterwards.
    Its tokens are told in order, from 1, each once, with the running hash over all before.
    No two sequences have a row at a time; a row is begun anew for each.
    At most one piece or step is with the decoder; while it idles nothing waits.
    What is held is bounded, per lease and in all.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-9 to TOK-21.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from cocoon.core.errors import CocoonError, LimitExceeded, ProviderBusy, RunFailed, UsageError
from cocoon.core.limits import LEASE_SEQUENCES, PREFILL_TOKENS, SEQUENCES_WAITING, SEQUENCES_WAITING_TOKENS
from cocoon.core.machine import Effect, Event
from cocoon.core.values import Value
from cocoon.runtime.company import RunId
from cocoon.runtime.sequences import Reason, Sampling, Sequence, TokenRecord, check
from cocoon.runtime.stopping import StopTexts
from cocoon.wire.tokens import first_head, next_head


class SequenceAsked(Event):
    """Somebody wants this sequence continued."""

    sequence: Sequence


class SequenceCancelled(Event):
    """Nobody wants it any more; a token that is being made is not told."""

    sequence: RunId


class TokensMade(Event):
    """The decoder did what it was ordered.

    Attributes:
        tokens: One for each choice that the order names; None where the logits chose none.
    """

    work: int
    tokens: tuple[int | None, ...]


class WorkFailed(Event):
    """The decoder gave nothing; the worker lives."""

    work: int
    code: str
    text: str


class Choice(Value):
    """How the token that follows is chosen: token ``number`` of its sequence."""

    sampling: Sampling
    number: int


class ReadPiece(Effect):
    """Append these tokens to a row.

    Attributes:
        begins: The row is empty before; whoever had it is gone.
        choice: Of the first token, behind the last piece of a prompt; else None, and no token is chosen.
    """

    work: int
    row: int
    tokens: tuple[int, ...]
    begins: bool
    choice: Choice | None


class Next(Value):
    """One row of a step: the token to append, and how the next is chosen."""

    row: int
    token: int
    choice: Choice


class StepRows(Effect):
    """Append a token to each of these rows, which rise."""

    work: int
    rows: tuple[Next, ...]


class TellToken(Effect):
    """Send one token to whoever asked."""

    sequence: RunId
    record: TokenRecord


class EndSequence(Effect):
    """It is over.

    Attributes:
        tokens: So many were told; they are what is paid for.
        text_bytes: Of their text, what is the answer: a stop text, and what the last token has behind it, is not.
        head: The running hash over prompt and tokens.
        code, text: Of the error, if it failed; else empty.
    """

    sequence: RunId
    reason: Reason
    tokens: int
    text_bytes: int
    head: bytes
    code: str
    text: str


class RefuseSequence(Effect):
    """It was not begun, and will not be."""

    sequence: RunId
    code: str
    text: str


@dataclass(slots=True)
class _Row:
    """A sequence that has a row."""

    sequence: Sequence
    number: int
    stops: StopTexts
    head: bytes
    read: int = 0
    made: int = 0
    last: int = 0
    cancelled: bool = False

    @property
    def reading(self) -> bool:
        """Whether a part of the prompt was not ordered yet."""
        return self.read < len(self.sequence.prompt)


@dataclass(slots=True)
class Generation:
    """Feed facts by ``handle``.

    Attributes:
        pieces: Bytes of each token, by id; as many as the decoder knows.
        rows, capacity: Of the decoder's cache.
    """

    pieces: Many[bytes]
    rows: int
    capacity: int
    _held: list[_Row | None] = field(default_factory=list)
    #: As they came.
    _line: list[Sequence] = field(default_factory=list)
    _line_tokens: int = 0
    _lease_held: Counter[bytes] = field(default_factory=Counter)
    _works: int = 0
    #: Rows that wait for a token from the work that is under way; None while the decoder idles.
    _working: list[_Row] | None = None
    _read_last: bool = False

    def __post_init__(self) -> None:
        self._held = [None] * self.rows

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; an idle decoder then gets what waits."""
        effects = self._take(event)
        self._admit()
        return [*effects, *self._order()]

    def deadline_ns(self) -> int | None:
        """None: time is the affair of whoever asks and cancels."""
        return None

    def _take(self, event: Event) -> list[Effect]:
        match event:
            case SequenceAsked(sequence):
                return self._asked(sequence)
            case SequenceCancelled(sequence):
                return self._cancelled(sequence)
            case TokensMade(work, tokens) if self._working is not None and work == self._works:
                return self._made(self._working, tokens)
            case WorkFailed(work, code, text) if self._working is not None and work == self._works:
                return self._failed(self._working, code, text)
        return []                                       # an answer to an order of long ago

    # --- who comes -----------------------------------------------------------

    def _asked(self, sequence: Sequence) -> list[Effect]:
        if self._knows(sequence.id):
            return []                                   # asked again while it is under way
        try:
            check(sequence, len(self.pieces), self.capacity)
            self._make_room(sequence)
        except CocoonError as error:
            return [RefuseSequence(sequence.id, error.code, error.text)]
        self._lease_held[sequence.id[0]] += 1
        self._line.append(sequence)
        self._line_tokens += len(sequence.prompt)
        return []

    def _make_room(self, sequence: Sequence) -> None:
        """Refuse what has no place in the line."""
        if self._lease_held[sequence.id[0]] >= LEASE_SEQUENCES:
            raise LimitExceeded(f"{LEASE_SEQUENCES} sequences of this lease are held already")
        tokens = self._line_tokens + len(sequence.prompt)
        if len(self._line) >= SEQUENCES_WAITING or tokens > SEQUENCES_WAITING_TOKENS:
            raise ProviderBusy(f"{len(self._line)} sequences of {self._line_tokens} tokens wait for this model already")

    def _knows(self, wanted: RunId) -> bool:
        return any(one.id == wanted for one in self._line) or self._row_of(wanted) is not None

    def _row_of(self, wanted: RunId) -> _Row | None:
        return next((row for row in self._held if row is not None and row.sequence.id == wanted), None)

    def _admit(self) -> None:
        """Free rows, lowest first, go to the lease that has fewest; among equals to who came first."""
        for number, held in enumerate(self._held):
            if held is None and self._line:
                having = Counter(row.sequence.id[0] for row in self._held if row is not None)
                sequence = min(self._line, key=lambda one: having[one.id[0]])
                self._leave_line(sequence)
                stops, head = StopTexts(sequence.stop_texts), first_head(sequence.prompt)
                self._held[number] = _Row(sequence, number, stops, head)

    def _leave_line(self, sequence: Sequence) -> None:
        self._line.remove(sequence)
        self._line_tokens -= len(sequence.prompt)

    # --- what the decoder does next ------------------------------------------

    def _order(self) -> list[Effect]:
        if self._working is not None:
            return []
        held = [row for row in self._held if row is not None]
        reading = [row for row in held if row.reading]
        making = [row for row in held if not row.reading]
        if reading and not (making and self._read_last):
            # Who has least left begins soonest; a newcomer with a long prompt keeps nobody waiting.
            return [self._read(min(reading, key=lambda row: len(row.sequence.prompt) - row.read))]
        if making:
            return [self._step(making)]
        return []

    def _read(self, row: _Row) -> Effect:
        begin, row.read = row.read, min(row.read + PREFILL_TOKENS, len(row.sequence.prompt))
        self._begin([row])
        self._read_last = True
        choice = None if row.reading else _choice(row)
        return ReadPiece(self._works, row.number, row.sequence.prompt[begin : row.read], begin == 0, choice)

    def _step(self, making: list[_Row]) -> Effect:
        self._begin(making)
        self._read_last = False
        return StepRows(self._works, tuple(Next(row.number, row.last, _choice(row)) for row in making))

    def _begin(self, rows: list[_Row]) -> None:
        self._works += 1
        self._working = rows

    # --- what becomes of it --------------------------------------------------

    def _made(self, rows: list[_Row], tokens: tuple[int | None, ...]) -> list[Effect]:
        waiting = [row for row in rows if not row.reading]
        if len(tokens) != len(waiting):
            raise UsageError(f"{len(tokens)} tokens for {len(waiting)} choices")
        self._working = None
        effects: list[Effect] = []
        for row in rows:
            if row.cancelled:
                effects.append(self._end(row, Reason.CANCELLED))
        for row, token in zip(waiting, tokens, strict=True):
            if not row.cancelled:
                effects += self._take_token(row, token)
        return effects

    def _take_token(self, row: _Row, token: int | None) -> list[Effect]:
        if token is None:
            return [self._end(row, Reason.FAILED, RunFailed.code, "the model gave logits that are no numbers")]
        row.made, row.last, row.head = row.made + 1, token, next_head(row.head, token)
        told = TellToken(row.sequence.id, TokenRecord(row.made, token, row.head))
        reason = self._why_it_ends(row, token)
        return [told] if reason is None else [told, self._end(row, reason)]

    def _why_it_ends(self, row: _Row, token: int) -> Reason | None:
        if token in row.sequence.stop_tokens:
            return Reason.STOP_TOKEN
        if row.stops.feed(self.pieces[token]).ended:
            return Reason.STOP_TEXT
        return Reason.LENGTH if row.made == row.sequence.most_tokens else None

    def _failed(self, rows: list[_Row], code: str, text: str) -> list[Effect]:
        self._working = None
        return [
            self._end(row, Reason.CANCELLED) if row.cancelled else self._end(row, Reason.FAILED, code, text)
            for row in rows
        ]

    def _cancelled(self, wanted: RunId) -> list[Effect]:
        if (row := self._row_of(wanted)) is not None:
            if self._working is None or row not in self._working:
                return [self._end(row, Reason.CANCELLED)]
            row.cancelled = True                        # the decoder writes into its row until it answers
            return []
        for sequence in self._line:
            if sequence.id == wanted:
                self._leave_line(sequence)
                self._let_go(sequence)
                return [EndSequence(wanted, Reason.CANCELLED, 0, 0, first_head(sequence.prompt), "", "")]
        return []

    def _end(self, row: _Row, reason: Reason, code: str = "", text: str = "") -> Effect:
        self._held[row.number] = None
        self._let_go(row.sequence)
        if reason is not Reason.STOP_TEXT:
            row.stops.rest()
        return EndSequence(row.sequence.id, reason, row.made, row.stops.shown_bytes, row.head, code, text)

    def _let_go(self, sequence: Sequence) -> None:
        lease = sequence.id[0]
        self._lease_held[lease] -= 1
        if not self._lease_held[lease]:
            del self._lease_held[lease]


def _choice(row: _Row) -> Choice:
    return Choice(row.sequence.sampling, row.made + 1)
