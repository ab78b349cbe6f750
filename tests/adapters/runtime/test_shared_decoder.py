"""TOK-29 to TOK-31 in a real worker: two leases on one decoder, and each hears what it would hear alone."""

import pytest
import trio

from cocoon.convert import tiny
from cocoon.core.errors import CocoonError, LimitExceeded, WorkerLost
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import WARM_NS
from cocoon.core.values import replace
from cocoon.runtime.company import Joining
from cocoon.runtime.service import Wanted
from cocoon.wire.tokens import pack_pieces
from tests.adapters.runtime.conftest import LIMITS
from tests.adapters.runtime.test_worker_turns import PIECES, PROMPTS, Heard, asking, said_by_formulas


@pytest.fixture
async def sit(runtime, model_file, monkeypatch):
    """A function that gives the next lease a seat at the tiny decoder; there is one core."""
    monkeypatch.setattr("cocoon.runtime.service._cores", lambda: 1)
    runtime.warm_ns = 0
    files = model_file(tiny.tiny_decoder()), model_file(pack_pieces(PIECES), "tokens.bin")
    count = 0

    async def seat(**changes):
        nonlocal count
        count += 1
        wanted = replace(Wanted(bytes(32), LIMITS, *files, joining=Joining.LEASES), **changes)
        return await runtime.seat(wanted, LeaseId(bytes([count]) * 32), PeerKey(bytes([count]) * 32))

    return seat


async def listen(seat, prompts):
    """What a lease hears of these, which it numbers from 1."""
    heard = Heard()
    asked = list(enumerate((asking(prompt) for prompt in prompts), start=1))
    heard.take(await seat.turn(asked))
    while len(heard.ends) < len(prompts):
        heard.take(await seat.turn([]))
    return heard


async def test_each_lease_hears_the_tokens_of_the_formulas_though_they_share_steps(sit):
    one, two = await sit(), await sit()
    assert one.instance is two.instance
    heard = {}

    async def ask(seat, prompts):
        heard[seat] = prompts, await listen(seat, prompts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, one, PROMPTS)
        nursery.start_soon(ask, two, PROMPTS[::-1])
    for prompts, told in heard.values():
        for number, prompt in enumerate(prompts, start=1):
            assert told.tokens[number] == said_by_formulas(prompt)
            assert told.ends[number].tokens == tuple(told.tokens[number])


async def test_a_decoder_whose_manifest_declares_nothing_is_shared_with_nobody(sit):
    one, two = await sit(joining=Joining.LEASE), await sit(joining=Joining.LEASE)
    assert one.instance is not two.instance


async def test_a_lease_that_leaves_in_the_middle_frees_its_rows_and_no_other_notices(sit):
    one, two = await sit(), await sit()
    await one.turn([(number, asking(PROMPTS[0], 80)) for number in range(1, 9)])
    await one.close()
    heard = await listen(two, PROMPTS)
    for number, prompt in enumerate(PROMPTS, start=1):
        assert heard.tokens[number] == said_by_formulas(prompt)


async def test_a_request_that_is_wrong_is_the_fault_of_its_own_sequence(sit):
    one, two = await sit(), await sit()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, two, PROMPTS)
        heard = Heard()
        heard.take(await one.turn([(1, b"\xff"), (2, asking((1,), 100_000)), (3, asking(PROMPTS[1]))]))
        while len(heard.ends) < 3:
            heard.take(await one.turn([]))
    assert isinstance(heard.ends[1], CocoonError) and isinstance(heard.ends[2], LimitExceeded)
    assert heard.ends[3].tokens == tuple(said_by_formulas(PROMPTS[1]))


async def test_a_decoder_that_dies_with_sequences_of_two_leases_ends_neither(runtime, sit):
    one, two = await sit(), await sit()

    async def lose(seat):
        with pytest.raises(WorkerLost):
            await seat.turn([(1, asking(PROMPTS[2], 400))])
            while True:
                await seat.turn([])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose, one)
        nursery.start_soon(lose, two)
        while len(one.instance._chorus._owners) < 2:
            await trio.lowlevel.checkpoint()
        one.instance._worker._process.kill()
    assert one.alive and two.alive and not runtime.may_join(bytes(32))
    heard = await listen(two, PROMPTS[:2])
    assert heard.tokens[1] == said_by_formulas(PROMPTS[0])


async def test_a_decoder_that_rested_is_continued_by_the_next_lease(runtime, sit):
    runtime.warm_ns = WARM_NS
    one = await sit(joining=Joining.LEASE)
    await one.turn([(number, asking(PROMPTS[0], 80)) for number in range(1, 9)])
    await one.close()
    two = await sit(joining=Joining.LEASE)
    assert one.instance is two.instance and two.load_us == 0
    assert (await listen(two, PROMPTS[:2])).tokens[2] == said_by_formulas(PROMPTS[1])


async def test_a_decoder_that_dies_with_one_lease_takes_that_one_along(sit):
    one, two = await sit(), await sit()
    await one.turn([(1, asking(PROMPTS[2], 400))])
    one.instance._worker._process.kill()
    with pytest.raises(WorkerLost):
        while True:
            await one.turn([])
    assert not one.alive and two.alive
    assert (await listen(two, PROMPTS[:1])).tokens[1] == said_by_formulas(PROMPTS[0])
