"""The network: delays between regions, loss, cuts, and streams that keep their order or end.

What travels on a stream arrives once and in order, as TCP and the sealed link
have it: loss shows as a delay, and what lasts longer than heartbeats are patient
as the end of the stream on both sides. ``send_loose`` is for frames that their
protocol allows to drop: these are lost, doubled and overtaken.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-3 to SIM-5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cocoon.core.limits import HANDSHAKE_NS, HEARTBEAT_NS, HEARTBEATS_MISSED
from cocoon.core.rng import Stream
from cocoon.core.units import MILLISECOND_NS, PPM
from cocoon.core.values import Value
from sim.engine.heap import Heap
from sim.engine.regions import one_way_ns

#: Silence after which both sides end what was open between them.
SILENCE_NS = HEARTBEAT_NS * (HEARTBEATS_MISSED + 1)
#: TCP sends a lost segment again after this, then after twice as long, and so on (RFC 6298 allows 200 ms and more).
RETRANSMIT_NS = 200 * MILLISECOND_NS
#: TCP, Noise and the multiplexer before the first stream of a new connection: so many ways.
_DIAL_WAYS = 6
#: Ways that a frame can take longer than the shortest one, at most, as a share of it.
_JITTER_PPM = 250_000
#: TCP gives up later than this, but by then a connection is not what it was.
_RETRIES = 6
#: One draw of 64 bits decides two things: the low bits one, the others the other.
_LOT_BITS = 32


class Host(Protocol):
    """Who sends and receives."""

    number: int
    region: int
    life: int
    alive: bool
    weather: Stream

    def accept(self, end: End, protocol: str) -> None:
        """Take a stream that another host opened."""


class Weather(Value):
    """Shares of frames, in ppm."""

    loss_ppm: int = 0
    duplicate_ppm: int = 0
    reorder_ppm: int = 0


class Cut(Value):
    """Nothing gets from one of ``sources`` to one of ``targets`` before ``until_ns``."""

    sources: frozenset[int]
    targets: frozenset[int]
    until_ns: int


@dataclass(slots=True, eq=False)
class End:
    """One host's end of a stream."""

    network: Network
    host: Host
    peer: Host
    is_open: bool = True
    on_frame: Callable[[Any], None] = lambda _: None
    on_close: Callable[[], None] = lambda: None
    other: End = field(init=False, repr=False)
    serial: int = 0
    #: The shortest way between the two hosts.
    shortest_ns: int = 0
    #: What this end has sent arrives until then.
    arrives_ns: int = 0

    def send(self, message: Any) -> None:
        """Once and in order, or never."""
        if self.is_open:
            self.network.carry(self, self.other.hear, message)

    def send_loose(self, message: Any) -> None:
        """Perhaps, perhaps twice, and not in order."""
        if self.is_open:
            self.network.scatter(self, message)

    def close(self) -> None:
        """End the stream; what was sent before still arrives."""
        if self.is_open:
            self.network.forget(self)
            self.network.carry(self, self.other.end)

    def hear(self, message: Any) -> None:
        """A frame has arrived."""
        if self.is_open:
            self.on_frame(message)

    def end(self) -> None:
        """The stream has ended, by the other side or by silence."""
        if self.is_open:
            self.network.forget(self)
            self.on_close()


@dataclass(slots=True)
class Network:
    """All streams of a world."""

    heap: Heap
    weather: Weather
    cuts: list[Cut] = field(default_factory=list)
    frames: int = 0
    #: Open ends of each host, in the order in which they were opened.
    _ends: dict[int, dict[int, End]] = field(default_factory=dict)
    _opened: int = 0
    #: The last cut is over then.
    _cut_until_ns: int = 0
    _known: set[tuple[int, int]] = field(default_factory=set)

    def open(self, host: Host, peer: Host, protocol: str) -> End:
        """A stream to ``peer``; frames may be sent at once, and it ends if nobody is there."""
        here, there = End(self, host, peer), End(self, peer, host)
        here.other, there.other = there, here
        here.shortest_ns = there.shortest_ns = one_way_ns(host.region, peer.region)
        self._opened += 1
        here.serial = there.serial = self._opened
        self._ends.setdefault(host.number, {})[here.serial] = here
        pair = min(host.number, peer.number), max(host.number, peer.number)
        if pair not in self._known:
            here.arrives_ns = self.heap.now_ns + _DIAL_WAYS * here.shortest_ns
        if self.blocked(host.number, peer.number) or self.blocked(peer.number, host.number):
            self.heap.after(HANDSHAKE_NS, here.end)
        else:
            self.carry(here, self._accepted, there, peer.life, protocol, pair)
        return here

    def blocked(self, source: int, target: int) -> int:
        """Until when nothing gets from one to the other; 0 if all does."""
        now_ns = self.heap.now_ns
        if now_ns >= self._cut_until_ns:
            return 0
        return max((
            cut.until_ns for cut in self.cuts
            if now_ns < cut.until_ns and source in cut.sources and target in cut.targets
        ), default=0)

    def cut(self, cut: Cut) -> None:
        """Let nothing through from now on; what outlasts heartbeats ends the streams between."""
        self.cuts = [one for one in self.cuts if self.heap.now_ns < one.until_ns] + [cut]
        self._cut_until_ns = max(self._cut_until_ns, cut.until_ns)
        if cut.until_ns - self.heap.now_ns >= SILENCE_NS:
            self.heap.after(SILENCE_NS, self._fall_silent, cut)

    def crash(self, host: Host, *, silent: bool) -> None:
        """A host is gone: a killed process is noticed by a reset, a host without power by its silence."""
        for end in tuple(self._ends.get(host.number, {}).values()):
            self.forget(end)
            if silent:
                self.heap.after(SILENCE_NS, end.other.end)
            else:
                self.carry(end, end.other.end)
        self._known = {pair for pair in self._known if host.number not in pair}

    def carry(self, end: End, call: Callable[..., None], *args: Any) -> None:
        """Deliver in order behind what this end sent before."""
        self.frames += 1
        source = end.host
        lot = source.weather.bits64()
        delay_ns, lost = _delay_ns(end.shortest_ns, lot), 0
        while lost < _RETRIES and (lot >> _LOT_BITS) % PPM < self.weather.loss_ppm:
            delay_ns += RETRANSMIT_NS << lost
            lost, lot = lost + 1, source.weather.bits64()
        start_ns = self.heap.now_ns
        if start_ns < self._cut_until_ns:
            start_ns = max(start_ns, self.blocked(source.number, end.peer.number))
        end.arrives_ns = max(end.arrives_ns + 1, start_ns + delay_ns)
        self.heap.at(end.arrives_ns, call, *args)

    def scatter(self, end: End, message: Any) -> None:
        """Deliver loosely."""
        self.frames += 1
        draws, weather = end.host.weather, self.weather
        lot = draws.bits64()
        is_cut = self.heap.now_ns < self._cut_until_ns and self.blocked(end.host.number, end.peer.number)
        if is_cut or lot % PPM < weather.loss_ppm:
            return
        copies = 2 if (lot >> _LOT_BITS) % PPM < weather.duplicate_ppm else 1
        for _ in range(copies):
            lot = draws.bits64()
            delay_ns = _delay_ns(end.shortest_ns, lot)
            if (lot >> _LOT_BITS) % PPM < weather.reorder_ppm:
                delay_ns *= 2 + draws.below(3)
            self.heap.after(delay_ns, end.other.hear, message)

    def forget(self, end: End) -> None:
        """This end is closed."""
        end.is_open = False
        self._ends.get(end.host.number, {}).pop(end.serial, None)

    def connected(self, host: int, without: int) -> bool:
        """Whether a stream of this host to anybody but ``without`` is open."""
        return any(end.peer.number != without for end in self._ends.get(host, {}).values())

    def _accepted(self, end: End, life: int, protocol: str, pair: tuple[int, int]) -> None:
        if not end.host.alive or end.host.life != life or not end.other.is_open:
            self.carry(end, end.other.end)
            end.is_open = False
            return
        self._known.add(pair)
        self._ends.setdefault(end.host.number, {})[end.serial] = end
        end.host.accept(end, protocol)

    def _fall_silent(self, cut: Cut) -> None:
        if self.heap.now_ns >= cut.until_ns:
            return
        for number in sorted(cut.sources):
            for end in tuple(self._ends.get(number, {}).values()):
                if end.peer.number in cut.targets:
                    other = end.other
                    end.end()
                    other.end()


def _delay_ns(shortest_ns: int, lot: int) -> int:
    """The low bits of the lot say how much longer than the shortest way it takes."""
    return shortest_ns + (shortest_ns * (lot % (1 << _LOT_BITS)) * _JITTER_PPM // PPM >> _LOT_BITS)
