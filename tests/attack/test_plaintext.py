"""A running peer speaks to nobody who does not encrypt."""

from __future__ import annotations

import pytest
import trio

import cocoon
import cocoon.p2p.compat  # noqa: F401 - first: libp2p cannot be imported without it

# isort: split
import libp2p
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.exceptions import SwarmException
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from multiaddr import Multiaddr

from cocoon.core.units import KINDS
from tests.attack.conftest import Seller
from tests.attack.hostile_requester import customer
from tests.loopback.town import PATIENCE_S


async def test_a_stock_host_that_dials_in_plaintext_is_refused_by_a_running_peer(seller: Seller) -> None:
    keys = create_new_key_pair()
    plain = libp2p.new_host(key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)})
    where = info_from_p2p_addr(Multiaddr(seller.network.bootstraps[0]))
    before = seller.tally()
    async with plain.run(listen_addrs=[]):
        try:
            with trio.fail_after(PATIENCE_S), pytest.raises(SwarmException):
                await plain.connect(where)
            assert cocoon.connect(seller.peer.home).status()["connections"] == []
        finally:
            await plain.close()
    async with customer(seller.network) as guest:       # who encrypts is still served
        assert (await guest.quote()).offer.kinds == KINDS
    assert seller.gained(before) == {}
