"""Words between a peer and its worker process.

A message is one frame (u32 length, msgpack array). Encoded tensors lie
in shared memory (``shared``), and messages only say where. The descriptors of the
model's file and of that memory travel beside the first byte of ``Load``.

A worker holds a stranger's model and may be taken over by it: whatever it
answers is bounded and checked here, and can at worst be a wrong result.

Purity: pure. Spec: docs/spec/runtime.md, rules RUN-4 to RUN-6.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.errors import (
    CocoonError,
    DtypeUnsupported,
    InputsMismatch,
    LimitExceeded,
    Malformed,
    MemoryExceeded,
    ModelRefused,
    NonCanonical,
    RunFailed,
    TooLarge,
)
from cocoon.core.limits import (
    BATCH_RUNS,
    CONTEXT_TOKENS,
    DECODE_ROWS,
    LEASE_SEQUENCES,
    PAYLOAD_BYTES,
    SHARED_BYTES,
    TENSOR_NAME_CHARS,
    TENSOR_RANK,
    TENSORS,
    VOCABULARY,
    WORKER_TEXT_CHARS,
)
from cocoon.core.values import Value
from cocoon.runtime.specs import TensorSpec, clip
from cocoon.wire.codec import encode, pack_plain, unpack_plain

_I64_MAX = (1 << 63) - 1
_INTEGER = {int}
_HEAD_BYTES = 32
_LOAD_NUMBERS = 10
#: All rows, all that is asked, and all that is cancelled.
_TURN_ENDS = DECODE_ROWS + 2 * LEASE_SEQUENCES
#: Answers a worker may blame on the model or its inputs; it can say nothing else.
_MAY_FAIL: dict[str, type[CocoonError]] = {
    cls.code: cls
    for cls in (
        ModelRefused, InputsMismatch, DtypeUnsupported, MemoryExceeded, RunFailed, LimitExceeded,
        Malformed, NonCanonical, TooLarge,
    )
}


class Load(Value):
    """Order: create the session of the model whose descriptor comes along.

    Attributes:
        memory_bytes: Allowed above the worker's size at this moment.
        load_ns, run_ns: Wall time of the load and of each run; the worker uses
            them only as a bound of its CPU time, the peer holds the clock.
        pieces_bytes: Of a decoder, size of the file with the bytes of its tokens, which comes along third; else 0.
        rows: Sequences that a decoder continues together; else 0.
        joins: Whether runs may be executed together at all, 0 or 1.
        relative_ppm, absolute_nano: What joined runs may differ from the same alone; zeros ask for equal bits.
    """

    model_bytes: int
    memory_bytes: int
    threads: int
    load_ns: int
    run_ns: int
    pieces_bytes: int = 0
    rows: int = 0
    joins: int = 1
    relative_ppm: int = 0
    absolute_nano: int = 0


#: Offset and length of encoded tensors in the shared inputs or outputs.
Span = tuple[int, int]


class Run(Value):
    """Order: execute each of these inputs, in this order."""

    inputs: tuple[Span, ...]


class Turn(Value):
    """Order to a decoder: begin and cancel these sequences, then do one piece or step.

    Attributes:
        asked: Number of each new sequence, whose it is, and where its inputs are.
    """

    asked: tuple[tuple[int, int, Span], ...]
    cancelled: tuple[int, ...]


class Ready(Value):
    """Answer after the start: the truth about engine and device, and what confines the worker."""

    engine: str
    provider: str
    device: str
    memory_bytes: int
    optimisation: str
    platform: str
    confinement: tuple[str, ...]


class Loaded(Value):
    """Answer: the session exists on ``provider``."""

    load_us: int
    provider: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Made(Value):
    """One run took ``ran_us`` inside the engine, and its outputs lie there.

    Attributes:
        joined: Runs that were executed at once, this one among them; their time is shared.
        place: Its position among them, from 0.
    """

    ran_us: int
    outputs: Span
    joined: int = 1
    place: int = 0


class Failed(Value):
    """Answer, or part of one: the model or its inputs are at fault; the worker lives on."""

    code: str
    text: str

    def error(self) -> CocoonError:
        """The typed error to raise in the peer."""
        return _MAY_FAIL[self.code](self.text)


class NoRoom(Value):
    """The outputs of a run found no room beside those of the runs before it: order it again, alone."""


Outcome = Made | Failed | NoRoom


class Ran(Value):
    """Answer: what became of each run of one order."""

    outcomes: tuple[Outcome, ...]


#: Number of its sequence, its own number from 1, id, and running hash (TOK-9).
Token = tuple[int, int, int, bytes]


class Turned(Value):
    """Answer: the tokens of one turn, and the sequences that are over."""

    told: tuple[Token, ...]
    ended: tuple[tuple[int, Outcome], ...]


Order = Load | Run | Turn
Reply = Ready | Loaded | Ran | Turned | Failed


def failure(error: CocoonError) -> Failed:
    """The answer that carries ``error``; its class must be one a worker may name."""
    if error.code not in _MAY_FAIL:
        raise error
    return Failed(error.code, clip(error.text))


def pack_order(order: Order) -> bytes:
    """The bytes of one order, without its frame."""
    match order:
        case Load():
            numbers = [order.model_bytes, order.memory_bytes, order.threads, order.load_ns, order.run_ns]
            return pack_plain([
                1, *numbers, order.pieces_bytes, order.rows, order.joins, order.relative_ppm, order.absolute_nano
            ])
        case Run(inputs):
            return pack_plain([2, inputs])
        case Turn(asked, cancelled):
            return pack_plain([3, [[number, whose, *span] for number, whose, span in asked], cancelled])


def unpack_order(data: bytes) -> Order:
    """The order in ``data``.

    Raises:
        Malformed: anything else; only a defect of the peer can cause it.
    """
    match unpack_plain(data):
        case [1, *numbers] if len(numbers) == _LOAD_NUMBERS:
            return Load(*map(_number, numbers))
        case [2, list(inputs)]:
            return Run(tuple(_span(span) for span in inputs))
        case [3, list(asked), list(cancelled)]:
            return Turn(tuple(map(_asked, asked)), tuple(map(_number, cancelled)))
    raise Malformed("no order to a worker")


def pack_reply(reply: Reply) -> bytes:
    """The bytes of one answer, without its frame."""
    match reply:
        case Ready():
            texts = [reply.engine, reply.provider, reply.device, reply.optimisation, reply.platform]
            clipped = [clip(text, WORKER_TEXT_CHARS) for text in texts]
            return encode([1, clipped, reply.memory_bytes, reply.confinement])
        case Loaded(load_us, provider, inputs, outputs):
            return encode([2, load_us, provider, [_plain(s) for s in inputs], [_plain(s) for s in outputs]])
        case Ran(outcomes):
            return pack_plain([3, [_plain_outcome(outcome) for outcome in outcomes]])
        case Failed(code, text):
            return pack_plain([4, code, text])
        case Turned(told, ended):
            return pack_plain([5, told, [[number, _plain_outcome(outcome)] for number, outcome in ended]])


def unpack_reply(data: bytes) -> Reply:
    """The answer in ``data``, which is not trusted.

    Raises:
        Malformed: wrong form, a text, list or number above its limit, an error
            code that a worker may not name.
    """
    match unpack_plain(data):
        case [1, [engine, provider, device, optimisation, platform], int(memory), list(confinement)]:
            return Ready(
                _text(engine), _text(provider), _text(device), _number(memory),
                _text(optimisation), _text(platform), _texts(confinement),
            )
        case [2, int(load_us), provider, list(inputs), list(outputs)]:
            return Loaded(_number(load_us), _text(provider), _specs(inputs), _specs(outputs))
        case [3, list(outcomes)] if len(outcomes) <= BATCH_RUNS:
            return Ran(tuple(_outcome(outcome) for outcome in outcomes))
        case [4, code, text]:
            return _failed(code, text)
        case [5, list(told), list(ended)] if len(told) <= DECODE_ROWS and len(ended) <= _TURN_ENDS:
            return Turned(tuple(_token(one) for one in told), tuple(_ending(one) for one in ended))
    raise Malformed("no answer of a worker")


def _asked(item: Any) -> tuple[int, int, Span]:
    match item:
        case [number, whose, offset, size]:
            return _number(number), _number(whose), _span([offset, size])
    raise Malformed("no sequence to begin")


def _token(item: Any) -> Token:
    match item:
        case [number, place, token, bytes(head)] if len(head) == _HEAD_BYTES:
            told = _number(number), _number(place), _number(token), head
            if told[1] <= CONTEXT_TOKENS and told[2] < VOCABULARY:
                return told
    raise Malformed("no token of a worker")


def _ending(item: Any) -> tuple[int, Outcome]:
    match item:
        case [number, outcome]:
            return _number(number), _outcome(outcome)
    raise Malformed("no end of a sequence")


def _plain_outcome(outcome: Outcome) -> list[object]:
    match outcome:
        case Made(ran_us, outputs, joined, place):
            return [ran_us, *outputs, joined, place]
        case Failed(code, text):
            return [code, text]
        case NoRoom():
            return []


def _outcome(item: Any) -> Outcome:
    match item:
        case [ran_us, offset, size, joined, place] if set(map(type, item)) == _INTEGER:
            if 0 <= ran_us <= _I64_MAX and 0 <= place < joined <= BATCH_RUNS:
                return Made(ran_us, _span((offset, size)), joined, place)
        case [code, text]:
            return _failed(code, text)
        case []:
            return NoRoom()
    raise Malformed("no outcome of a run")


def _failed(code: Any, text: Any) -> Failed:
    if not isinstance(code, str) or not isinstance(text, str) or code not in _MAY_FAIL:
        raise Malformed("a worker may not name this error")
    return Failed(code, clip(text))


def _span(item: Any) -> Span:
    match item:
        case [offset, size] if type(offset) is int and 0 <= offset <= SHARED_BYTES - _size(size):
            return offset, size
    raise Malformed("a place outside of the shared memory")


def _plain(spec: TensorSpec) -> list[object]:
    return [spec.name, spec.dtype, spec.shape is not None, spec.shape or ()]


def _specs(items: list[Any]) -> tuple[TensorSpec, ...]:
    if len(items) > TENSORS:
        raise Malformed(f"{len(items)} tensors declared, above {TENSORS}")
    return tuple(_spec(item) for item in items)


def _spec(item: Any) -> TensorSpec:
    match item:
        case [name, dtype, bool(ranked), list(axes)] if len(axes) <= TENSOR_RANK:
            shape = tuple(_axis(axis) for axis in axes) if ranked else None
            return TensorSpec(_text(name, TENSOR_NAME_CHARS), _text(dtype), shape)
    raise Malformed("no tensor spec")


def _axis(axis: Any) -> int | str:
    return _text(axis) if isinstance(axis, str) else _number(axis)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _I64_MAX:
        raise Malformed("a number of a worker is out of range")
    return value


def _size(value: Any) -> int:
    if (size := _number(value)) > PAYLOAD_BYTES:
        raise TooLarge(f"{size} bytes of tensors announced, above {PAYLOAD_BYTES}")
    return size


def _text(value: Any, chars: int = WORKER_TEXT_CHARS) -> str:
    if not isinstance(value, str) or len(value) > chars:
        raise Malformed(f"a text of a worker is none, or longer than {chars} characters")
    return value


def _texts(values: list[Any]) -> tuple[str, ...]:
    if len(values) > 16:
        raise Malformed("too many texts of a worker")
    return tuple(_text(v) for v in values)
