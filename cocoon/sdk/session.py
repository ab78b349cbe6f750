"""A session: one task that stays open, for runs that come one by one.

A call of ``Client.run`` is a task of its own: an auction, its runs, the receipt. An
application that answers its own users has runs that come one by one, from as many
threads as it has, and wants each soon. In a session they go to a provider that has the
model loaded; receipts follow later.

Purity: shell. Spec: docs/spec/control.md, rules CTL-7 to CTL-10 and CTL-26.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from cocoon.sdk.conversation import Call, Conversation
from cocoon.sdk.results import Failure, Outcome, Result
from cocoon.sdk.task import Inputs, encoded, streamed


class Session:
    """Made by ``Client.session``. Any number of threads may use it; a ``with`` block closes it."""

    def __init__(self, conversation: Conversation) -> None:
        """Take over an open task."""
        self._conversation = conversation

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conversation.__exit__(kind, error, trace)

    def run(self, inputs: Inputs) -> Result:
        """Run the model on one map of inputs.

        Its ``receipt`` comes with a later run, at the latest with ``close``.

        Raises:
            CocoonError: why this run has no result, and the session goes on; or why the task ended, and it does not.
        """
        call = Call(encoded(inputs))
        self._conversation.hand_in([call])
        try:
            outcome = self._conversation.wait(call)
        finally:
            self._conversation.give_up([call])
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def map(self, inputs: Iterable[Inputs]) -> Iterator[Outcome]:
        """Run the model on each, many at a time; what became of each, in order."""
        return streamed(self._conversation, map(encoded, inputs))

    def close(self) -> None:
        """Take no more runs, and wait for those under way and for the receipts. Safe to repeat.

        Raises:
            CocoonError: why the task did not end well.
        """
        self._conversation.close()
