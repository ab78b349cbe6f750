"""A decoder inside its worker: what is asked and cancelled between two turns, and what a turn tells.

Purity: shell; only a worker process may import it. Spec: docs/spec/tokens.md, rules TOK-17 to TOK-23.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from cocoon.core.errors import CocoonError, LimitExceeded, MemoryExceeded, ProviderBusy, from_code
from cocoon.core.ids import LeaseId
from cocoon.core.limits import CONTEXT_TOKENS
from cocoon.core.machine import Effect
from cocoon.core.units import MICROSECOND_NS
from cocoon.runtime.decoder import Decoder, Engine, token_bytes
from cocoon.runtime.generating import EndSequence, RefuseSequence, SequenceAsked, SequenceCancelled, TellToken
from cocoon.runtime.generator import Generator
from cocoon.runtime.protocol import Failed, Made, Outcome, Token, Turned, failure
from cocoon.runtime.room import Room
from cocoon.runtime.sequences import Reason, Sampling, Sequence
from cocoon.wire.generation import read_ask, said_tensors
from cocoon.wire.tensors import TensorDecoder

#: Of the model's memory, for keys and values of all rows.
_CACHE_SHARE = 4


@dataclass(slots=True)
class Speech:
    """The sequences of one worker."""

    generator: Generator
    #: Whose each is: a number in the place of the lease, which the worker need not know.
    _leases: dict[int, LeaseId] = field(default_factory=dict)
    _began_ns: dict[int, int] = field(default_factory=dict)
    _tokens: dict[int, list[int]] = field(default_factory=dict)
    _decode: TensorDecoder = field(default_factory=TensorDecoder)

    def turn(self, now_ns: int, asked: Many[tuple[int, int, memoryview]], cancelled: Many[int], room: Room) -> Turned:
        """Take what is asked and cancelled, then do one piece or step; whole answers go where there is room.

        Args:
            asked: Number of each new sequence, whose it is, and its encoded inputs.
        """
        told: list[Effect] = []
        for number, whose, payload in asked:
            told += self._ask(now_ns, number, LeaseId(whose.to_bytes(32, "big")), payload)
        for number in cancelled:
            if number in self._leases:
                told += self.generator.tell(now_ns, SequenceCancelled((self._leases[number], number)))
        return self._told(now_ns, [*told, *self.generator.turn(now_ns)], room)

    def _told(self, now_ns: int, told: Many[Effect], room: Room) -> Turned:
        tokens: list[Token] = []
        ended: list[tuple[int, Outcome]] = []
        for effect in told:
            match effect:
                case TellToken((_, number), record):
                    self._tokens[number].append(record.token)
                    tokens.append((number, record.number, record.token, record.head))
                case EndSequence(sequence=(_, number)):
                    ended.append((number, self._end(now_ns, number, effect, room)))
                case RefuseSequence((_, number), code, text):
                    for known in (self._leases, self._tokens, self._began_ns):
                        known.pop(number, None)
                    ended.append((number, _failed(code, text)))
        return Turned(tuple(tokens), tuple(ended))

    def _ask(self, now_ns: int, number: int, lease: LeaseId, payload: memoryview) -> list[Effect]:
        try:
            ask = read_ask(self._decode.decode(payload))
        except CocoonError as error:
            return [RefuseSequence((lease, number), error.code, error.text)]
        self._leases[number], self._began_ns[number], self._tokens[number] = lease, now_ns, []
        how = Sampling(ask.temperature_ppm, ask.top_tokens, ask.top_share_ppm, ask.seed)
        return self.generator.tell(now_ns, SequenceAsked(Sequence(
            (lease, number), ask.prompt, ask.most_tokens, frozenset(ask.stop_tokens), ask.stop_texts, how,
        )))

    def _end(self, now_ns: int, number: int, end: EndSequence, room: Room) -> Outcome:
        tokens, began_ns, _ = self._tokens.pop(number), self._began_ns.pop(number), self._leases.pop(number)
        if end.reason is Reason.FAILED:
            return _failed(end.code, end.text)
        span = room.place(said_tensors(tokens, end.head, end.reason.value, end.text_bytes))
        if span is None:
            return failure(LimitExceeded("the answers of one turn have no room"))
        return Made((now_ns - began_ns) // MICROSECOND_NS, span)


def open_speech(engine: Engine, pieces: Many[bytes], rows: int, memory_bytes: int) -> Speech:
    """A decoder whose cache takes its share of the model's memory.

    Raises:
        ModelRefused, MemoryExceeded: as ``Decoder`` and ``Generator``; or there is no room for a single token.
    """
    capacity = min(CONTEXT_TOKENS, memory_bytes // _CACHE_SHARE // rows // token_bytes(engine))
    if not capacity:
        raise MemoryExceeded(f"{rows} rows of one token take more than a quarter of {memory_bytes} bytes")
    return Speech(Generator(Decoder(engine, rows, capacity), pieces))


def _failed(code: str, text: str) -> Failed:
    error = from_code(code, text)
    # A full line is the peer's own limit: it gives no worker more than that (TOK-30).
    return failure(LimitExceeded(text) if isinstance(error, ProviderBusy) else error)
