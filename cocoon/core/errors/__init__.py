"""Typed errors: who is to blame, a stable code, and what to do.

Blame decides the family: ``UsageError`` is ours, ``PeerFault`` is theirs,
``Unavailable`` is the weather, ``Corrupt`` is our disk, ``PolicyRefusal`` is a
setting of the user. ``code`` is stable: it travels between peers, stands in
``--json`` and in docs/reference/errors.md. ``exit_code`` is what the command
line ends with.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    CapExceeded,
    CeilingExceeded,
    CreditRefused,
    KindRefused,
    LaneClosing,
    LimitExceeded,
    MemoryExceeded,
    PublicUnproven,
    RunTimeout,
)
from cocoon.core.errors.usage import (
    BadConfig,
    BadInput,
    BadLink,
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
    RunFailed,
    SchemaNewer,
    WrongNetwork,
)
from cocoon.core.errors.weather import (
    BootstrapUnreachable,
    Cancelled,
    ChainUnreachable,
    DeadlineExceeded,
    DevnetLost,
    Draining,
    LaneBusy,
    LaneUnproven,
    LeaseIdle,
    LeaseReturned,
    ListenFailed,
    LocalPeerLost,
    NoLocalPeer,
    NoProvider,
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
    "WRONG_FIELDS",
    "AuditFailed",
    "BadChunk",
    "BadConfig",
    "BadInput",
    "BadLink",
    "BadProof",
    "BadSeal",
    "BadSignature",
    "BadWords",
    "BootstrapUnreachable",
    "Cancelled",
    "CapExceeded",
    "CeilingExceeded",
    "ChainDisagrees",
    "ChainRefused",
    "ChainUnreachable",
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
    "LimitExceeded",
    "ListenFailed",
    "LocalPeerLost",
    "Malformed",
    "MemoryExceeded",
    "ModelRefused",
    "NoLedger",
    "NoLocalPeer",
    "NoProvider",
    "NonCanonical",
    "NotFound",
    "NothingToDo",
    "OutOfOrder",
    "PeerFault",
    "PolicyRefusal",
    "ProviderBusy",
    "ProviderLost",
    "PublicUnproven",
    "ReceiptMissing",
    "ReceiptUnsettled",
    "Replayed",
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
    "WorkerLost",
    "WrongField",
    "WrongNetwork",
    "all_errors",
    "from_code",
    "wrong",
]


def all_errors() -> Iterator[type[CocoonError]]:
    """Every error class, the root first, in a stable order."""
    todo: list[type[CocoonError]] = [CocoonError]
    while todo:
        cls = todo.pop(0)
        yield cls
        todo.extend(cls.__subclasses__())


def from_code(code: str, text: str) -> CocoonError:
    """Rebuild an error that travelled as (code, text); unknown codes blame the sender."""
    for cls in all_errors():
        if cls.code == code:
            return cls(text)
    return PeerFault(f"unknown error code {code[:64]!r}: {text}")
