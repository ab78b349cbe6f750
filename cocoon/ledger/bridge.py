"""An asyncio loop in a thread of its own, and the way there and back.

Every TON library for Python is asyncio, everything of ours is trio. A call
crosses as a coroutine factory and comes back as a result or an exception; a
cancelled call cancels its task over there.

Purity: shell. Spec: docs/spec/chain.md, rule CHN-1.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from cocoon.core.errors import UsageError

T = TypeVar("T")
#: Rounds of cancelling at the end, and how long each waits; then the thread, a daemon, is left alone.
_CANCELS = 20
_CANCEL_S = 0.25


class Bridge:
    """Use ``open_bridge``. ``call`` is for the trio loop that opened it."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._loop = asyncio.new_event_loop()
        # What a library left unawaited is its own affair: our calls see their own failures.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._ended = trio.Event()
        self._thread = threading.Thread(target=self._run, name="chain", daemon=True)
        self._closed = False

    async def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``make()`` as a task over there and return its result.

        Raises:
            UsageError: the bridge is closed, or closes meanwhile.
        """
        if self._closed:
            raise UsageError("the chain is closed")
        done = trio.Event()
        tasks: list[asyncio.Task[T]] = []

        async def whole() -> T:
            return await make()

        def begin() -> None:
            task = self._loop.create_task(whole())
            tasks.append(task)
            task.add_done_callback(lambda _: self.tell(done.set))

        self._loop.call_soon_threadsafe(begin)
        try:
            await done.wait()
        except trio.Cancelled:
            if not self._closed:
                self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
            raise
        if tasks[0].cancelled():
            raise UsageError("the chain was closed in the middle of a call")
        return tasks[0].result()

    def tell(self, function: Callable[[], object]) -> None:
        """From the other side: let the trio loop call ``function`` soon; nothing if it has ended."""
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_cancel_all())
            self._loop.close()
            self.tell(self._ended.set)

    async def _close(self) -> None:
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self._thread.join()


async def _cancel_all() -> None:
    """Cancel every other task until it ends: the library swallows a cancellation that meets it closing."""
    for _ in range(_CANCELS):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_CANCEL_S)


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Start the thread; at the end of the block every task over there is cancelled and awaited."""
    bridge = Bridge(trio.lowlevel.current_trio_token())
    bridge._thread.start()
    try:
        yield bridge
    finally:
        await bridge._close()
