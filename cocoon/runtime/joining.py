"""Joining: runs of one order that the engine executes at once, where that was seen to change nothing.

A model that walks over large weights takes hardly longer for eight rows than for one. Runs
of one form, each of one row, are executed alone at first, and some of them once more
together, in growing company of inputs that differ. While each row comes out the same, to
the bit or within what the manifest declares, and company saves time, later ones of this
form go together, up to as many as were tried. What is tried gives nobody outputs.

A model that is made to can behave while it is tried, and not later. Only runs of its own lease
suffer from that, and their statements say in whose company they were.

Imports numpy, so only a worker imports it.

Purity: pure. Spec: docs/spec/batching.md, rules JOI-17 to JOI-20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from cocoon.core.errors import CocoonError, MemoryExceeded
from cocoon.core.limits import BATCH_GAIN_PPM, JOIN_ATTEMPTS, JOIN_FORMS, JOIN_TRIALS, SMALL_PAYLOAD_BYTES
from cocoon.core.units import PPM
from cocoon.runtime.company import Form
from cocoon.runtime.protocol import Failed, Made, NoRoom, Outcome, Span, failure
from cocoon.runtime.rows import Tensors, describe, join, split
from cocoon.wire.tensors import STRING, Array, TensorDecoder

#: Rows that have to be tried before any go together: fewer fill no vector.
_ENOUGH_ROWS = 8
_NANO = 1e-9


#: Dtype and shape of every output, as the model tells.
_Forms = Mapping[str, tuple[str, tuple[int, ...]]]


class Plan(Protocol):
    """``session.Plan``: what follows from the form of inputs."""

    @property
    def outputs(self) -> _Forms | None: ...


P = TypeVar("P", bound=Plan)


class Engine(Protocol[P]):
    """``session.Model``, as far as runs need it."""

    def plan(self, feeds: Tensors) -> P: ...

    def run(self, feeds: Tensors, plan: P, lent: Mapping[str, Array]) -> tuple[dict[str, Array], int]: ...


class Room(Protocol):
    """``room.Room``: where encoded outputs lie, up to ``taken``."""

    taken: int

    def lend(self, forms: _Forms | None) -> dict[str, Array]: ...

    def place(self, outputs: Mapping[str, Array]) -> Span | None: ...


class _Done(NamedTuple):
    """A run that was executed, by itself or in company that changes nothing; its inputs are copies."""

    feeds: Tensors
    outputs: Tensors
    ran_us: int


@dataclass(slots=True)
class _Standing:
    """What was found of one form.

    Attributes:
        tried: How many of ``JOIN_TRIALS`` changed nothing.
        next_rows: The company that is tried next; 0 if no larger one is.
        slow: How often it changed nothing and saved no time; a busy machine may be to blame.
        done: Runs that were executed since, for comparison, by the bytes of their inputs: a model whose rows depend on
            each other may give equal ones the same.
    """

    tried: int = 0
    next_rows: int = JOIN_TRIALS[0]
    slow: int = 0
    done: dict[tuple[bytes, ...], _Done] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """Runs that may go together."""
        rows = JOIN_TRIALS[self.tried - 1] if self.tried else 1
        return rows if rows >= _ENOUGH_ROWS else 1

    def note(self, feeds: Tensors, outputs: Tensors, ran_us: int) -> None:
        """Keep this run if it is needed for the next trial."""
        if len(self.done) < self.next_rows:
            key = tuple(array.tobytes() for array in feeds.values())
            if key not in self.done:
                self.done[key] = _Done({name: array.copy() for name, array in feeds.items()}, outputs, ran_us)

    def end(self, *, is_near: bool, saves: bool) -> None:
        """A trial is over."""
        self.done.clear()
        if is_near and not saves and self.slow + 1 < JOIN_ATTEMPTS:
            self.slow += 1
            return
        has_passed, self.slow = is_near and saves, 0
        self.tried += has_passed
        self.next_rows = JOIN_TRIALS[self.tried] if has_passed and self.tried < len(JOIN_TRIALS) else 0


class Joiner(Generic[P]):
    """Executes the runs of one model."""

    def __init__(
        self, engine: Engine[P], relative_ppm: int = 0, absolute_nano: int = 0, *, joins: bool = True
    ) -> None:
        """The tolerance is the manifest's; zeros ask for equal bits. Unless it ``joins``, each run is alone."""
        self._engine = engine
        self._joins = joins
        self._relative, self._absolute = relative_ppm / PPM, absolute_nano * _NANO
        self._decoder = TensorDecoder()
        self._forms: dict[Form, _Standing] = {}
        #: What is known of the form that was read last, and when that was (``TensorDecoder.reads``).
        self._last: tuple[int, _Standing | None] = (0, None)

    def execute(self, payloads: Sequence[memoryview], room: Room, patience_us: int) -> list[Outcome]:
        """What became of each of these encoded inputs, whose encoded outputs lie in ``room``, in order.

        Args:
            patience_us: Time that the order has; what is tried takes no more than a quarter of it.
        """
        if len(payloads) == 1:                          # whoever comes alone is not kept waiting for the others' sake
            only = self._decode(payloads[0])
            return [only if isinstance(only, Failed) else self._alone(only, None, room)]
        outcomes: list[Outcome] = []
        left_us = patience_us // 4
        while rest := payloads[len(outcomes) :]:
            first = self._decode(rest[0])
            if isinstance(first, Failed):
                outcomes.append(first)
                continue
            standing = self._standing(first, rest[0])
            runs = [first] if standing is None else [first, *self._mates(rest[1 : standing.most])]
            together = self._together(runs, standing, room) if standing is not None and len(runs) > 1 else None
            outcomes += [self._alone(run, standing, room) for run in runs] if together is None else together
            if standing is not None:
                left_us -= self._try(standing, left_us)
        return outcomes

    # --- who goes together -------------------------------------------------------

    def _mates(self, payloads: Sequence[memoryview]) -> Iterator[Tensors]:
        """The next runs that have the form of the one before, up to one that has not."""
        for payload in payloads:
            read = self._decoder.reads
            run = self._decode(payload)
            if isinstance(run, Failed) or self._decoder.reads != read:
                return
            yield run

    def _standing(self, run: Tensors, payload: memoryview) -> _Standing | None:
        """What is known of the form of this run, which was read last; None if it goes alone in any case."""
        if self._last[0] != self._decoder.reads:
            self._last = self._decoder.reads, self._known(run, payload)
        return self._last[1]

    def _known(self, run: Tensors, payload: memoryview) -> _Standing | None:
        form, rows = describe(run)
        is_plain = rows == 1 and all(dtype != STRING for _, dtype, _ in form)
        if not self._joins or not is_plain or len(payload) > SMALL_PAYLOAD_BYTES:
            return None
        if form not in self._forms and len(self._forms) == JOIN_FORMS:
            self._forms.clear()
        return self._forms.setdefault(form, _Standing())

    def _decode(self, payload: memoryview) -> Tensors | Failed:
        try:
            return self._decoder.decode(payload)
        except MemoryError:
            return _no_memory()
        except CocoonError as error:
            return failure(error)

    # --- execution ---------------------------------------------------------------

    def _alone(self, feeds: Tensors, standing: _Standing | None, room: Room) -> Outcome:
        """Exactly one execution of exactly these tensors."""
        try:
            plan = self._engine.plan(feeds)
            lent = room.lend(plan.outputs)
            outputs, ran_us = self._engine.run(feeds, plan, lent)
            span = room.place(outputs)
        except MemoryError:
            return _no_memory()
        except CocoonError as error:
            return failure(error)
        if standing is not None and not lent:
            standing.note(feeds, outputs, ran_us)
        return NoRoom() if span is None else Made(ran_us, span)

    def _together(self, runs: Sequence[Tensors], standing: _Standing, room: Room) -> list[Outcome] | None:
        """One execution of all; None if it has no outputs, or no room for all of them: each is to be tried alone."""
        begin, spans = room.taken, list[Span]()
        try:
            parts, ran_us = self._run(runs)
            for part in parts:
                if (span := room.place(part)) is not None:
                    spans.append(span)
        except (MemoryError, CocoonError):
            spans.clear()
        if len(spans) < len(runs):
            room.taken = begin                          # what a statement names as company has answers too
            return None
        share_us = ran_us // len(runs)
        for feeds, outputs in zip(runs, parts, strict=True):
            standing.note(feeds, outputs, share_us)
        return [Made(share_us, span, len(runs), place) for place, span in enumerate(spans)]

    def _run(self, runs: Sequence[Tensors]) -> tuple[list[dict[str, Array]], int]:
        feeds = join(runs)
        outputs, ran_us = self._engine.run(feeds, self._engine.plan(feeds), {})
        return split(outputs, [1] * len(runs)), ran_us

    def _try(self, standing: _Standing, left_us: int) -> int:
        """Execute runs that were executed once more together, if there are enough of them; about how long it took."""
        rows, done = standing.next_rows, list(standing.done.values())
        before_us = sum(run.ran_us for run in done)
        if not rows or len(done) < rows or before_us > left_us:
            return 0                                    # another order may have the time
        try:
            parts, ran_us = self._run([run.feeds for run in done])
        except (MemoryError, CocoonError):
            standing.end(is_near=False, saves=False)
            return before_us
        is_near = all(self._near(run.outputs, part) for run, part in zip(done, parts, strict=True))
        saves = ran_us * PPM <= before_us * (PPM - BATCH_GAIN_PPM)
        standing.end(is_near=is_near, saves=saves or rows < _ENOUGH_ROWS)
        return ran_us

    def _near(self, alone: Tensors, joined: Tensors) -> bool:
        return all(self._is_near(array, joined[name]) for name, array in alone.items())

    def _is_near(self, one: Array, other: Array) -> bool:
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.dtype == object:
            return bool(np.array_equal(one, other))
        if one.tobytes() == other.tobytes():
            return True
        if one.dtype.kind != "f" or not (self._relative or self._absolute):
            return False
        wide = one.astype(np.float64)
        apart = np.abs(wide - other.astype(np.float64))
        return bool(np.all(apart <= self._absolute + self._relative * np.abs(wide)))    # false for what is no number


def _no_memory() -> Failed:
    return failure(MemoryExceeded("the tensors of the run need more memory than the model's limit"))

