"""Whoever opens a stream speaks first, and soon (P2P-7)."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cocoon.core.errors import StreamClosed, Unreachable
from cocoon.core.ids import PeerKey
from cocoon.core.limits import HANDSHAKE_NS
from cocoon.core.units import SECOND_NS
from tests.unit.node.scripted import connected

HERE, THERE = PeerKey(bytes(32)), PeerKey(b"\x01" * 32)
_DUE_S = HANDSHAKE_NS / SECOND_NS


async def test_a_first_frame_that_does_not_come_in_time_never_comes(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = connected(HERE, THERE)
    ours.expect_first(HANDSHAKE_NS)
    for _ in range(2):
        with trio.fail_after(2 * _DUE_S), pytest.raises(Unreachable, match="5 s"):
            await ours.receive()
    await theirs.send(b"late")
    with pytest.raises(Unreachable):
        await ours.receive()


async def test_half_a_first_frame_is_no_frame(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = connected(HERE, THERE)
    ours.expect_first(HANDSHAKE_NS)
    await theirs._raw.write(b"\x00\x00\x00\x10half")
    with trio.fail_after(2 * _DUE_S), pytest.raises(Unreachable):
        await ours.receive()


async def test_after_the_first_frame_a_stream_may_be_silent_for_as_long_as_it_likes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = connected(HERE, THERE)
    ours.expect_first(HANDSHAKE_NS)
    await theirs.send(b"first")
    assert await ours.receive() == b"first"
    with trio.move_on_after(100 * _DUE_S) as patience:
        await ours.receive()
    assert patience.cancelled_caught
    await theirs.send(b"second")
    assert await ours.receive() == b"second"


async def test_a_stream_that_ends_before_its_first_frame_is_closed_and_not_late() -> None:
    ours, theirs = connected(HERE, THERE)
    ours.expect_first(HANDSHAKE_NS)
    await theirs.close()
    with pytest.raises(StreamClosed):
        await ours.receive()
