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
from typing import ClassVar


class CocoonError(Exception):
    """Root. Never raised itself; catch it only at a process border."""

    code: ClassVar[str] = "cocoon"
    exit_code: ClassVar[int] = 1
    remedy: ClassVar[str] = "report this; it is a defect of Cocoon"

    @property
    def text(self) -> str:
        """What happened, with values and units; one line."""
        return " ".join(str(self.args[0] if self.args else self.__doc__ or "").split())


class UsageError(CocoonError):
    """The caller broke a documented precondition."""

    code = "usage"
    exit_code = 2
    remedy = "correct the call; --help shows the form"


class Unavailable(CocoonError):
    """Network, disk or device cannot serve now."""

    code = "unavailable"
    exit_code = 3
    remedy = "try again later"


class PolicyRefusal(CocoonError):
    """A setting of the user, or of the other side, forbids this."""

    code = "policy_refusal"
    exit_code = 4
    remedy = "change the setting that the message names"


class PeerFault(CocoonError):
    """A remote peer broke the protocol."""

    code = "peer_fault"
    exit_code = 5
    remedy = "use another provider; the message was dropped"


class Corrupt(CocoonError):
    """Our own disk or state contradicts itself."""

    code = "corrupt"
    exit_code = 6
    remedy = "stop the peer and restore COCOON_HOME from a copy"


# --- Unavailable -----------------------------------------------------------


class NoProvider(Unavailable):
    """No provider that can do this task answered."""

    code = "no_provider"
    exit_code = 10
    remedy = "start one with `cocoon up --provide`, or wait until one joins"


class NoLocalPeer(Unavailable):
    """No peer runs on this COCOON_HOME."""

    code = "no_local_peer"
    exit_code = 11
    remedy = "start one with `cocoon up` in another terminal"


class LocalPeerLost(Unavailable):
    """The peer of COCOON_HOME ended, or fell silent, in the middle of a call."""

    code = "local_peer_lost"
    exit_code = 29
    remedy = "see its last lines, start it again with `cocoon up`, and look at `cocoon receipts ls`"


class BootstrapUnreachable(Unavailable):
    """None of the known peers of the network answered."""

    code = "bootstrap_unreachable"
    exit_code = 12
    remedy = "check that a peer of the link runs and that its address is reachable"


class Unreachable(Unavailable):
    """A peer could not be dialled, or did not speak our protocol in time."""

    code = "unreachable"
    remedy = "check the address, or try another peer"


class StreamClosed(Unavailable):
    """A stream ended: closed, reset, or its peer was lost."""

    code = "stream_closed"
    remedy = "open a new stream; if the peer is gone, use another"


class ListenFailed(Unavailable):
    """None or not all of the configured addresses could be bound."""

    code = "listen_failed"
    exit_code = 39
    remedy = "free the port, or set another listen address"


class ProviderLost(Unavailable):
    """The provider vanished or went silent in the middle of the task."""

    code = "provider_lost"
    exit_code = 24
    remedy = "run the task again; units already returned are kept"


class ProviderBusy(Unavailable):
    """The provider has no free place for a lease."""

    code = "busy"
    remedy = "try again in a moment, or another provider"


class DeadlineExceeded(Unavailable):
    """The task did not end before its deadline."""

    code = "deadline_exceeded"
    exit_code = 22
    remedy = "give it more time with --deadline"


class StorageFull(Unavailable):
    """The disk of COCOON_HOME cannot take another record."""

    code = "storage_full"
    exit_code = 30
    remedy = "free space on the disk of COCOON_HOME; the peer goes on by itself"


class LeaseReturned(Unavailable):
    """The lease ended because this side needed it no more; what was not begun goes to another."""

    code = "released"
    remedy = "run it again; a new lease is made"


class LeaseIdle(Unavailable):
    """A warm lease ended because nobody used it."""

    code = "idle"
    remedy = "run it again; a new lease is made"


class Cancelled(Unavailable):
    """Whoever asked for it went away."""

    code = "cancelled"
    remedy = "run it again"


class Draining(Unavailable):
    """The peer is shutting down and takes nothing new."""

    code = "draining"
    remedy = "use another provider"


class RunLost(Unavailable):
    """This run was begun before a crash and is never executed a second time."""

    code = "run_lost"
    remedy = "submit the unit again under a new run"


class WorkerLost(Unavailable):
    """The process that ran the model died."""

    code = "worker_lost"
    exit_code = 25
    remedy = "run again; if it recurs, the model crashes ONNX Runtime"


# --- UsageError ------------------------------------------------------------


class WrongNetwork(UsageError):
    """A peer, a link or a home belongs to another network."""

    code = "wrong_network"
    exit_code = 13
    remedy = "use the link of this network, or another COCOON_HOME"


class HomeInUse(UsageError):
    """Another peer runs on this COCOON_HOME."""

    code = "home_in_use"
    exit_code = 14
    remedy = "stop that peer, or set COCOON_HOME to another directory"


class LaxPermissions(UsageError):
    """A secret file can be read by others."""

    code = "lax_permissions"
    exit_code = 15
    remedy = "chmod 600 the file and 700 its directory; if others could read it, make a new identity"


class BadConfig(UsageError):
    """A setting has an unknown name or an impossible value."""

    code = "bad_config"
    exit_code = 16
    remedy = "`cocoon config show --origin` lists every setting and where it comes from"


class BadLink(UsageError):
    """A join link cannot be read."""

    code = "bad_link"
    exit_code = 17
    remedy = "copy the whole line `cocoon://join/...` that `cocoon up` printed"


class NotFound(UsageError):
    """The named receipt, model or file does not exist."""

    code = "not_found"
    exit_code = 18
    remedy = "list what exists first"


class NothingToDo(UsageError):
    """The given directory or task holds no work."""

    code = "nothing_to_do"
    exit_code = 19
    remedy = "name a directory with readable regular files"


class ModelRefused(UsageError):
    """The model is no valid ONNX, or holds something a provider never runs."""

    code = "model_refused"
    exit_code = 20
    remedy = "check the model with onnx.checker; external data and custom operators are refused"


class InputsMismatch(UsageError):
    """Names, shapes or dtypes of the inputs are not the model's."""

    code = "inputs_mismatch"
    exit_code = 23
    remedy = "give exactly the model's inputs; the message lists them"


class BadInput(UsageError):
    """An input file is no npz, or holds something that is not plain tensors."""

    code = "bad_input"
    exit_code = 31
    remedy = "write the file with numpy.savez (no object arrays) or cocoon.sdk.npz.save"


class RunFailed(UsageError):
    """The model's own operators failed on these inputs, say an index out of bounds."""

    code = "run_failed"
    exit_code = 34
    remedy = "check the values of the inputs against the same model in plain ONNX Runtime"


class DtypeUnsupported(UsageError):
    """A dtype that Cocoon does not carry yet."""

    code = "dtype_unsupported"
    exit_code = 26
    remedy = "cast to float32 or float16 inside the model"


class Duplicate(UsageError):
    """A journal record with this unique key exists; nothing was written."""

    code = "duplicate"
    remedy = "nothing to do: it is recorded already"


class SchemaNewer(UsageError):
    """The data of this home was written by a newer Cocoon."""

    code = "schema_newer"
    exit_code = 33
    remedy = "use the newer Cocoon again, or restore the copy that it made when it upgraded the home"


# --- PolicyRefusal ---------------------------------------------------------


class MemoryExceeded(PolicyRefusal):
    """The model wanted more memory than its limit."""

    code = "memory_exceeded"
    exit_code = 21
    remedy = "use a smaller model or batch, or a provider with a higher limit"


class RunTimeout(PolicyRefusal):
    """The model did not end within the time of one run; its process was killed."""

    code = "run_timeout"
    exit_code = 36
    remedy = "use a smaller input, or a provider with a higher limit"


class CeilingExceeded(PolicyRefusal):
    """Every offer costs more than the caller allows."""

    code = "ceiling_exceeded"
    exit_code = 27
    remedy = "raise --max-price"


class LimitExceeded(PolicyRefusal):
    """Something is larger than a limit of this or the other peer."""

    code = "limit_exceeded"
    exit_code = 28
    remedy = "split the work, or use a peer with a higher limit"


class KindRefused(PolicyRefusal):
    """The peer does not sell this kind of task."""

    code = "kind_refused"
    remedy = "use another provider"


# --- PeerFault -------------------------------------------------------------


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
    "network_id", "lease", "requester", "provider", "offer", "model", "price", "ceiling",
    "units", "duration", "lane", "escrow", "seq", "previous", "root", "total", "head",
    "number", "runs", "receipt", "statement", "input", "output", "keys", "profile", "boot", "ttl", "kind",
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
