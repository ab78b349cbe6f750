"""A simulated world: a scenario and a seed become peers, accidents and tasks, and in the end a report.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-1 to SIM-14.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cocoon.core.errors import CocoonError, DeadlineExceeded, ProviderBusy
from cocoon.core.ids import NetworkId, PeerKey, TaskId
from cocoon.core.limits import CALLS_REMEMBERED, GOSSIP_OFFERS, OFFER_TTL_S, RETRY_LAST_NS
from cocoon.core.rng import Stream, stream
from cocoon.core.units import KINDS, MIB, MILLISECOND_NS, NANOTON_PER_TON, PPM, SECOND_NS, UNIT_OF, UnitKind
from cocoon.node.stock import Terms
from cocoon.scheduler.strategy import Strategy
from sim.checks import GRACE_NS, Checks, Submitted
from sim.engine.chain import Chain, Pace
from sim.engine.compute import Compute
from sim.engine.faults import Fault
from sim.engine.flow import Scope
from sim.engine.heap import Heap, Trace
from sim.engine.journal import COMMIT_NS
from sim.engine.network import Cut, Network
from sim.peers.buying import Buying
from sim.peers.debts import Debts
from sim.peers.gossiping import Gossiping, draw_mesh
from sim.peers.ground import Ground, Peer, Skew
from sim.peers.market import Market
from sim.peers.models import RUN_TOKENS, Model
from sim.peers.purse import birth_of, lane_rules, payout_of, provider_signer
from sim.peers.regard import Regard
from sim.peers.selling import Selling, Wares
from sim.peers.tasks import Submission, TaskRun
from sim.peers.words import REAL_SIGNERS, FakeSigner, KnownSigner, Words
from sim.report import Report, report
from sim.scenario import Providers, Requesters, Scenario

#: Coins of a peer at the beginning, on a paid network.
_PURSE_NANOTON = 1_000 * NANOTON_PER_TON
#: Seconds before the end at which everybody claims.
_CLAIM_S = 5
#: How often sizes of tables are looked at.
_LOOK_NS = SECOND_NS
#: A power cut waits so long for its peer to write something.
_POWER_AIM_NS = 2 * SECOND_NS
#: After the last accident peers find each other again: streams are opened anew, backed-off retries come round.
CALM_NS = 10 * SECOND_NS
#: And after this every debt was tried again at least once, with some seconds to do it.
SETTLED_NS = RETRY_LAST_NS + 5 * SECOND_NS


@dataclass(slots=True)
class Buyer:
    """What a requester is made of, in its present life."""

    buying: Buying
    regard: Regard
    gossip: Gossiping


class World:
    """One run of one scenario with one seed."""

    def __init__(
        self, scenario: Scenario, seed: int, faults: Sequence[Fault] | None = None, *, keeps_trace: bool = False,
        writes_trace: bool = True,
    ) -> None:
        """``writes_trace`` is for a digest, and costs a twentieth of the time; ``keeps_trace`` also keeps its lines."""
        self.scenario, self.seed = scenario, seed
        self.heap = heap = Heap()
        self.checks = Checks(heap)
        self.are_real = scenario.peers <= REAL_SIGNERS
        chain = None
        if scenario.paid:
            chain = Chain(heap, Pace(scenario.block_ms * MILLISECOND_NS), stream(seed, b"", "chain"))
        self.ground = Ground(
            seed, heap, Network(heap, scenario.weather), Words(self.are_real), Trace(keeps_trace, writes_trace),
            self.checks, NetworkId(hashlib.sha256(b"simulated").digest()), chain, lane_rules(scenario.lane_life_s),
        )
        self.faults = tuple(scenario.faults.draw(seed, scenario.peers) if faults is None else faults)
        self.models = [
            Model(number, scenario.model_mib * MIB, number < scenario.decoders) for number in range(scenario.models)
        ]
        self._draws = stream(seed, b"", "world")
        #: Name of each peer's group.
        self.groups: list[str] = []
        self.sellers: dict[int, Selling] = {}
        self.buyers: dict[int, Buyer] = {}
        #: When who went for good.
        self.left: dict[int, int] = {}
        self._submitted = 0
        for providers in scenario.providers:
            for _ in range(providers.count):
                self._add_provider(providers)
        for requesters in scenario.requesters:
            for _ in range(requesters.count):
                self._add_requester(requesters)
        draw_mesh(self.ground)
        self._money = chain.total_nanoton if chain is not None else 0
        self._scope = Scope(heap)

    def run(self) -> Report:
        """Let the whole time of the scenario pass."""
        for fault in self.faults:
            self.heap.at(fault.at_ns, self._strike, fault)
        self.heap.after(_LOOK_NS, self._look)
        self.heap.at((self.scenario.seconds - _CLAIM_S) * SECOND_NS, self._claim)
        try:
            self.heap.run(self.scenario.seconds * SECOND_NS)
        except CocoonError as error:                    # what a shell would have ended its peer with
            self.checks.breach(f"a peer stopped by {error.code}: {error.text}")
        self._look_back()
        found = report(self)
        self.heap.end()
        return found

    # --- who is there ------------------------------------------------------------

    def _peer(self, group: str) -> Peer:
        number = len(self.ground.peers)
        name = f"peer {number}".encode()
        made = self.ground.words.made
        signer = KnownSigner(self.seed, name, made) if self.are_real else FakeSigner(self.seed, name)
        draws, scenario = self._draws, self.scenario
        skew = Skew(_spread(draws, scenario.drift_ppm), _spread(draws, scenario.wall_skew_s))
        peer = Peer(self.ground, number, signer, draws.below(scenario.regions), skew)
        self.ground.peers.append(peer)
        self.ground.by_key[peer.key] = peer
        self.checks.numbers[peer.key] = number
        self.groups.append(group)
        if self.ground.chain is not None:
            self.ground.chain.wallets[payout_of(peer.key)] = _PURSE_NANOTON
        return peer

    def _add_provider(self, group: Providers) -> None:
        peer, draws = self._peer(group.name), self._draws
        self.ground.sellers.append(peer.key)
        if group.above_ask_percent:
            self.checks.dishonest.add(peer.number)
        ask = _within(draws, group.ask_nanoton)
        # A run of a decoder has half of the most tokens on average.
        token = 2 * ask // RUN_TOKENS
        asks = tuple((int(unit), ask if unit == UnitKind.RUN else token) for unit in sorted(UNIT_OF.values()))
        floors = tuple((unit, price * group.floor_percent // 100) for unit, price in asks)
        paid = self.ground.chain is not None
        terms = Terms(
            setup_nanoton=group.setup_nanoton, prices=asks, kinds=KINDS, leases_max=group.leases,
            leases_max_of_requester=max(2, group.leases // 2), payout=payout_of(peer.key) if paid else bytes(32),
            provider_key=provider_signer(peer).key if paid else bytes(32),
        )
        strategy = Strategy(
            ask_setup_nanoton=group.setup_nanoton, asks=asks, floor_setup_nanoton=group.setup_nanoton, floors=floors,
            kinds=KINDS, idle_discount_ppm=group.idle_discount_percent * PPM // 100,
            max_model_bytes=terms.max_model_bytes,
        )
        compute = Compute(_within(draws, group.slowness_percent) * PPM // 100, self.scenario.run_us)
        wares = Wares(terms, strategy, compute, group.above_ask_percent * PPM // 100)
        peer.roles.append(lambda peer: self._sell(peer, wares))
        self.heap.at(group.joins_s * SECOND_NS, peer.start)
        if group.leaves_s:
            self.heap.at(group.leaves_s * SECOND_NS, self._leave, peer)

    def _sell(self, peer: Peer, wares: Wares) -> None:
        selling = self.sellers[peer.number] = Selling(peer, wares)
        peer.serve(selling.serves())
        peer.serve(Gossiping(peer, selling.current).serves())

    def _add_requester(self, group: Requesters) -> None:
        peer = self._peer(group.name)
        if self.ground.chain is not None:
            self.ground.chain.found(birth_of(peer))
        peer.roles.append(lambda peer: self._buy(peer, group))
        self.heap.at(0, peer.start)
        at_ns = group.begins_s * SECOND_NS
        for _ in range(group.tasks):
            at_ns += self._draws.below(2 * group.every_ms * MILLISECOND_NS)
            self.heap.at(at_ns, self._submit, peer, group, self._draws.below(len(self.models)))

    def _buy(self, peer: Peer, group: Requesters) -> None:
        gossip, regard = Gossiping(peer, None), Regard(peer)
        buying = Buying(peer, Market(peer, gossip, regard), regard, group.lease_idle_s * SECOND_NS)
        peer.serve(gossip.serves())
        Debts(buying)
        self.buyers[peer.number] = Buyer(buying, regard, gossip)

    def _submit(self, peer: Peer, group: Requesters, model: int) -> None:
        if not peer.alive:
            return                                      # its user finds no peer to give a task to
        self._submitted += 1
        id_, units = TaskId(peer.random(16)), _within(self._draws, group.units)
        asked = Submission(self.models[model], units, group.deadline_s * 1_000, _within(self._draws, group.spread))
        deadline_at_ns = self.heap.now_ns + group.deadline_s * SECOND_NS
        self.checks.tasks[id_] = Submitted(
            self._submitted, peer.number, peer.life, self.heap.now_ns, deadline_at_ns, units
        )
        TaskRun(self.buyers[peer.number].buying, asked, id_).start()

    # --- what happens to them --------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        until_ns = self.heap.now_ns + fault.lasts_ns
        rest = frozenset(range(len(self.ground.peers))) - set(fault.peers)
        struck = frozenset(fault.peers)
        match fault.kind:
            case "kill":
                for number in fault.peers:
                    self._kill(self.ground.peers[number], until_ns, silent=False)
            case "power":
                for number in fault.peers:
                    self._cut_power(self.ground.peers[number], fault.lasts_ns)
            case "cut" | "one_way":
                for one in fault.peers:
                    for other in sorted(rest):
                        self.checks.accident(one, other)
                self.ground.network.cut(Cut(struck, rest, until_ns))
                if fault.kind == "cut":
                    self.ground.network.cut(Cut(rest, struck, until_ns))
            case "chain" if self.ground.chain is not None:
                self.ground.chain.away_until_ns = max(self.ground.chain.away_until_ns, until_ns)

    def _leave(self, peer: Peer) -> None:
        """A peer goes for good, and says nothing."""
        if peer.alive:
            peer.crash(silent=True)
        self.checks.accident(peer.number, peer.number)
        peer.roles.clear()
        self.left[peer.number] = self.heap.now_ns

    def _cut_power(self, peer: Peer, lasts_ns: int) -> None:
        """While its disk is at work, if it writes soon: at any other moment a power cut takes no more than a kill."""
        journal, is_over = peer.journal, False

        def strike() -> None:
            nonlocal is_over
            if not is_over:
                is_over, journal.on_write = True, None
                self._kill(peer, self.heap.now_ns + lasts_ns, silent=True)

        journal.on_write = lambda: self.heap.after(peer.weather.below(COMMIT_NS), strike)
        self.heap.after(_POWER_AIM_NS, strike)

    def _kill(self, peer: Peer, until_ns: int, *, silent: bool) -> None:
        if not peer.alive:
            return
        peer.crash(silent=silent)
        self.checks.accident(peer.number, peer.number)
        for task in self.checks.tasks.values():
            if task.requester == peer.number and task.life == peer.life and task.ended_ns is None:
                task.ended_ns, task.code = self.heap.now_ns, "local_peer_lost"
        self.heap.at(until_ns, peer.start)

    def _claim(self) -> None:
        """In the end every provider's owner wants what is due."""
        for number, selling in self.sellers.items():
            if selling.till is not None and self.ground.peers[number].alive:
                selling.till.claim_all()

    # --- what is looked at -------------------------------------------------------------

    def _look(self) -> None:
        """Tables are bounded, and money is neither made nor lost."""
        for number, selling in self.sellers.items():
            if (calls := len(selling.bidding.seen())) > CALLS_REMEMBERED:
                self.checks.breach(f"peer {number} remembers {calls} calls")
        for number, buyer in self.buyers.items():
            if (offers := len(buyer.gossip.machine.table)) > GOSSIP_OFFERS:
                self.checks.breach(f"peer {number} knows {offers} offers")
            if self.left and self.ground.peers[number].alive:
                self._look_at_ages(number, buyer)
        chain = self.ground.chain
        if chain is not None and chain.total_nanoton != self._money:
            self.checks.breach(f"there are {chain.total_nanoton} nanoton, there were {self._money}")
        self.heap.after(_LOOK_NS, self._look)

    def _look_for_debts(self) -> None:
        """What broke off was settled, as long as who is owed is there."""
        for number, buyer in self.buyers.items():
            for lease in buyer.buying.owed.values():
                provider = self.ground.by_key[PeerKey(lease.message.provider)]
                if provider.alive and self.ground.peers[number].alive:
                    self.checks.breach(f"peer {number} still owes for a lease of peer {provider.number}")

    def _look_at_ages(self, number: int, buyer: Buyer) -> None:
        """What is offered to a requester was signed by who was there of late: every other counts an age as we do."""
        for claim in buyer.gossip.machine.table.live(self.ground.peers[number].now_ns()):
            gone_ns = self.heap.now_ns - self.left.get(self.checks.numbers[claim.provider], self.heap.now_ns)
            if gone_ns > OFFER_TTL_S * SECOND_NS + _LOOK_NS:
                self.checks.breach(f"peer {number} knows an offer of who left {gone_ns // SECOND_NS} s ago")

    def _look_back(self) -> None:
        """Every task has ended; when all was calm it ended well; no lane paid more than was promised."""
        calm_ns = max((fault.at_ns + fault.lasts_ns for fault in self.faults), default=-CALM_NS) + CALM_NS
        for task in self.checks.tasks.values():
            if task.ended_ns is None:
                if self.heap.now_ns > task.deadline_at_ns + GRACE_NS:
                    self.checks.breach(f"task {task.number} of peer {task.requester} never ended")
            elif task.at_ns >= calm_ns and task.accepted < task.units and not _excused(task):
                self.checks.breach(
                    f"task {task.number} of peer {task.requester} failed in calm weather by {task.code}: {task.text}"
                )
        if self.heap.now_ns >= calm_ns - CALM_NS + SETTLED_NS:
            self._look_for_debts()
        chain = self.ground.chain
        for lane, paid in (chain.paid if chain is not None else {}).items():
            if paid > self.checks.totals.get(lane, 0):
                self.checks.breach(f"lane {lane[1]} paid {paid} nanoton, promised were {self.checks.totals.get(lane)}")


def _excused(task: Submitted) -> bool:
    """Every lease was taken; or the task was still at work when its time was over."""
    return task.code == ProviderBusy.code or (task.code == DeadlineExceeded.code and task.accepted > 0)


def _within(draws: Stream, between: tuple[int, int]) -> int:
    least, most = between
    return least + draws.below(most - least + 1)


def _spread(draws: Stream, most: int) -> int:
    return draws.below(2 * most + 1) - most
