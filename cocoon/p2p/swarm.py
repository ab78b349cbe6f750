"""The library's swarm with our rules: who may connect, how long, and that nobody dials by himself.

Cures that a subclass can do: the inbound slots of the library are never given
back (after 250 connections in a lifetime nobody can connect any more), there
is no limit per peer or per IP, and the auto-connector dials whatever stands in
the peerstore.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-3; docs/dependencies.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from cocoon.p2p import compat  # first: libp2p cannot be imported without it

# isort: split

import libp2p.host.basic_host as basic_host
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader

from cocoon.core.limits import (
    CONNECTIONS,
    CONNECTIONS_INBOUND,
    CONNECTIONS_PER_PEER,
    CONNECTIONS_PER_PRIVATE_IP,
    CONNECTIONS_PER_PUBLIC_IP,
    HANDSHAKE_NS,
    HANDSHAKES_TRANSIENT,
)
from cocoon.core.units import SECOND_NS
from cocoon.p2p.addresses import address_class

_HANDSHAKE_S = HANDSHAKE_NS / SECOND_NS
_PER_IP = {
    "public": CONNECTIONS_PER_PUBLIC_IP,
    "private": CONNECTIONS_PER_PRIVATE_IP,
    "loopback": CONNECTIONS_INBOUND,
}


class IdleConnector(AutoConnector):
    """Dials nobody. The library's one fills up to half of the connections from the peerstore."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """Start nothing."""

    async def maybe_connect(self) -> None:
        """Dial nobody."""

    def record_disconnect(self, peer_id: ID) -> None:
        """Keep no list either; it would grow with every stranger."""


class GatedSwarm(Swarm):
    """Admission by counts, an end for every inbound task, dials only by address."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.auto_connector = IdleConnector(self)
        self.on_connection: Callable[[SwarmConn], object] = lambda _conn: None
        self.on_refused: Callable[[str], None] = lambda _reason: None
        self._inbound_by_ip: Counter[str] = Counter()
        self._handshakes = 0
        self.leaving = False

    async def _handle_inbound_connection(self, read_write_closer: Any, maddr: Any) -> None:
        """Serve one accepted socket until it is closed, if the limits allow it."""
        ip = _remote_ip(read_write_closer)
        if (reason := self._refusal(ip)) is not None:
            self.on_refused(reason)
            await read_write_closer.close()
            return
        self._inbound_by_ip[ip] += 1
        self._handshakes += 1
        shaking = True
        try:
            muxed: Any = await self.upgrade_inbound_raw_conn(RawConnection(read_write_closer, False), maddr)
            self._handshakes -= 1
            shaking = False
            # The library waits for the end of the whole swarm here.
            await muxed.event_closed.wait()
        except (*compat.TRANSPORT_ERRORS, trio.TooSlowError):
            pass                        # a stranger failed to shake hands
        finally:
            self._handshakes -= shaking
            self._inbound_by_ip[ip] -= 1
            if self._inbound_by_ip[ip] <= 0:
                del self._inbound_by_ip[ip]
            with trio.CancelScope(shield=True):
                await read_write_closer.close()

    def _refusal(self, ip: str) -> str | None:
        if self.leaving:
            return "this peer is shutting down"
        if self._inbound_by_ip.total() >= CONNECTIONS_INBOUND:
            return f"{CONNECTIONS_INBOUND} inbound connections are open"
        if self._handshakes >= HANDSHAKES_TRANSIENT:
            return f"{HANDSHAKES_TRANSIENT} handshakes are under way"
        kind = address_class(ip)
        if self._inbound_by_ip[ip] >= _PER_IP[kind]:
            return f"{_PER_IP[kind]} connections from one {kind} address are open"
        return None

    async def add_conn(self, muxed_conn: Any, direction: str = "unknown") -> SwarmConn:
        """Register an authenticated connection, at most ``CONNECTIONS_PER_PEER`` of one peer."""
        live = [c for c in self.connections.get(muxed_conn.peer_id, []) if not c.is_closed]
        if len(live) >= CONNECTIONS_PER_PEER:
            self.on_refused(f"{CONNECTIONS_PER_PEER} connections of one peer are open")
            await muxed_conn.secured_conn.close()
            raise SwarmException("this peer already has its connections")
        conn = await super().add_conn(muxed_conn, direction)
        self.on_connection(conn)
        return conn

    async def dial_peer(self, peer_id: ID) -> Any:
        """Never: the library would try the first address only and then refuse the peer for 60 s."""
        raise SwarmException(f"{peer_id} is not connected; dials go through Host.dial, one address at a time")

    def _schedule_auto_connect(self) -> None:
        """Dial nobody when somebody leaves."""


def _remote_ip(stream: Any) -> str:
    """IP text of the other end; the library's own answer is None for IPv6."""
    try:
        return str(stream.stream.socket.getpeername()[0])
    except (AttributeError, OSError, IndexError):
        return "?"


def build(seed: bytes) -> tuple[basic_host.BasicHost, GatedSwarm]:
    """A host that speaks TCP, Noise and Yamux and nothing else; the default one accepts plaintext.

    Args:
        seed: Ed25519 seed, 32 bytes.
    """
    keys = create_new_key_pair(seed)
    own_id = ID.from_pubkey(keys.public_key)
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    upgrader = TransportUpgrader({NOISE: noise}, {YAMUX: compat.CalmYamux}, int(_HANDSHAKE_S))  # type: ignore[dict-item]
    peerstore = PeerStore()
    peerstore.add_key_pair(own_id, keys)
    swarm = GatedSwarm(
        own_id, peerstore, upgrader, transports=[TCP()],
        retry_config=RetryConfig(max_retries=0), connection_config=_connection_config(),
    )
    host = basic_host.BasicHost(network=swarm, disable_identify_address_discovery=True)
    # Identify is asked for by our own session; the notifee would do it in system tasks that outlive the host.
    swarm.notifees = [n for n in swarm.notifees if not isinstance(n, basic_host._IdentifyNotifee)]
    return host, swarm


def _connection_config() -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=CONNECTIONS,
        high_watermark=CONNECTIONS,
        low_watermark=0,
        min_connections=0,
        max_connections_per_peer=CONNECTIONS_PER_PEER,
        dial_timeout=_HANDSHAKE_S,
        inbound_upgrade_timeout=_HANDSHAKE_S,
        outbound_upgrade_timeout=_HANDSHAKE_S,
        outbound_stream_protocol_negotiation_timeout=_HANDSHAKE_S,
        inbound_stream_protocol_negotiation_timeout=_HANDSHAKE_S,
    )
