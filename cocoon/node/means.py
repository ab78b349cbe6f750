"""What a peer buys and sells with: the parts that every lease of it shares.

Purity: shell.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.core.clock import Clock
from cocoon.core.ids import NetworkId
from cocoon.identity.keys import Identity
from cocoon.node.counter import OfferCounter
from cocoon.node.models import HeldModel, ModelShelf
from cocoon.node.stock import Terms
from cocoon.p2p.service import Mesh
from cocoon.runtime.service import Runtime
from cocoon.store.service import Journal
from cocoon.telemetry.log import Log


@dataclass(frozen=True, slots=True)
class Shop:
    """What a provider sells with; shared by all its leases."""

    identity: Identity
    network: NetworkId
    counter: OfferCounter
    shelf: ModelShelf
    runtime: Runtime
    journal: Journal
    terms: Terms
    mesh: Mesh
    clock: Clock
    log: Log


@dataclass(frozen=True, slots=True)
class Order:
    """The model of a lease and the conditions of the user. Money in nanoton."""

    model: HeldModel
    private: bool
    kind: str
    ceiling_nanoton: int


@dataclass(frozen=True, slots=True)
class Purse:
    """What a requester buys with; shared by all its leases."""

    identity: Identity
    network: NetworkId
    mesh: Mesh
    journal: Journal
    clock: Clock
    log: Log
    lease_idle_ns: int
