"""Keys and rules of money that both sides of a simulated market know.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-9 and SIM-10; lanes.md.
"""

from __future__ import annotations

import hashlib

from cocoon.core.ids import PeerKey
from cocoon.core.limits import DEVNET_CLAIM_MARGIN_S, DEVNET_CLOSE_DELAY_S
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.lanes import LaneRules
from sim.engine.chain import CLAIM_FEE_NANOTON, ORDER_FEE_NANOTON
from sim.peers.ground import Peer
from sim.peers.words import KnownSigner, RealSigner

CLOSE_DELAY_S = DEVNET_CLOSE_DELAY_S
#: First 32 bits of the simulated chain's genesis.
NETWORK_TAG = 0x51AA51AA


def lane_rules(life_s: int) -> LaneRules:
    """What lanes of a simulated market must be like; new ones live at least so long."""
    return LaneRules(DEVNET_CLAIM_MARGIN_S, ORDER_FEE_NANOTON, CLAIM_FEE_NANOTON, life_s)


def payout_of(peer: PeerKey) -> bytes:
    """The wallet of a peer: where its coins are, and where lanes pay it."""
    return hashlib.sha256(b"wallet" + peer).digest()


def lane_signer(peer: Peer) -> RealSigner:
    """The key that signs a requester's vouchers."""
    return KnownSigner(peer.ground.seed, b"lane" + peer.key, peer.ground.words.made)


def provider_signer(peer: Peer) -> RealSigner:
    """The key that lanes name for a provider."""
    return RealSigner(peer.ground.seed, b"provider" + peer.key)


def birth_of(peer: Peer) -> EscrowBirth:
    """What the address of a requester's escrow depends on."""
    return EscrowBirth(payout_of(peer.key), lane_signer(peer).key, NETWORK_TAG, 0, CLOSE_DELAY_S)
