"""Theirs: a remote peer broke the protocol.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from cocoon.core.errors.families import PeerFault


class BadProof(PeerFault):
    """A liteserver's answer is not proven by the block that it names."""

    code = "bad_proof"
    exit_code = 66
    remedy = "remove this liteserver from network.toml; nothing was decided by its answer"


class ChainDisagrees(PeerFault):
    """Two liteservers name different blocks for one place of the chain."""

    code = "chain_disagrees"
    exit_code = 67
    remedy = "one of them lies or follows another chain: compare with a third, remove the wrong one"


class Malformed(PeerFault):
    """Bytes that are no message of ours: truncated, too long, not canonical, out of range."""

    code = "malformed"


class NonCanonical(Malformed):
    """A valid meaning in a second spelling."""

    code = "non_canonical"


class TooLarge(Malformed):
    """A length above the limit of its kind; refused before it was allocated."""

    code = "too_large"


class UnknownKind(Malformed):
    """A message kind that this protocol does not have here."""

    code = "unknown_kind"


class UnknownVersion(Malformed):
    """A message version that this peer does not speak."""

    code = "unknown_version"
    remedy = "upgrade Cocoon on the older side"


class BadSignature(PeerFault):
    """A signature does not fit its message and signer."""

    code = "bad_signature"


class BadSeal(PeerFault):
    """A sealed box or frame does not open under its key."""

    code = "bad_seal"


class BadChunk(PeerFault):
    """A chunk or a list of chunk hashes does not fit the manifest."""

    code = "bad_chunk"


class ReceiptMissing(PeerFault):
    """The provider answered the runs but gave no valid receipt in time."""

    code = "receipt_missing"
    exit_code = 35
    remedy = "the outputs are complete but nobody vouches for them; use another provider"


class ReceiptUnsettled(PeerFault):
    """The requester took results and did not countersign their receipt."""

    code = "receipt_unsettled"
    remedy = "the lease is over; a requester that countersigns gets a new one"


class Replayed(PeerFault):
    """A message that was used before; it changes nothing."""

    code = "replayed"


class OutOfOrder(PeerFault):
    """A message that its sender may not send in this state."""

    code = "out_of_order"


class WrongField(PeerFault):
    """A correctly signed message that contradicts what both sides agreed.

    ``code`` names the field: ``wrong_lease``, ``wrong_total`` and so on.
    """

    code = "wrong_field"


def wrong(field_name: str, text: str) -> WrongField:
    """Return the ``WrongField`` whose code is ``wrong_<field_name>``."""
    return _wrong_class(f"wrong_{field_name}")(text)


_WRONG: dict[str, type[WrongField]] = {}

#: Fields that a correctly signed message can get wrong, each with its own code.
WRONG_FIELDS = (
    "network_id", "lease", "requester", "provider", "offer", "call", "model", "price", "ceiling",
    "units", "duration", "lane", "escrow", "seq", "previous", "root", "total", "head",
    "number", "runs", "receipt", "statement", "input", "output", "keys", "profile", "boot", "ttl", "kind",
    "tranche", "payout", "provider_key", "lane_key", "cap", "expiry", "order", "warm",
)


def _wrong_class(code: str) -> type[WrongField]:
    return _WRONG[code]


for _name in WRONG_FIELDS:
    _code = f"wrong_{_name}"
    _WRONG[_code] = type(
        "Wrong" + "".join(p.title() for p in _name.split("_")),
        (WrongField,),
        {"code": _code, "__doc__": f"The signed {_name} is not the agreed one.", "__module__": __name__},
    )
