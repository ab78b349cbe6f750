"""The way from trio to asyncio and back (CHN-1)."""

from __future__ import annotations

import asyncio
import threading

import pytest
import trio

from cocoon.core.errors import UsageError
from cocoon.ledger.bridge import open_bridge


async def test_a_call_runs_in_another_thread_and_brings_its_result():
    async def where():
        await asyncio.sleep(0)
        return threading.current_thread()

    async with open_bridge() as bridge:
        assert await bridge.call(where) is not threading.current_thread()


async def test_an_exception_comes_back_also_one_from_before_the_first_await():
    async def fail():
        raise ValueError("over there")

    def fail_early():
        raise LookupError("at once")

    async with open_bridge() as bridge:
        with pytest.raises(ValueError, match="over there"):
            await bridge.call(fail)
        with pytest.raises(LookupError):
            await bridge.call(fail_early)


async def test_a_cancelled_call_is_cancelled_over_there():
    begun, ended = trio.Event(), trio.Event()

    async def wait():
        bridge.tell(begun.set)
        try:
            await asyncio.Event().wait()
        finally:
            bridge.tell(ended.set)

    async with open_bridge() as bridge:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.call, wait)
            await begun.wait()
            nursery.cancel_scope.cancel()
        await ended.wait()


async def test_a_task_that_swallows_its_first_cancellation_does_not_keep_the_bridge_open():
    """pytoniq's ``close`` does that."""
    begun = trio.Event()
    survived = []

    async def stubborn():
        bridge.tell(begun.set)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            survived.append(True)
        await asyncio.Event().wait()

    async with open_bridge() as bridge:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.call, stubborn)
            await begun.wait()
            nursery.cancel_scope.cancel()
    assert survived
    assert "chain" not in {thread.name for thread in threading.enumerate()}


async def test_a_closed_bridge_takes_no_call():
    async def nothing():
        return None

    async with open_bridge() as bridge:
        pass
    with pytest.raises(UsageError):
        await bridge.call(nothing)


async def test_two_bridges_do_not_meet():
    async def loop():
        return asyncio.get_running_loop()

    async with open_bridge() as one, open_bridge() as other:
        assert await one.call(loop) is not await other.call(loop)
