"""What peer and signer say to each other: frames of canonical msgpack on a socket pair.

The words never travel. A request names what is sent, not a hash: the signer
builds the cell itself and therefore knows the amount that it signs.

Purity: pure. Spec: docs/spec/wallet.md, rule WAL-8.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.errors import CocoonError, Malformed, from_code
from cocoon.core.limits import ERROR_TEXT_CHARS, SIGNER_CELLS, SIGNER_FRAME_BYTES
from cocoon.core.values import Value
from cocoon.ledger.wallet import Outgoing
from cocoon.wire.boc import pack, unpack
from cocoon.wire.cells import Cell
from cocoon.wire.codec import decode, encode

_LANE, _PROVIDER, _SIGN = 1, 2, 3
_GIVEN, _FAILED = 0, 1


class AskLaneSeed(Value):
    """Order: derive the seed of a lane key."""

    genesis: bytes
    index: int


class AskProviderSeed(Value):
    """Order: derive the seed of the provider key."""

    genesis: bytes


class AskTransfer(Value):
    """Order: sign a transfer. ``network_id`` as in ``ChainFacts.global_id``."""

    network_id: int
    seqno: int
    valid_until_s: int
    messages: tuple[Outgoing, ...]


Order = AskLaneSeed | AskProviderSeed | AskTransfer


def pack_order(order: Order) -> bytes:
    """Body of a request frame."""
    match order:
        case AskLaneSeed(genesis, index):
            return encode([_LANE, genesis, index])
        case AskProviderSeed(genesis):
            return encode([_PROVIDER, genesis])
        case AskTransfer(network_id, seqno, valid_until_s, messages):
            return encode([_SIGN, network_id, seqno, valid_until_s, [pack_outgoing(m) for m in messages]])


def unpack_order(data: bytes) -> Order:
    """Read a request.

    Raises:
        Malformed: it is none.
    """
    match decode(data, max_bytes=SIGNER_FRAME_BYTES):
        case [1, bytes(genesis), int(index)]:
            return AskLaneSeed(genesis, index)
        case [2, bytes(genesis)]:
            return AskProviderSeed(genesis)
        case [3, int(network_id), int(seqno), int(valid_until_s), [*messages]]:
            return AskTransfer(network_id, seqno, valid_until_s, tuple(map(unpack_outgoing, messages)))
    raise Malformed("no order to a signer")


def pack_reply(reply: bytes | CocoonError) -> bytes:
    """Body of a reply frame: what was asked for, or why not."""
    if isinstance(reply, bytes):
        return encode([_GIVEN, reply])
    return encode([_FAILED, reply.code, reply.text[:ERROR_TEXT_CHARS]])


def unpack_reply(data: bytes) -> bytes:
    """What was asked for.

    Raises:
        CocoonError: the signer's refusal.
    """
    match decode(data, max_bytes=SIGNER_FRAME_BYTES):
        case [0, bytes(given)]:
            return given
        case [1, str(code), str(text)]:
            raise from_code(code, text)
    raise Malformed("no reply of a signer")


def pack_outgoing(message: Outgoing) -> list[object]:
    """One message as a codec value; cells as bags, empty for none."""
    return [
        message.dest, message.value_nanoton, _bag(message.body), _bag(message.state_init), message.bounce,
    ]


def unpack_outgoing(value: Sequence[object]) -> Outgoing:
    """Read what ``pack_outgoing`` made.

    Raises:
        Malformed: anything else.
    """
    match value:
        case [bytes(dest), int(amount), bytes(body), bytes(state), bool(bounce)] if len(dest) == 32 and amount >= 0:
            return Outgoing(dest, amount, _unbag(body), _unbag(state), bounce)
    raise Malformed("no outgoing message")


def _bag(cell: Cell | None) -> bytes:
    return b"" if cell is None else pack(cell)


def _unbag(data: bytes) -> Cell | None:
    return unpack(data, max_bytes=SIGNER_FRAME_BYTES, max_cells=SIGNER_CELLS) if data else None
