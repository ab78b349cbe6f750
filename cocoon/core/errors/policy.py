"""A setting of the user, or of the other side, forbids it.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from cocoon.core.errors.families import PolicyRefusal


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


class BidExpired(PolicyRefusal):
    """A bid stands for a minute, for one lease of the requester that called for it."""

    code = "bid_expired"
    remedy = "call for bids again"


class BelowCost(PolicyRefusal):
    """What this provider asks does not pay for the time that the model was measured to take there."""

    code = "below_cost"
    remedy = "use another provider"


class ModelDenied(PolicyRefusal):
    """The owner of this provider does not run this model."""

    code = "model_denied"
    exit_code = 74
    remedy = "use another provider"


class LicenceRefused(PolicyRefusal):
    """The owner of this provider does not run models under this licence."""

    code = "licence_refused"
    exit_code = 79
    remedy = "use another provider, or a model under another licence"


class CreditRefused(PolicyRefusal):
    """This provider gives no credit, or no more of it, before the lane is on chain."""

    code = "credit_refused"
    exit_code = 68
    remedy = "open the lane first, or put more into the escrow"


class LaneClosing(PolicyRefusal):
    """The lane is being closed and takes no further lease."""

    code = "lane_closing"
    exit_code = 69
    remedy = "take another lane"


class PublicUnproven(PolicyRefusal):
    """The network's coins are worth something, and this version cannot prove its blocks."""

    code = "public_unproven"
    exit_code = 73
    remedy = "use a network with a devnet; a later version checks the validators' signatures"


class CapExceeded(PolicyRefusal):
    """The signer would pass its cap of the hour or of the day."""

    code = "cap_exceeded"
    exit_code = 65
    remedy = "wait until the hour or the day is over, or raise the cap that the message names"
