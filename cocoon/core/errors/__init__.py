"""Typed errors: who is to blame, a stable code, and what to do.

Blame decides the family: ``UsageError`` is ours, ``PeerFault`` is theirs,
``Unavailable`` is the weather, ``Corrupt`` is our disk, ``PolicyRefusal`` is a
setting of the user. ``code`` is stable: it stands in ``--json`` and in
docs/reference/errors.md, and some travel between peers (``PEER_CODES``).
``exit_code`` is what the command line ends with.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from cocoon.core.errors.damage import (
    AuditFailed,
)
from cocoon.core.errors.families import (
    CocoonError,
    Corrupt,
    PeerFault,
    PolicyRefusal,
    Unavailable,
    UsageError,
)
from cocoon.core.errors.peer import (
    WRONG_FIELDS,
    BadChunk,
    BadProof,
    BadSeal,
    BadSignature,
    ChainDisagrees,
    Malformed,
    NonCanonical,
    OutOfOrder,
    ReceiptMissing,
    ReceiptUnsettled,
    Replayed,
    TooLarge,
    UnknownKind,
    UnknownVersion,
    WrongField,
    wrong,
)
from cocoon.core.errors.policy import (
    BelowCost,
    BidExpired,
    CapExceeded,
    CeilingExceeded,
    CreditRefused,
    KindRefused,
    LaneClosing,
    LicenceRefused,
    LimitExceeded,
    MemoryExceeded,
    ModelDenied,
    PublicUnproven,
    RunTimeout,
)
from cocoon.core.errors.usage import (
    BadConfig,
    BadInput,
    BadLink,
    BadScenario,
    BadWords,
    ChainRefused,
    DtypeUnsupported,
    Duplicate,
    HomeInUse,
    InputsMismatch,
    InsufficientFunds,
    LaxPermissions,
    ModelRefused,
    NoLedger,
    NotFound,
    NothingToDo,
    RuleBroken,
    RunFailed,
    SchemaNewer,
    WrongNetwork,
)
from cocoon.core.errors.weather import (
    BootstrapUnreachable,
    Cancelled,
    ChainUnreachable,
    ClockSkewed,
    DeadlineExceeded,
    DevnetLost,
    Draining,
    LaneBusy,
    LaneUnproven,
    LeaseIdle,
    LeaseReturned,
    ListenFailed,
    LocalPeerLost,
    ModelInUse,
    NoLocalPeer,
    NoProvider,
    OrderOvertaken,
    ProviderBusy,
    ProviderLost,
    RunLost,
    SignerLost,
    StorageFull,
    StreamClosed,
    Unreachable,
    WorkerLost,
)

__all__ = [
    "AuditFailed",
    "BadChunk",
    "BadConfig",
    "BadInput",
    "BadLink",
    "BadProof",
    "BadScenario",
    "BadSeal",
    "BadSignature",
    "BadWords",
    "BelowCost",
    "BidExpired",
    "BootstrapUnreachable",
    "Cancelled",
    "CapExceeded",
    "CeilingExceeded",
    "ChainDisagrees",
    "ChainRefused",
    "ChainUnreachable",
    "ClockSkewed",
    "CocoonError",
    "Corrupt",
    "CreditRefused",
    "DeadlineExceeded",
    "DevnetLost",
    "Draining",
    "DtypeUnsupported",
    "Duplicate",
    "HomeInUse",
    "InputsMismatch",
    "InsufficientFunds",
    "KindRefused",
    "LaneBusy",
    "LaneClosing",
    "LaneUnproven",
    "LaxPermissions",
    "LeaseIdle",
    "LeaseReturned",
    "LicenceRefused",
    "LimitExceeded",
    "ListenFailed",
    "LocalPeerLost",
    "Malformed",
    "MemoryExceeded",
    "ModelDenied",
    "ModelInUse",
    "ModelRefused",
    "NoLedger",
    "NoLocalPeer",
    "NoProvider",
    "NonCanonical",
    "NotFound",
    "NothingToDo",
    "OrderOvertaken",
    "OutOfOrder",
    "PEER_CODES",
    "PeerFault",
    "PolicyRefusal",
    "ProviderBusy",
    "ProviderLost",
    "PublicUnproven",
    "ReceiptMissing",
    "ReceiptUnsettled",
    "Replayed",
    "RuleBroken",
    "RunFailed",
    "RunLost",
    "RunTimeout",
    "SchemaNewer",
    "SignerLost",
    "StorageFull",
    "StreamClosed",
    "TooLarge",
    "Unavailable",
    "UnknownKind",
    "UnknownVersion",
    "Unreachable",
    "UsageError",
    "WRONG_FIELDS",
    "WorkerLost",
    "WrongField",
    "WrongNetwork",
    "all_errors",
    "for_peer",
    "from_code",
    "from_peer",
    "wrong",
]

#: What peers tell each other in Refusal, RunFailure and LeaseClose. Any other code speaks of the sender's own house:
#: its remedy would send our user to look at ours.
PEER_CODES = frozenset(cls.code for cls in (
    # not here, not now, not so much
    Unavailable, Unreachable, ProviderBusy, Draining, StorageFull, NotFound, WrongNetwork, KindRefused, BelowCost,
    ModelDenied, LicenceRefused, LimitExceeded, BidExpired, CeilingExceeded, CreditRefused, LaneBusy, LaneClosing,
    LaneUnproven, ChainUnreachable,
    # a model or a run
    ModelRefused, InputsMismatch, DtypeUnsupported, RunFailed, RunLost, RunTimeout, MemoryExceeded, WorkerLost,
    # the end of a lease
    LeaseReturned, LeaseIdle, DeadlineExceeded, ProviderLost, StreamClosed,
    # what the other side did wrong
    PeerFault, Malformed, NonCanonical, TooLarge, UnknownKind, UnknownVersion, BadSignature, BadSeal, BadChunk,
    OutOfOrder, Replayed, ReceiptUnsettled, WrongField,
)) | {f"wrong_{name}" for name in WRONG_FIELDS}


def all_errors() -> Iterator[type[CocoonError]]:
    """Every error class, the root first, in a stable order."""
    todo: list[type[CocoonError]] = [CocoonError]
    while todo:
        cls = todo.pop(0)
        yield cls
        todo.extend(cls.__subclasses__())


@cache
def _by_code() -> dict[str, type[CocoonError]]:
    """The first class of each code; a process declares them all before it meets a code."""
    return {cls.code: cls for cls in reversed(tuple(all_errors()))}


def from_code(code: str, text: str) -> CocoonError:
    """Rebuild an error of our own side (control socket, signer, a row); an unknown code blames the sender."""
    if (cls := _by_code().get(code)) is not None:
        return cls(text)
    return PeerFault(f"unknown error code {code[:64]!r}: {text}")


def from_peer(code: str, text: str) -> CocoonError:
    """What another peer said, as an error here; a code that peers do not exchange blames the sender (ERR-2)."""
    if code in PEER_CODES:
        return from_code(code, text)
    return PeerFault(f"the peer answered {code[:64]!r}: {text}")


def for_peer(error: CocoonError) -> CocoonError:
    """What another peer is told of ``error``: itself, or no more than that we cannot serve now (ERR-2)."""
    if isinstance(error, StorageFull):
        return StorageFull("the other peer's disk is full")         # and not where it lies
    return error if error.code in PEER_CODES else Unavailable("the other peer cannot serve now")
