"""The weather: network, disk, chain or device cannot serve now.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from cocoon.core.errors.families import Unavailable


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


class ClockSkewed(Unavailable):
    """The clock of this machine and the time of the chain are too far apart for anything that has an expiry."""

    code = "clock_skewed"
    exit_code = 77
    remedy = "set the clock of this machine (`date -u`, NTP); if it is right, the chain or its liteservers stand still"


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


class ModelInUse(Unavailable):
    """An open lease runs this model."""

    code = "model_in_use"
    exit_code = 78
    remedy = "wait until its leases have ended, a minute after their last run"


class LeaseReturned(Unavailable):
    """The lease ended because this side needed it no more; what was not begun goes to another."""

    code = "released"
    remedy = "run it again; a new lease is made"


class LaneBusy(Unavailable):
    """Another lease is open, or not settled, on this lane."""

    code = "lane_busy"
    remedy = "resume and settle that lease first, or take another lane"


class OrderOvertaken(Unavailable):
    """Another order of this escrow ran under the number of ours: a close that its provider had been asked to sign."""

    code = "order_overtaken"
    remedy = "run it again; a new order is made"


class LaneUnproven(Unavailable):
    """The lane is not on chain yet, and the credit before it is used up."""

    code = "lane_unproven"
    remedy = "wait until the order that opens the lane is in a block"


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


class ChainUnreachable(Unavailable):
    """No liteserver of the network answers, or too few to agree."""

    code = "chain_unreachable"
    exit_code = 60
    remedy = "check that the network's devnet or liteservers run; open leases go on within their lanes"


class DevnetLost(Unavailable):
    """The devnet that this peer started does not answer, or did not come up."""

    code = "devnet_lost"
    exit_code = 70
    remedy = "read COCOON_HOME/devnet/stderr; COCOON_LEDGER=none makes a network without money, and without a devnet"


class SignerLost(Unavailable):
    """The process that holds the wallet key ended or does not answer."""

    code = "signer_lost"
    exit_code = 61
    remedy = "restart the peer; nothing was signed"
