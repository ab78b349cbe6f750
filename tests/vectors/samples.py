"""One example of every message, cell, manifest, tensor set and commitment, made of fixed words.

Purity: pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from nacl.signing import SigningKey

from cocoon.core.ids import PeerKey
from cocoon.core.limits import GOSSIP_PARTS
from cocoon.core.units import UnitKind
from cocoon.core.values import replace
from cocoon.wire import market
from cocoon.wire import messages as m
from cocoon.wire.bundle import Alike, Bundle
from cocoon.wire.commitment import commit
from cocoon.wire.declarations import End, Tolerance
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest, OfferSummary, OfferWant
from cocoon.wire.judged import NO_ESCROW, Statement, Voucher, sign_cell
from cocoon.wire.manifest import Manifest, ModelFile, chunk_hash, file_root, implicit, model_id, pack_manifest
from cocoon.wire.resume import LinkResume, LinkResumed
from cocoon.wire.schema import Message, digest, pack
from cocoon.wire.signing import Signed, sign
from cocoon.wire.tensors import encode_tensors


@dataclass(frozen=True)
class FixedSigner:
    """A real Ed25519 key that everybody knows."""

    secret: SigningKey

    @property
    def key(self) -> PeerKey:
        return PeerKey(bytes(self.secret.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self.secret.sign(message).signature


def word(text: str, size: int = 32) -> bytes:
    """``size`` bytes that follow from ``text``."""
    return hashlib.shake_256(text.encode()).digest(size)


def signer(name: str) -> FixedSigner:
    return FixedSigner(SigningKey(hashlib.sha256(name.encode()).digest()))


PROVIDER, REQUESTER, STRANGER = signer("provider"), signer("requester"), signer("stranger")
SIGNERS = {"provider": PROVIDER, "requester": REQUESTER}

NETWORK, BOOT = word("network"), word("boot", 8)
PRICES = ((int(UnitKind.RUN), 1_000), (int(UnitKind.OUTPUT_TOKEN), 70_000))
CHUNKS = (b"first chunk", b"second chunk")
HASHES = tuple(chunk_hash(chunk) for chunk in CHUNKS)

MANIFEST = implicit((1 << 20) + 12, HASHES)
TWO_FILES = Manifest(
    format="onnx",
    files=(
        ModelFile("config/empty.json", 0, file_root(())),
        ModelFile("model.onnx", (1 << 20) + 12, file_root(HASHES)),
    ),
)
#: A package that declares all it can.
PACKAGE = replace(
    TWO_FILES, name="Cocoon classifier", version="1.2", licence="Apache-2.0 OR MIT", kind="infer", unit="run",
    inputs=(End("pixels", "float32", ("batch", "3", "224", "224")),), outputs=(End("scores", "float32", ("*",)),),
    before=("image_rgb", "scale_unit"), after=("softmax",), joinable=Tolerance(20, 1_000), determinism="profile",
)
MANIFESTS = {"implicit": MANIFEST, "two_files": TWO_FILES, "package": PACKAGE}

TENSORS: dict[str, dict[str, np.ndarray[Any, Any]]] = {
    "none": {},
    "float32": {"x": np.arange(6, dtype=np.float32).reshape(2, 3) / 3},
    "scalar_float16": {"x": np.array(1.5, dtype=np.float16)},
    "empty": {"x": np.zeros((0, 3), dtype=np.int64)},
    "bool": {"x": np.array([True, False, True])},
    "strings": {"x": np.array([["plain", "trailing nul\0"], ["", "ünï\U0001f98b"]], dtype=object)},
    "integers": {
        name: np.array([np.iinfo(name).min, np.iinfo(name).max], name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    "named_in_order": {"ü": np.zeros(1), "b": np.ones(1), "a:0": np.ones(())},
}

PAYLOADS = {
    "empty": b"",
    "small": b"payload",
    "last_sha256": bytes(1 << 16),
    "first_blake3": bytes((1 << 16) + 1),
}
SALT = word("salt", 16)


def signed(msg: Message) -> Signed[Message]:
    """``msg`` signed by the peer whose role it is."""
    role = msg.shape.signed_by
    assert role is not None
    return sign(msg, SIGNERS[role])


def packed(msg: Message) -> bytes:
    """The bytes of ``msg`` that travel, signed if its kind is."""
    return pack(msg) if msg.shape.signed_by is None else signed(msg).pack()


VOUCHERS = {
    "price_0": Voucher(0xC0FFEE01, NO_ESCROW, lane=0, seq=1, total_nanoton=0, head=word("head")),
    "full": Voucher(
        network_tag=(1 << 32) - 1,
        escrow=word("escrow"),
        lane=7,
        seq=300,
        total_nanoton=(1 << 64) - 1,
        head=word("head"),
    ),
}
STATEMENT = Statement(
    lease=word("lease"),
    number=1,
    input_alg=1,
    input=commit(SALT, b"inputs").hash,
    output_alg=2,
    output=commit(SALT, bytes(1 << 17)).hash,
    units=70_000,
    price_nanoton=1 << 40,
    queued_us=15,
    ran_us=30_000_000,
    joined=8,
    place=3,
)
PROFILE = m.Profile(
    engine="onnxruntime 1.31.0",
    provider="CPUExecutionProvider",
    device="a device",
    threads=2,
    optimisation="all",
    memory_bytes=1 << 31,
    platform="linux x86_64",
)
KEYS = m.KeyBundle(
    network=NETWORK, boot_id=BOOT, suite=1, public=word("hpke", 1_216), payout=word("payout"),
    provider_key=word("provider key"),
)
OFFER = m.Offer(
    network=NETWORK,
    boot_id=BOOT,
    seq=300,
    ttl_s=180,
    keys_digest=digest(KEYS),
    profile_digest=digest(PROFILE),
    kinds=("embed", "infer"),
    setup_nanoton=70_000,
    prices=PRICES,
    max_model_bytes=1 << 31,
    max_memory_bytes=1 << 31,
    max_run_ms=30_000,
    max_payload_bytes=1 << 26,
    queue=8,
    free_memory_bytes=1 << 33,
    warm=word("warm"),
)
CALL = market.Call(
    network=NETWORK, nonce=word("call", 16), kind="infer", model=model_id(MANIFEST), model_bytes=1 << 20, units=300,
    deadline_ms=600_000, tier=0,
)
BID = market.Bid(
    network=NETWORK, call=digest(CALL), offer=digest(OFFER), setup_nanoton=60_000, prices=PRICES, start_ms=300,
    run_us=70_000, warm=True,
)
LEASE = m.Lease(
    network=NETWORK,
    nonce=word("nonce", 16),
    requester=REQUESTER.key,
    provider=PROVIDER.key,
    bid=digest(BID),
    model=model_id(MANIFEST),
    private=True,
    kind="infer",
    setup_nanoton=70_000,
    prices=PRICES,
    ceiling_nanoton=1 << 40,
    max_runs=1_000_000,
    duration_s=3_600,
    escrow=word("escrow"),
    lane=7,
    run_ms=30_000,
    tranche_nanoton=1_000_000,
    owner=word("owner"),
    lane_key=word("lane key"),
    index=1,
    close_delay_s=86_400,
    network_tag=0xC0FFEE01,
)
KEYBOX = m.KeyBox(lease=digest(LEASE), box=word("box", 1_200))
RECEIPT = m.Receipt(
    network=NETWORK,
    lease=digest(LEASE),
    lane=0,
    seq=1,
    previous=bytes(32),
    root=word("root"),
    first_number=1,
    runs=64,
    units=70_000,
    total_nanoton=0,
)
VOUCHER = VOUCHERS["full"]


def _messages() -> list[Message]:
    return [
        m.Hello(network=NETWORK, agent="cocoon/0.1.0", boot_id=BOOT, sells=True),
        m.Beat(seq=70_000),
        m.Refusal(code="busy", text="all 8 places are taken; try again – soon"),
        m.OfferRequest(network=NETWORK, kind="infer"),
        PROFILE,
        KEYS,
        OFFER,
        m.OfferReply(offer=signed(OFFER).pack(), keys=signed(KEYS).pack(), profile=pack(PROFILE), warm=b""),
        m.WarmModels(models=((bytes(32), 1, 3_500), (bytes(32), 16, 21_000))),
        CALL,
        BID,
        market.BidReply(
            call=digest(CALL), bid=signed(BID).pack(), offer=signed(OFFER).pack(), keys=signed(KEYS).pack(),
            profile=pack(PROFILE),
        ),
        market.Decline(call=digest(CALL), code="busy", text="8 of 8 leases are open"),
        market.CallResult(call=digest(CALL), dearer_percent=25, cold=True, slower=False, less_reliable=True),
        LEASE,
        KEYBOX,
        m.LeaseOpen(
            lease=signed(LEASE).pack(), keybox=signed(KEYBOX).pack(), voucher=VOUCHER.pack(),
            signature=sign_cell(VOUCHER.hash(), REQUESTER),
        ),
        m.LeaseAccept(lease=digest(LEASE), keybox=digest(KEYBOX), nonce=word("fresh"), resumed=False),
        LinkResume(lease=digest(LEASE), received=3),
        LinkResumed(received=40),
        m.CloseAsk(order=word("order", 63), signature=word("lane key's", 64)),
        m.CloseAgree(signature=word("provider key's", 64)),
        m.ModelOffer(manifest=pack_manifest(MANIFEST)),
        m.ModelWant(file=0, first=1, count=1),
        m.ChunkHashes(file=0, hashes=b"".join(HASHES)),
        m.Chunk(file=0, index=1, data=CHUNKS[1]),
        m.ModelReady(load_us=2_000_000),
        m.RunRequest(number=1, salt=SALT, inputs=encode_tensors(TENSORS["float32"])),
        m.RunResult(number=1, outputs=encode_tensors(TENSORS["strings"]), statement=STATEMENT.pack()),
        m.RunFailure(number=300, code="inputs_mismatch", text="input x has shape (2, 3)"),
        m.RunToken(number=1, place=3, token=49_151, head=word("head")),
        m.RunCancel(number=1),
        m.TrancheClose(through=64),
        RECEIPT,
        m.ReceiptIssued(receipt=signed(RECEIPT).pack()),
        m.Countersign(voucher=VOUCHER.pack(), signature=sign_cell(VOUCHER.hash(), REQUESTER)),
        m.LeaseClose(code="done"),
        Bundle(messages=(pack(m.TrancheClose(through=64)), pack(m.LeaseClose(code="done")))),
        Alike(kind=35, version=1, columns=((1, 300),)),
        m.ManifestRequest(model=model_id(MANIFEST)),
        m.ManifestReply(manifest=pack_manifest(MANIFEST)),
        m.ChunkRequest(model=model_id(MANIFEST), file=0, first=0, count=2),
        TWO_FILES,
        Interest(kinds=("embed", "infer")),
        OfferDigest(first=bytes(32), last=bytes([255]) * 32, held=((PROVIDER.key, BOOT, 300, 70_000),)),
        OfferDelta(offers=((70_000, signed(OFFER).pack()),)),
        OfferWant(providers=(PROVIDER.key,)),
        OfferSummary(sums=(*range(GOSSIP_PARTS - 1), (1 << 64) - 1)),
    ]


#: Every message by name, ascending by kind.
MESSAGES = {msg.shape.name: msg for msg in sorted(_messages(), key=lambda msg: msg.shape.kind)}
