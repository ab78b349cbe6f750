"""What a peer buys and sells with: the parts that every lease of it shares.

Purity: shell.
"""

from __future__ import annotations

from cocoon.core.clock import Clock
from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.values import Value
from cocoon.identity.keys import Identity
from cocoon.node.anchors import Anchors
from cocoon.node.asking import Directory
from cocoon.node.bids import BidDesk
from cocoon.node.counter import OfferCounter
from cocoon.node.market import Market
from cocoon.node.models import HeldModel
from cocoon.node.regard import Regard
from cocoon.node.shelf import ModelShelf
from cocoon.node.stock import Terms
from cocoon.node.till import Till
from cocoon.node.treasury import Treasury
from cocoon.p2p.service import Mesh
from cocoon.runtime.service import Runtime
from cocoon.scheduler.selection import Measure
from cocoon.store.service import Journal
from cocoon.telemetry.log import Log


class Shop(Value):
    """What a provider sells with; shared by all its leases."""

    identity: Identity
    network: NetworkId
    counter: OfferCounter
    bids: BidDesk
    shelf: ModelShelf
    runtime: Runtime
    journal: Journal
    terms: Terms
    mesh: Mesh
    clock: Clock
    log: Log
    #: Both None on a network without a ledger.
    till: Till | None
    anchors: Anchors | None


class Order(Value):
    """The model of a lease and the conditions of the user. Money in nanoton."""

    model: HeldModel
    private: bool
    kind: str
    measure: Measure
    #: Runs that the task wants; a lease must be able to take them all.
    units: int
    #: None takes what is usual now.
    ceiling_nanoton: int | None
    #: Providers whose leases were lost: a warm one of theirs will not do.
    without: frozenset[PeerKey] = frozenset()


class Purse(Value):
    """What a requester buys with; shared by all its leases."""

    identity: Identity
    network: NetworkId
    mesh: Mesh
    journal: Journal
    clock: Clock
    log: Log
    regard: Regard
    directory: Directory
    market: Market
    lease_idle_ns: int
    #: Whether a lease may have a connection of its own.
    direct_links: bool
    #: Most unpaid work that this side asks a provider to risk.
    tranche_nanoton: int
    #: None on a network without a ledger.
    treasury: Treasury | None
