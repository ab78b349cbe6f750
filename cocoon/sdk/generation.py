"""What a decoder says: tokens as they are made, and answers that were checked against them.

Purity: pure (numpy only). Spec: docs/spec/tokens.md, rules TOK-25 to TOK-27.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cocoon.core.errors import ProviderLost, wrong
from cocoon.sdk.fields import take_int
from cocoon.sdk.results import Result
from cocoon.wire.generation import Ask, read_said
from cocoon.wire.tokens import first_head, next_head

#: Which of the asks, place of the token in its answer from 1, and its id.
OnToken = Callable[[int, int, int], None]
_U32 = (1 << 32) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What became of one ask.

    Attributes:
        tokens: Ids of all that were made, a stop token among them.
        text_bytes: Of their text, what is the answer.
        reason: ``stop_token``, ``stop_text`` or ``length``; or ``cancelled``, if the provider cut it short because it
            had spoken for as long as a run may take there. What was made is paid for.
        result: The run as any other one: provider, price, receipt.
    """

    tokens: tuple[int, ...]
    text_bytes: int
    reason: str
    result: Result


@dataclass(slots=True)
class Hearing:
    """Tells each token of each ask once and in order, whatever is lost on the way or begun again elsewhere."""

    asks: Sequence[Ask]
    tell: OnToken
    tell_event: Callable[[dict[str, Any]], None] | None = None
    _heard: dict[int, list[int]] = field(default_factory=dict)

    def event(self, event: dict[str, Any]) -> None:
        """Take one event of the task, and pass it on."""
        if event["event"] == "token":
            unit, place, token = (take_int(event, name, high=_U32) for name in ("unit", "place", "token"))
            self._hear(unit, place, token)
        if self.tell_event is not None:
            self.tell_event(event)

    def answer(self, result: Result) -> Answer:
        """Check a result against its ask and what was told of it, and tell the rest.

        Raises:
            Malformed: the outputs are no answer of a decoder.
            WrongField: ``wrong_head``, its hash is not that of prompt and tokens.
            ProviderLost: another provider took over and says something else than what was told.
        """
        said = read_said(result.outputs)
        head = first_head(self.asks[result.unit].prompt)
        for token in said.tokens:
            head = next_head(head, token)
        if head != said.head:
            raise wrong("head", f"the answer to {result.unit} is not what its hash says")
        for place, token in enumerate(said.tokens, start=1):
            self._hear(result.unit, place, token)
        if len(self._heard.get(result.unit, ())) > len(said.tokens):
            raise ProviderLost("another provider took over, and its answer is shorter than what was told")
        return Answer(said.tokens, said.text_bytes, said.reason, result)

    def _hear(self, unit: int, place: int, token: int) -> None:
        heard = self._heard.setdefault(unit, [])
        if place == len(heard) + 1:
            heard.append(token)
            self.tell(unit, place, token)
        elif 1 <= place <= len(heard) and heard[place - 1] != token:
            raise ProviderLost(f"another provider took over, and token {place} of its answer is another one")
