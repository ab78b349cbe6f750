"""RUN-34 to RUN-36 and JOI-14 in real workers: who shares one, whose runs go together, and who pays when it dies."""

import math

import numpy as np
import pytest
import trio

from bench.packaged import relu
from cocoon.core.errors import CocoonError, ModelRefused, ProviderBusy, RunTimeout
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import WARM_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.runtime.company import Joining
from cocoon.runtime.service import RunReport, Wanted, open_runtime
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests import models
from tests.adapters.runtime.conftest import LIMITS, SHORT_NS
from tests.adapters.runtime.test_joining import ITEMS, dense

MODEL = bytes(32)


@pytest.fixture
async def sit(runtime, monkeypatch):
    """A function that gives the next lease, of a requester of its own, a seat; there is one core."""
    monkeypatch.setattr("cocoon.runtime.service._cores", lambda: 1)
    runtime.warm_ns = 0
    count = 0

    async def seat(file, **changes):
        nonlocal count
        count += 1
        wanted = replace(Wanted(MODEL, LIMITS, file), **changes)
        return await runtime.seat(wanted, LeaseId(bytes([count]) * 32), PeerKey(bytes([count]) * 32))

    return seat


def pid(seat):
    """Of the worker that it has now."""
    return seat.instance._worker.pid


def payload(value):
    """One row of it."""
    return encode_tensors({"x": np.full((1, 4), value, "f4")})


def rounds(count):
    """For ``counting_model``."""
    return encode_tensors({"rounds": np.array(count, "i8")})


async def run(seat, number, inputs):
    """The outputs of one run."""
    outcome, = await seat.run_all([number], [inputs])
    if isinstance(outcome, Exception):
        raise outcome
    return decode_tensors(outcome.outputs)


async def test_a_lease_beyond_the_cores_shares_the_worker_and_gets_its_own_answers(sit, model_file):
    file = model_file(relu())
    one, two = await sit(file), await sit(file)
    assert pid(one) == pid(two) and one.load_us > 0 and two.load_us == 0
    found = {}

    async def ask(seat, sign):
        for number in range(1, 40):
            found[sign, number] = (await run(seat, number, payload(sign * number)))["y"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, one, 1)
        nursery.start_soon(ask, two, 2)
    assert all(array.tolist() == [[max(0.0, sign * number)] * 4] for (sign, number), array in found.items())


async def test_an_answer_is_what_it_was_after_another_lease_had_its_own(sit, model_file):
    file = model_file(relu())
    one, two = await sit(file), await sit(file)
    outcome, = await one.run_all([1], [payload(1)])
    await run(two, 1, payload(2))
    assert decode_tensors(outcome.outputs)["y"].max() == 1


async def test_what_is_private_or_wanted_otherwise_is_not_shared(sit, model_file):
    file = model_file(relu())
    public, private, another = await sit(file), await sit(file, model=None), await sit(file, model=None)
    slower = await sit(file, limits=replace(LIMITS, run_ns=LIMITS.run_ns // 2))
    assert len({pid(seat) for seat in (public, private, another, slower)}) == 4


async def test_a_free_core_is_taken_before_anything_is_shared(sit, model_file, monkeypatch):
    monkeypatch.setattr("cocoon.runtime.service._cores", lambda: 2)
    file = model_file(relu())
    seats = [await sit(file) for _ in range(4)]
    pids = [pid(seat) for seat in seats]
    assert len(set(pids)) == 2 and sorted(map(pids.count, set(pids))) == [2, 2]


async def test_who_leaves_takes_nobodys_worker_along_and_the_last_one_does(sit, model_file):
    file = model_file(relu())
    one, two = await sit(file), await sit(file)
    worker = one.instance._worker
    await one.close()
    await one.close()
    assert worker.alive and (await run(two, 1, payload(3)))["y"].max() == 3
    await two.close()
    assert not worker.alive and not two.alive
    with pytest.raises(Exception, match="nobody runs"):
        await run(two, 2, payload(3))


async def test_a_run_that_is_given_up_disturbs_nobody(sit, model_file):
    file = model_file(relu())
    one, two = await sit(file), await sit(file)
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.run_all([1], [payload(1)])
    assert (await run(two, 1, payload(2)))["y"].max() == 2
    assert (await run(one, 2, payload(3)))["y"].max() == 3
    assert not one.instance._payloads and not one.instance._answers and not one.instance._calls


async def test_a_bad_input_is_the_fault_of_its_own_run(sit, model_file):
    file = model_file(relu())
    one, two = await sit(file), await sit(file)
    outcomes = await one.run_all([1, 2, 3], [payload(1), b"\xc1", payload(3)])
    assert [isinstance(one, Exception) for one in outcomes] == [False, True, False]
    assert one.alive and (await run(two, 1, payload(2)))["y"].max() == 2


async def test_who_kills_a_shared_worker_goes_and_the_others_go_on_in_the_next(runtime, sit, model_file):
    file = model_file(models.counting_model())
    killer, other = [await sit(file, limits=replace(LIMITS, run_ns=SHORT_NS)) for _ in range(2)]
    first = pid(killer)
    ends, went = [], []

    async def kill():
        with pytest.raises(RunTimeout):
            await killer.run_all([1], [rounds(1 << 62)])
        ends.append(killer.alive)

    async def work():
        await trio.lowlevel.checkpoint()
        try:
            went.append((await run(other, 1, rounds(3)))["y"].item())
        except CocoonError as error:
            went.append(error.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        nursery.start_soon(work)
    assert ends == [False] and went == [3.0] and other.alive
    assert pid(other) != first
    assert not runtime.may_join(MODEL)
    newcomer = await sit(file, limits=replace(LIMITS, run_ns=SHORT_NS), tolerance=None)
    assert pid(newcomer) != pid(other), "a model that killed in company is shared no more"


async def test_a_worker_that_was_killed_from_outside_is_replaced_for_all_that_share_it(sit, model_file):
    file = model_file(relu())
    one, two = await sit(file), await sit(file)
    one.instance._worker._process.kill()
    one.instance._worker._process.wait()
    assert (await run(one, 1, payload(1)))["y"].max() == 1
    assert (await run(two, 1, payload(2)))["y"].max() == 2


async def test_a_run_that_waits_for_the_next_worker_waits_no_longer_than_it_may(runtime, sit, model_file, monkeypatch):
    monkeypatch.setattr("cocoon.runtime.instances.SHARED_PATIENCE_NS", 0)
    file = model_file(relu())
    seats = [await sit(file, limits=replace(LIMITS, run_ns=SHORT_NS)) for _ in range(2)]
    comes, told = trio.Event(), []
    take = seats[0].instance._take

    async def take_late():
        await comes.wait()
        return await take()

    async def ask(seat):
        outcome, = await seat.run_all([1], [payload(1)])
        told.append(getattr(outcome, "code", "an answer"))

    seats[0].instance._take = take_late
    seats[0].instance._worker._process.kill()
    seats[0].instance._worker._process.wait()
    with trio.move_on_after(30):
        async with trio.open_nursery() as nursery:
            for seat in seats:
                nursery.start_soon(ask, seat)
    assert told == ["deadline_exceeded"] * 2
    comes.set()
    assert (await run(seats[1], 2, payload(2)))["y"].max() == 2, "and then it goes on"


async def test_time_passes_only_while_somebody_waits_and_the_runtime_lasts(tmp_path, model_file, monkeypatch):
    monkeypatch.setattr("cocoon.runtime.service._cores", lambda: 1)
    file = model_file(relu())
    async with open_runtime(LIMITS, tmp_path) as runtime:
        one, two = [
            await runtime.seat(Wanted(MODEL, LIMITS, file), LeaseId(bytes([lease]) * 32), PeerKey(bytes([lease]) * 32))
            for lease in (1, 2)
        ]
        assert one.instance is two.instance
        async with trio.open_nursery() as nursery:
            for seat in (one, two):                     # the second waits for the first
                nursery.start_soon(run, seat, 1, payload(1))
        assert one.instance._alarm.seen_s < math.inf, "nobody waited"
        assert one.instance._alarm.at_s == math.inf, "nobody waits, and it would ring"
    flaw = None
    try:
        one.instance._alarm.ring()
    except RuntimeError as error:
        flaw = error
    assert flaw is None, "something was to begin where nothing may any more"


async def test_without_another_worker_all_hear_why(runtime, sit, model_file):
    file = model_file(relu())
    one, two = await sit(file), await sit(file)

    runtime.workers = 0
    one.instance._worker._process.kill()
    one.instance._worker._process.wait()
    for seat in (one, two):
        with pytest.raises(ProviderBusy, match="all 0 workers are taken"):
            await run(seat, 1, payload(1))
        assert not seat.alive


async def test_all_that_wait_for_a_model_hear_that_it_cannot_be_loaded(sit, model_file):
    file, heard = model_file(models.not_onnx()), []

    async def ask():
        with pytest.raises(ModelRefused) as refused:
            await sit(file)
        heard.append(refused.value.text)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert len(heard) == 3


@pytest.mark.parametrize("joining", [Joining.LEASE, Joining.LEASES])
async def test_rows_of_several_leases_meet_only_where_the_manifest_says_so(sit, model_file, joining):
    file, generator = model_file(dense()), np.random.default_rng(5)
    seats = [await sit(file, joining=joining, tolerance=(100, 1_000)) for _ in range(4)]
    together: set[int] = set()

    async def ask(seat):
        for first in range(1, 400, 8):
            numbers = range(first, first + 8)
            rows = [generator.standard_normal((1, ITEMS)).astype("f4") for _ in numbers]
            for outcome in await seat.run_all(numbers, [encode_tensors({"x": row}) for row in rows]):
                assert not isinstance(outcome, Exception)
                together.add(outcome.joined)

    async with trio.open_nursery() as nursery:
        for seat in seats:
            nursery.start_soon(ask, seat)
    # Three wait while one is with the worker, each with eight rows.
    assert max(together) > 8 if joining is Joining.LEASES else 1 < max(together) <= 8


# --- what nobody runs --------------------------------------------------------------


async def test_a_public_model_stays_loaded_for_the_next_lease_and_a_private_one_does_not(runtime, sit, model_file):
    runtime.warm_ns, file = WARM_NS, model_file(relu())
    for model, stays in ((MODEL, True), (None, False)):
        one = await sit(file, model=model)
        worker = one.instance._worker
        await one.close()
        assert worker.alive is stays
        two = await sit(file, model=model)
        assert (pid(two) == worker.pid, two.load_us == 0) == (stays, stays)
        assert (await run(two, 1, payload(5)))["y"].max() == 5
        await two.close()


async def test_what_is_wanted_otherwise_is_loaded_anew(runtime, sit, model_file):
    runtime.warm_ns, file = WARM_NS, model_file(relu())
    await (await sit(file)).close()
    assert (await sit(file, limits=replace(LIMITS, run_ns=LIMITS.run_ns // 2))).load_us > 0


async def test_a_model_cools_after_its_time_unless_somebody_came_for_it(runtime, sit, model_file):
    runtime.warm_ns, file = SHORT_NS, model_file(relu())
    one = await sit(file)
    worker = one.instance._worker
    await one.close()
    since_ns = one.instance.idle_since_ns
    two = await sit(file)
    await runtime._let_cool(two.instance, since_ns)     # the time of that rest is over, and changes nothing
    assert worker.alive and pid(two) == worker.pid
    await two.close()
    with trio.move_on_after(40 * SHORT_NS / SECOND_NS):
        while worker.alive:
            await trio.lowlevel.checkpoint()
    assert not worker.alive and not runtime._instances


async def test_whoever_needs_the_place_gets_that_of_the_model_that_rests_longest(runtime, sit, model_file):
    runtime.warm_ns, runtime.workers = WARM_NS, 2
    file = model_file(relu())
    old, new = await sit(file, model=bytes([1]) * 32), await sit(file, model=bytes([2]) * 32)
    workers = [seat.instance._worker for seat in (old, new)]
    await old.close()
    await new.close()
    try:
        place = (await sit(file, model=bytes([3]) * 32)).alive
    except ProviderBusy:
        place = False
    assert place and [worker.alive for worker in workers] == [False, True]


async def test_without_memory_for_one_more_nothing_rests(runtime, sit, model_file, monkeypatch):
    runtime.warm_ns, file = WARM_NS, model_file(relu())
    one, two = await sit(file), await sit(file, model=bytes([2]) * 32)
    workers = [seat.instance._worker for seat in (one, two)]
    await one.close()
    monkeypatch.setattr("cocoon.runtime.service.free_memory_bytes", lambda: LIMITS.memory_bytes - 1)
    await two.close()
    assert [worker.alive for worker in workers] == [True, False]
    await sit(file, model=bytes([3]) * 32)
    assert not workers[0].alive


async def test_an_owner_who_wants_the_memory_gets_it(runtime, sit, model_file):
    runtime.warm_ns, file = WARM_NS, model_file(relu())
    resting, busy = await sit(file), await sit(file, model=bytes([2]) * 32)
    workers = [seat.instance._worker for seat in (resting, busy)]
    await resting.close()
    await runtime.cool()
    assert [worker.alive for worker in workers] == [False, True]


async def test_a_lease_that_never_had_company_reads_its_answers_where_they_lie(sit, model_file):
    seat = await sit(model_file(relu()))
    outcome, = await seat.run_all([1], [payload(1)])
    assert isinstance(outcome, RunReport)
