"""Time, coroutines, disks and streams of the simulator do what the real ones do, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import Duplicate
from cocoon.core.limits import JOURNAL_LAG_NS
from cocoon.core.rng import Stream, stream
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from sim.engine.faults import Accidents
from sim.engine.flow import Moment, Scope, Turn, Work, sleep
from sim.engine.heap import Heap
from sim.engine.journal import COMMIT_NS, Journal, Row
from sim.engine.network import SILENCE_NS, Cut, End, Network, Weather
from sim.engine.regions import REGIONS, one_way_ns


class Place:
    """A host that keeps what it hears."""

    def __init__(self, number: int, region: int = 0) -> None:
        self.number, self.region, self.life, self.alive = number, region, 1, True
        self.weather: Stream = stream(1, bytes([number]), "weather")
        self.heard: list[Any] = []
        self.ended = 0

    def accept(self, end: End, protocol: str) -> None:
        end.on_frame = self.heard.append
        end.on_close = self.close

    def close(self) -> None:
        self.ended += 1


def network(**weather: int) -> tuple[Heap, Network, Place, Place]:
    heap = Heap()
    return heap, Network(heap, Weather(**weather)), Place(0), Place(1, 4)


def test_events_of_one_time_happen_in_the_order_in_which_they_were_made() -> None:
    heap, order = Heap(), []
    for name in "abc":
        heap.at(5, order.append, name)
    heap.at(3, order.append, "first")
    heap.run(10)
    assert order == ["first", "a", "b", "c"] and heap.now_ns == 10


def test_a_closed_scope_lets_nothing_go_on() -> None:
    heap, done = Heap(), []
    outer = Scope(heap)
    inner = outer.child()

    async def work(scope: Scope, name: str) -> None:
        await sleep(scope, 5)
        done.append(name)

    outer.spawn(work(outer, "outer"))
    inner.spawn(work(inner, "inner"))
    inner.close()
    heap.run(10)
    assert done == ["outer"]
    outer.spawn(work(outer, "late"))
    outer.close()
    heap.run(20)
    assert done == ["outer"]


def test_what_waits_at_the_end_is_closed_then_and_nothing_happens_any_more() -> None:
    heap, told = Heap(), []
    scope, never, done = Scope(heap), Moment[None](heap), Moment[None](heap)

    async def work(name: str, until: Moment[None]) -> None:
        try:
            await until.wait()
        finally:
            told.append(name)

    scope.spawn(work("ends before", done))
    scope.spawn(work("waits", never))
    done.set(None)
    heap.run(10)
    assert told == ["ends before"]
    heap.after(1, told.append, "later")
    heap.end()
    heap.run(20)
    assert told == ["ends before", "waits"]


def test_patience_ends_a_wait_once() -> None:
    heap, came = Heap(), []
    moment: Moment[int] = Moment(heap)

    async def wait() -> None:
        came.append(await moment.wait(5))
        came.append(await moment.wait())

    Scope(heap).spawn(wait())
    heap.run(10)
    assert came == [False]
    moment.set(1)
    heap.run(20)
    assert came == [False, True]


def test_a_turn_goes_round_in_order_and_work_is_done_one_by_one() -> None:
    heap, order = Heap(), []
    scope, turn = Scope(heap), Turn(heap)

    async def take(name: str) -> None:
        async with turn:
            order.append(f"{name} begins")
            await sleep(scope, 5)
            order.append(f"{name} ends")

    for name in "ab":
        scope.spawn(take(name))
    line: Work[str] = Work(scope, take)
    line.put("c")
    line.put("d")
    heap.run(100)
    assert order == [f"{name} {what}" for name in "abcd" for what in ("begins", "ends")]


def test_a_crash_keeps_whole_transactions_from_the_oldest_on_and_wakes_nobody() -> None:
    """A kill all that is written, a power cut what is flushed and perhaps some of the rest; neither what waits."""
    kept = set()
    for seed in range(30):
        heap, woken = Heap(), []
        journal, scope = Journal(heap), Scope(heap)

        async def append(name: bytes, journal: Journal = journal, woken: list[bytes] = woken) -> None:
            await journal.append(Row("row", name, name), Row("row", name + b"2", name + b"2"))
            woken.append(name)

        scope.spawn(append(b"durable"))
        heap.run(COMMIT_NS)
        for name in (b"a", b"b"):
            journal.write(Row("row", name, name), Row("row", name + b"2", name + b"2"))
        scope.spawn(append(b"c"))
        scope.spawn(append(b"late"))
        power = seed >= 10
        journal.crash(stream(seed, b"", "crash"), power=power)
        heap.run(SECOND_NS)
        assert woken == [b"durable"]
        rows = [row.body for row in journal.rows]
        whole = [name + end for name in (b"durable", b"a", b"b", b"c") for end in (b"", b"2")]
        assert rows == whole[: len(rows)] and len(rows) % 2 == 0
        assert [row.unique for row in journal.under(b"")] == sorted(rows)
        kept.add((power, len(rows)))
    assert kept == {(False, 8)} | {(True, count) for count in (2, 4, 6, 8)}


def test_what_is_written_is_flushed_though_nobody_waits_and_at_once_if_somebody_does() -> None:
    heap, order = Heap(), []
    journal, scope = Journal(heap), Scope(heap)

    async def flush(name: str) -> None:
        await journal.flush()
        order.append((name, heap.now_ns))

    journal.write(Row("row", b"1"))
    scope.spawn(flush("asked"))
    heap.run(COMMIT_NS // 2)
    journal.write(Row("row", b"2"))
    scope.spawn(flush("during"))
    heap.run(SECOND_NS)
    assert order == [("asked", COMMIT_NS), ("during", 2 * COMMIT_NS)]
    journal.write(Row("row", b"3"))
    began_ns = heap.now_ns
    heap.run(began_ns + JOURNAL_LAG_NS + COMMIT_NS)
    journal.crash(stream(1, b"", "crash"), power=True)
    assert [row.body for row in journal.rows] == [b"1", b"2", b"3"]


def test_a_unique_key_is_there_once() -> None:
    heap = Heap()
    journal, scope = Journal(heap), Scope(heap)
    for _ in range(2):
        scope.spawn(journal.append(Row("row", b"", b"key")))
    with pytest.raises(Duplicate):
        heap.run(SECOND_NS)


def test_a_stream_keeps_its_order_under_loss_and_takes_at_least_the_shortest_way() -> None:
    heap, net, here, there = network(loss_ppm=300_000)
    end = net.open(here, there, "p")
    for number in range(200):
        end.send(number)
    heap.run(one_way_ns(0, 4) - 1)
    assert there.heard == []
    heap.run(60 * SECOND_NS)
    assert there.heard == list(range(200))


def test_loose_frames_are_lost_doubled_and_overtaken() -> None:
    heap, net, here, there = network(loss_ppm=100_000, duplicate_ppm=100_000, reorder_ppm=300_000)
    end = net.open(here, there, "p")
    heap.run(SECOND_NS)
    for number in range(500):
        end.send_loose(number)
        heap.run(heap.now_ns + MILLISECOND_NS)
    heap.run(heap.now_ns + SECOND_NS)
    assert len(set(there.heard)) < 500 < len(there.heard) + 100
    assert there.heard != sorted(there.heard) and len(there.heard) > len(set(there.heard))


def test_a_short_cut_delays_and_a_long_one_ends_the_stream_on_both_sides() -> None:
    for lasts_ns, ended in ((SECOND_NS, 0), (2 * SILENCE_NS, 1)):
        heap, net, here, there = network()
        end = net.open(here, there, "p")
        end.on_close = here.close
        heap.run(SECOND_NS)
        net.cut(Cut(frozenset({0}), frozenset({1}), heap.now_ns + lasts_ns))
        end.send("late")
        heap.run(SECOND_NS + lasts_ns - 1)
        assert there.heard == []
        heap.run(60 * SECOND_NS)
        assert (here.ended, there.ended) == (ended, ended)
        assert there.heard == ([] if ended else ["late"])


def test_a_killed_host_resets_its_streams_and_one_without_power_falls_silent() -> None:
    for silent, at_ns in ((False, SECOND_NS), (True, SILENCE_NS)):
        heap, net, here, there = network()
        net.open(here, there, "p")
        heap.run(SECOND_NS)
        there.alive = False
        net.crash(here, silent=silent)
        heap.run(SECOND_NS + at_ns - 1)
        assert there.ended == (0 if silent else 1)
        heap.run(60 * SECOND_NS)
        assert there.ended == 1


def test_nobody_at_home_ends_the_stream() -> None:
    heap, net, here, there = network()
    there.alive = False
    end = net.open(here, there, "p")
    end.on_close = here.close
    heap.run(60 * SECOND_NS)
    assert here.ended == 1 and not end.is_open


def test_every_pair_of_regions_has_one_distance() -> None:
    for here in range(len(REGIONS)):
        for there in range(len(REGIONS)):
            assert one_way_ns(here, there) == one_way_ns(there, here) > 0


def test_accidents_follow_from_the_seed_and_end_in_time() -> None:
    wanted = Accidents(kills=5, powers=5, cuts=5, one_ways=5, chain_outages=5, until_s=40)
    assert wanted.draw(1, 10) == wanted.draw(1, 10) != wanted.draw(2, 10)
    for fault in wanted.draw(3, 10):
        assert fault.at_ns + fault.lasts_ns <= 40 * SECOND_NS and set(fault.peers) <= set(range(10))
