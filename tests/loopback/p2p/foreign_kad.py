"""A stock py-libp2p node of the public Kademlia that dials one of ours and tries to talk to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from cocoon.p2p import compat  # first: libp2p cannot be imported without it

# isort: split
import libp2p
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.exceptions import BaseLibp2pError
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.network.swarm import Swarm
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

PUBLIC = "/ipfs/kad/1.0.0"


async def live(given: dict) -> None:
    for module in compat._KAD_MODULES:
        module.PROTOCOL_ID = PUBLIC
    keys = create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_noise_key_pair().private_key)
    host = libp2p.new_host(key_pair=keys, sec_opt={NOISE: noise})
    assert isinstance(host.get_network(), Swarm)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        kad = KadDHT(host, DHTMode.SERVER)
        async with background_trio_service(kad):
            print(json.dumps({"event": "ready", "peer": "", "addresses": []}), flush=True)
            info = info_from_p2p_addr(Multiaddr(given["peer"]))
            await host.connect(info)
            await host._identify_peer(info.peer_id, reason="test")
            streams = 0
            for _ in range(3):
                try:
                    stream = await host.new_stream(info.peer_id, [PUBLIC])
                    streams += 1
                    await stream.reset()
                except BaseLibp2pError:
                    pass
            await kad.add_peer(info.peer_id)
            table = kad.get_routing_table_size()
            print(json.dumps({"event": "tried", "kad_streams": streams, "table": table}), flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        await host.close()


def main(argv: Sequence[str]) -> int:
    """Live as the JSON of the only argument says."""
    trio.run(live, json.loads(argv[0]))
    return 0
