"""What all peers of a world stand on, and what they carry themselves: key, clock, disk, life.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-1 to SIM-8.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.rng import Stream, stream
from cocoon.core.units import PPM, SECOND_NS
from cocoon.core.values import Value
from cocoon.ledger.lanes import LaneRules
from sim.checks import Checks
from sim.engine.chain import Chain
from sim.engine.flow import Scope
from sim.engine.heap import Heap, Trace
from sim.engine.journal import Journal
from sim.engine.network import End, Network
from sim.peers.words import RealSigner, Words

#: Wall time at the beginning of every world, seconds since 1970; only differences matter.
BEGAN_S = 1_800_000_000


@dataclass(slots=True)
class Ground:
    """Shared by all peers."""

    seed: int
    heap: Heap
    network: Network
    words: Words
    trace: Trace
    checks: Checks
    network_id: NetworkId
    #: None where everything is free.
    chain: Chain | None
    #: What lanes must be like.
    rules: LaneRules
    peers: list[Peer] = field(default_factory=list)
    by_key: dict[PeerKey, Peer] = field(default_factory=dict)
    #: Neighbours that each peer opens a gossip stream to.
    opens: list[list[Peer]] = field(default_factory=list)
    #: Keys of all providers: what a look-up in the DHT would find, which is not simulated.
    sellers: list[PeerKey] = field(default_factory=list)


class Skew(Value):
    """How wrong a peer's clocks are: its monotonic one runs so much faster, its wall clock is so far ahead."""

    drift_ppm: int = 0
    wall_s: int = 0


class Peer:
    """One peer over all its lives; what it does is in its roles."""

    def __init__(self, ground: Ground, number: int, signer: RealSigner, region: int, skew: Skew) -> None:
        self.ground = ground
        self.number = number
        self.signer = signer
        self.key = signer.key
        self.region = region
        self.skew = skew
        # At hand, because a machine's every fact asks for the time.
        self._heap, self._drift_ppm, self._ahead_ns = ground.heap, skew.drift_ppm, (number + 1) * SECOND_NS
        self.life = 0
        self.alive = False
        self.boot_id = bytes(8)
        self.began_ns = 0
        self.journal = Journal(ground.heap)
        self.weather = stream(ground.seed, self.key, "weather")
        self.draws = stream(ground.seed, self.key, "ids")
        self.scope = Scope(ground.heap)
        #: What begins anew with every life.
        self.roles: list[Callable[[Peer], None]] = []
        self._serves: dict[str, Callable[[End], None]] = {}

    # --- life ------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life, with nothing but the journal of those before."""
        self.life += 1
        self.alive = True
        self.boot_id = self.random(8)
        self.began_ns = self.ground.heap.now_ns
        self.scope = Scope(self.ground.heap)
        self._serves = {}
        for role in self.roles:
            role(self)

    def serve(self, protocols: Mapping[str, Callable[[End], None]]) -> None:
        """Take streams of these protocols for the rest of this life."""
        self._serves.update(protocols)

    def crash(self, *, silent: bool) -> None:
        """End a life in the middle of everything."""
        self.alive = False
        self.scope.close()
        self.journal.crash(self.weather, power=silent)
        self.ground.network.crash(self, silent=silent)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin something that ends with this life at the latest."""
        self.scope.spawn(work)

    # --- clocks ----------------------------------------------------------------

    def now_ns(self) -> int:
        """Monotonic; each peer's began at another number."""
        now_ns = self._heap.now_ns
        return now_ns + now_ns * self._drift_ppm // PPM + self._ahead_ns

    def world_ns(self, peer_ns: int) -> int:
        """When ``now_ns`` is that, or just after."""
        since_ns = max(0, peer_ns - self._ahead_ns)
        return since_ns * PPM // (PPM + self._drift_ppm) + 1

    def wall_s(self) -> int:
        """Seconds since 1970, as this peer believes."""
        return BEGAN_S + self.skew.wall_s + self.ground.heap.now_ns // SECOND_NS

    # --- words -----------------------------------------------------------------

    def random(self, length: int) -> bytes:
        """What the operating system would give: ids, nonces, salts."""
        return b"".join(self.draws.bits64().to_bytes(8, "big") for _ in range((length + 7) // 8))[:length]

    def stream(self, purpose: str) -> Stream:
        """Draws for one purpose of this life."""
        return stream(self.ground.seed, self.key + self.life.to_bytes(4, "big"), purpose)

    def note(self, machine: object, event: object, effects: Sequence[object]) -> None:
        """A machine of this peer took a fact."""
        trace = self.ground.trace
        trace.facts += 1
        if not trace.writes:
            return
        orders = ",".join([type(effect).__name__ for effect in effects]) if effects else ""
        trace.note(f"{self._heap.now_ns} {self.number} {type(event).__name__} {orders}\n")

    def drive(self, machine: Any, event: Any) -> Any:
        """Give a fact to a machine that needs no driver, and return its orders."""
        effects = machine.handle(self.now_ns(), event)
        self.note(machine, event, effects or ())
        return effects

    # --- streams ---------------------------------------------------------------

    def open(self, peer: PeerKey, protocol: str) -> End | None:
        """A stream to another peer; None to nobody we could reach."""
        other = self.ground.by_key.get(peer)
        return None if other is None else self.ground.network.open(self, other, protocol)

    def accept(self, end: End, protocol: str) -> None:
        """Take a stream of another peer."""
        serve = self._serves.get(protocol)
        if serve is None:
            end.close()
        else:
            serve(end)
