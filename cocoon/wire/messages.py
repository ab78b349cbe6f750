"""Every message of the protocol, each declared once: kind, fields, bounds.

Ids and hashes are 32 bytes, times and sizes carry their unit in the name, text
is printable (``wire.types.line`` cleans it). Which message may come when is the
business of the machines; what is impossible in itself is refused here.

Purity: pure. Spec: docs/spec/messages.md, rules MSG-1 to MSG-11.
"""

from __future__ import annotations

from cocoon.core.errors import CocoonError, for_peer
from cocoon.core.limits import (
    CHUNK_BYTES,
    DIRECT_TOKEN_BYTES,
    ERROR_TEXT_CHARS,
    MANIFEST_BYTES,
    MODEL_BYTES,
    MODEL_FILES,
    OFFER_BYTES,
    PAYLOAD_BYTES,
    WARM_MODELS,
)
from cocoon.core.units import UnitKind, ceil_div
from cocoon.wire.schema import Message, field, message
from cocoon.wire.types import U8, U16, U32, U64, Each, Exactly, Flag, Line, Row, UpTo, Word, line
from cocoon.wire.widths import (
    BOOT_ID_BYTES,
    CLOSE_BYTES,
    HASH_BYTES,
    HPKE_PUBLIC_BYTES,
    KEY_BYTES,
    LEASE_NONCE_BYTES,
    LINK_NONCE_BYTES,
    SALT_BYTES,
    SIGNATURE_BYTES,
    STATEMENT_BYTES,
    VOUCHER_BYTES,
)

# --- bounds of single fields -----------------------------------------------

HASH = Exactly(HASH_BYTES)
KEY = Exactly(KEY_BYTES)
SIGNATURE = Exactly(SIGNATURE_BYTES)
BOOT_ID = Exactly(BOOT_ID_BYTES)
KIND = Word(16)
CODE = Word(32)
TEXT = Line(ERROR_TEXT_CHARS)
DESCRIPTION = Line(128)
SUITE_MLKEM768_X25519 = 1
#: Chunks of the largest file.
CHUNKS = ceil_div(MODEL_BYTES, CHUNK_BYTES)

#: (``UnitKind``, nanoton per 1,000 units), ascending by kind.
PRICES = Each(Row(U8, U64), most=len(UnitKind))
_UNIT_KINDS = frozenset(UnitKind)


def prices_flaw(prices: tuple[tuple[int, int], ...]) -> str | None:
    """Why these are no prices: not each kind of unit once, in ascending order."""
    kinds = [kind for kind, _ in prices]
    if kinds != sorted(set(kinds)):
        return "prices are not in ascending order of unit kind, each once"
    if not _UNIT_KINDS.issuperset(kinds):
        return "a price is per a unit kind that does not exist"
    return None


def _chunks_flaw(file: int, first: int, count: int) -> str | None:
    if file >= MODEL_FILES or first + count > CHUNKS:
        return f"chunks {first} to {first + count} of file {file} are in no model"
    return None


# --- beat: /cocoon/beat/1 --------------------------------------------------


@message(kind=1, version=1, name="hello")
class Hello(Message):
    """First frame in either direction: who speaks, on which network, since which start."""

    network: bytes = field(1, HASH)
    agent: str = field(2, Line(64))
    boot_id: bytes = field(3, BOOT_ID)
    sells: bool = field(4, Flag())


@message(kind=2, version=1, name="beat")
class Beat(Message):
    """Still here."""

    seq: int = field(1, U64)


@message(kind=3, version=1, name="refusal")
class Refusal(Message):
    """An expected no, on any protocol; ``code`` is one of core.errors."""

    code: str = field(1, CODE)
    text: str = field(2, TEXT)


# --- offers: /cocoon/offer/1 -----------------------------------------------


@message(kind=4, version=1, name="offer_request")
class OfferRequest(Message):
    """What do you ask for tasks of this kind?"""

    network: bytes = field(1, HASH)
    kind: str = field(2, KIND)


@message(kind=6, version=1, name="offer", signed_by="provider", max_body_bytes=OFFER_BYTES)
class Offer(Message):
    """A provider's standing, expiring statement of what it sells and asks."""

    network: bytes = field(1, HASH)
    boot_id: bytes = field(2, BOOT_ID)
    seq: int = field(3, U64)
    ttl_s: int = field(4, U32)
    keys_digest: bytes = field(5, HASH)
    profile_digest: bytes = field(6, HASH)
    kinds: tuple[str, ...] = field(7, Each(KIND, most=4, least=1))
    setup_nanoton: int = field(8, U64)
    prices: tuple[tuple[int, int], ...] = field(9, PRICES)
    max_model_bytes: int = field(10, U64)
    max_memory_bytes: int = field(11, U64)
    max_run_ms: int = field(12, U32)
    max_payload_bytes: int = field(13, U64)
    queue: int = field(14, U32)
    #: Measured, not promised: memory that was free when this was signed, and the digest of ``WarmModels``; zeros if
    #: none is told.
    free_memory_bytes: int = field(15, U64)
    warm: bytes = field(16, HASH)

    def flaw(self) -> str | None:
        """Kinds and prices are sets, so they have one order."""
        if list(self.kinds) != sorted(set(self.kinds)):
            return "kinds are not in ascending order, each once"
        return prices_flaw(self.prices)


@message(kind=15, version=1, name="warm_models")
class WarmModels(Message):
    """Public models that a provider holds and has run: (model, runs in one batch, microseconds of it), as measured."""

    models: tuple[tuple[bytes, int, int], ...] = field(1, Each(Row(HASH, U16, U64), most=WARM_MODELS, least=1))

    def flaw(self) -> str | None:
        """The rows are a set, so they have one order; what was never measured is not told."""
        rows = [(model, batch) for model, batch, _ in self.models]
        if rows != sorted(set(rows)):
            return "models and batch sizes are not in ascending order, each once"
        return None if all(batch and run_us for _, batch, run_us in self.models) else "a batch of nothing, or no time"


@message(kind=7, version=1, name="key_bundle", signed_by="provider")
class KeyBundle(Message):
    """The provider's HPKE key of the day, and where it is paid: both zero on networks without a ledger."""

    network: bytes = field(1, HASH)
    boot_id: bytes = field(2, BOOT_ID)
    suite: int = field(3, U8)
    public: bytes = field(4, UpTo(2_048))
    payout: bytes = field(5, HASH)
    provider_key: bytes = field(6, KEY)

    def flaw(self) -> str | None:
        """The suite decides the length of the key."""
        if self.suite == SUITE_MLKEM768_X25519 and len(self.public) != HPKE_PUBLIC_BYTES:
            return f"a key of suite 1 has {HPKE_PUBLIC_BYTES} bytes, not {len(self.public)}"
        return None


@message(kind=8, version=1, name="profile")
class Profile(Message):
    """What executes the runs, as measured by a real worker."""

    engine: str = field(1, DESCRIPTION)
    provider: str = field(2, DESCRIPTION)
    device: str = field(3, DESCRIPTION)
    threads: int = field(4, U16)
    optimisation: str = field(5, DESCRIPTION)
    memory_bytes: int = field(6, U64)
    platform: str = field(7, DESCRIPTION)


@message(kind=5, version=1, name="offer_reply")
class OfferReply(Message):
    """A signed offer with the bodies of its digests; ``warm`` is empty where the offer tells of no model."""

    offer: bytes = field(1, UpTo(Offer.shape.max_bytes))
    keys: bytes = field(2, UpTo(KeyBundle.shape.max_bytes))
    profile: bytes = field(3, UpTo(Profile.shape.max_bytes))
    warm: bytes = field(4, UpTo(WarmModels.shape.max_bytes))


# --- lease: /cocoon/lease/1 ------------------------------------------------


@message(kind=10, version=1, name="lease", signed_by="requester")
class Lease(Message):
    """What both sides owe: runs of one model, below a ceiling, before an end.

    The last six fields are zero on price-0 leases. On others ``owner`` to
    ``network_tag`` are the birth of the escrow, so that the lease alone proves
    whose key signs its vouchers (MON-11).
    """

    network: bytes = field(1, HASH)
    nonce: bytes = field(2, Exactly(LEASE_NONCE_BYTES))
    requester: bytes = field(3, KEY)
    provider: bytes = field(4, KEY)
    bid: bytes = field(5, HASH)
    model: bytes = field(6, HASH)
    private: bool = field(7, Flag())
    kind: str = field(8, KIND)
    setup_nanoton: int = field(9, U64)
    prices: tuple[tuple[int, int], ...] = field(10, PRICES)
    ceiling_nanoton: int = field(11, U64)
    max_runs: int = field(12, U32)
    duration_s: int = field(13, U32)
    escrow: bytes = field(14, HASH)
    lane: int = field(15, U32)
    run_ms: int = field(16, U32)
    tranche_nanoton: int = field(17, U64)
    owner: bytes = field(18, HASH)
    lane_key: bytes = field(19, KEY)
    index: int = field(20, U32)
    close_delay_s: int = field(21, U32)
    network_tag: int = field(22, U32)

    def flaw(self) -> str | None:
        """Nobody leases from himself, and prices have one order."""
        if self.requester == self.provider:
            return "requester and provider are one peer"
        return prices_flaw(self.prices)


@message(kind=11, version=1, name="key_box", signed_by="requester")
class KeyBox(Message):
    """The link's keys, sealed to the provider and bound to the lease."""

    lease: bytes = field(1, HASH)
    box: bytes = field(2, UpTo(2_048))


@message(kind=9, version=1, name="lease_open")
class LeaseOpen(Message):
    """First frame of a lease stream: the signed proposal, the signed box of keys, the lane's newest voucher.

    Voucher (judged cell) and signature are empty on a lane without one.
    """

    lease: bytes = field(1, UpTo(Lease.shape.max_bytes))
    keybox: bytes = field(2, UpTo(KeyBox.shape.max_bytes))
    voucher: bytes = field(3, UpTo(VOUCHER_BYTES, step=VOUCHER_BYTES))
    signature: bytes = field(4, UpTo(SIGNATURE_BYTES, step=SIGNATURE_BYTES))

    def flaw(self) -> str | None:
        """A voucher is worth nothing without its signature."""
        if bool(self.voucher) != bool(self.signature):
            return "a voucher and its signature go together"
        return None


@message(kind=12, version=1, name="lease_accept", signed_by="provider")
class LeaseAccept(Message):
    """The provider's countersignature; ``nonce`` makes the session keys fresh.

    With ``port`` and ``token`` the link may run on a TCP connection of its own to that port. Of a lease that is opened
    again ``last_stated`` is the number of the last run that the provider knows to have stated.
    """

    lease: bytes = field(1, HASH)
    keybox: bytes = field(2, HASH)
    nonce: bytes = field(3, Exactly(LINK_NONCE_BYTES))
    resumed: bool = field(4, Flag())
    port: int | None = field(64, U16, default=None)
    token: bytes | None = field(65, Exactly(DIRECT_TOKEN_BYTES), default=None)
    last_stated: int | None = field(66, U32, default=None)

    def flaw(self) -> str | None:
        """A port has a token."""
        return None if bool(self.port) == (self.token is not None) else "a port and a token go together"


# --- close: /cocoon/close/1 ------------------------------------------------


@message(kind=13, version=1, name="close_ask")
class CloseAsk(Message):
    """The requester asks to close a lane now: the close order (judged cell) and the lane key's signature."""

    order: bytes = field(1, Exactly(CLOSE_BYTES))
    signature: bytes = field(2, SIGNATURE)


@message(kind=14, version=1, name="close_agree")
class CloseAgree(Message):
    """The provider key's signature of the same order."""

    signature: bytes = field(1, SIGNATURE)


# --- inside the sealed link ------------------------------------------------


@message(kind=20, version=1, name="model_offer")
class ModelOffer(Message):
    """The model that this lease is about, from the requester."""

    manifest: bytes = field(1, UpTo(MANIFEST_BYTES))


@message(kind=21, version=1, name="model_want")
class ModelWant(Message):
    """The provider asks for chunks ``first`` to ``first + count - 1`` of a file."""

    file: int = field(1, U16)
    first: int = field(2, U32)
    count: int = field(3, U32)

    def flaw(self) -> str | None:
        """The chunks can exist."""
        return _chunks_flaw(self.file, self.first, self.count)


@message(kind=22, version=1, name="chunk_hashes")
class ChunkHashes(Message):
    """BLAKE3 hashes of all chunks of a file, one after the other."""

    file: int = field(1, U16)
    hashes: bytes = field(2, UpTo(HASH_BYTES * CHUNKS, step=HASH_BYTES))

    def flaw(self) -> str | None:
        """The file can exist."""
        return _chunks_flaw(self.file, 0, 0)


@message(kind=23, version=1, name="chunk")
class Chunk(Message):
    """One chunk of a file."""

    file: int = field(1, U16)
    index: int = field(2, U32)
    data: bytes = field(3, UpTo(CHUNK_BYTES))

    def flaw(self) -> str | None:
        """The chunk can exist."""
        return _chunks_flaw(self.file, self.index, 1)


@message(kind=24, version=1, name="model_ready")
class ModelReady(Message):
    """The model is loaded and takes runs."""

    load_us: int = field(1, U64)


@message(kind=25, version=1, name="run_request")
class RunRequest(Message):
    """Execute the model once; ``inputs`` are canonical tensors, the salt hides them in the commitment."""

    number: int = field(1, U32)
    salt: bytes = field(2, Exactly(SALT_BYTES))
    inputs: bytes = field(3, UpTo(PAYLOAD_BYTES))


@message(kind=26, version=1, name="run_result")
class RunResult(Message):
    """Outputs of one run and its statement (a judged cell)."""

    number: int = field(1, U32)
    outputs: bytes = field(2, UpTo(PAYLOAD_BYTES))
    statement: bytes = field(3, Exactly(STATEMENT_BYTES))


@message(kind=27, version=1, name="run_failure")
class RunFailure(Message):
    """A run that has no outputs and costs nothing."""

    number: int = field(1, U32)
    code: str = field(2, CODE)
    text: str = field(3, TEXT)


@message(kind=34, version=1, name="run_token")
class RunToken(Message):
    """A decoder's run made a token: its place in the answer from 1, its id, and the running hash so far."""

    number: int = field(1, U32)
    place: int = field(2, U32)
    token: int = field(3, U32)
    head: bytes = field(4, HASH)


@message(kind=35, version=1, name="run_cancel")
class RunCancel(Message):
    """The requester wants no more of a decoder's run; its result then is what was made."""

    number: int = field(1, U32)


@message(kind=28, version=1, name="tranche_close")
class TrancheClose(Message):
    """The requester asks for a receipt over all results up to a number."""

    through: int = field(1, U32)


@message(kind=30, version=1, name="receipt", signed_by="provider")
class Receipt(Message):
    """The provider's account of one tranche; its root covers the statements."""

    network: bytes = field(1, HASH)
    lease: bytes = field(2, HASH)
    lane: int = field(3, U32)
    seq: int = field(4, U32)
    previous: bytes = field(5, HASH)
    root: bytes = field(6, HASH)
    first_number: int = field(7, U32)
    runs: int = field(8, U32)
    units: int = field(9, U64)
    total_nanoton: int = field(10, U64)


@message(kind=29, version=1, name="receipt_issued")
class ReceiptIssued(Message):
    """A signed receipt."""

    receipt: bytes = field(1, UpTo(Receipt.shape.max_bytes))


@message(kind=31, version=1, name="countersign")
class Countersign(Message):
    """A voucher (judged cell) that names the receipt, and its signature."""

    voucher: bytes = field(1, Exactly(VOUCHER_BYTES))
    signature: bytes = field(2, SIGNATURE)


@message(kind=32, version=1, name="lease_close")
class LeaseClose(Message):
    """The last message of a lease, and why."""

    code: str = field(1, CODE)


# --- blobs: /cocoon/blob/1 -------------------------------------------------


@message(kind=40, version=1, name="manifest_request")
class ManifestRequest(Message):
    """Send the manifest of this model."""

    model: bytes = field(1, HASH)


@message(kind=41, version=1, name="manifest_reply")
class ManifestReply(Message):
    """The manifest; its hash is the model id."""

    manifest: bytes = field(1, UpTo(MANIFEST_BYTES))


@message(kind=42, version=1, name="chunk_request")
class ChunkRequest(Message):
    """Send chunks ``first`` to ``first + count - 1`` of a file of this model."""

    model: bytes = field(1, HASH)
    file: int = field(2, U16)
    first: int = field(3, U32)
    count: int = field(4, U32)

    def flaw(self) -> str | None:
        """The chunks can exist."""
        return _chunks_flaw(self.file, self.first, self.count)


def refusal(error: CocoonError) -> Refusal:
    """The refusal that carries ``error`` to the other side as far as that concerns it (ERR-2), cleaned and cut."""
    told = for_peer(error)
    return Refusal(code=told.code, text=line(told.text, ERROR_TEXT_CHARS))


def run_failure(number: int, error: CocoonError) -> RunFailure:
    """The same for one run of a lease."""
    told = for_peer(error)
    return RunFailure(number=number, code=told.code, text=line(told.text, ERROR_TEXT_CHARS))
