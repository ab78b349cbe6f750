"""A devnet as a process: it runs until a signal asks it to end, or its parent is gone.

Purity: shell. Spec: docs/spec/devnet.md, rule DEV-2.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import trio

from cocoon.core.groups import single_error
from cocoon.core.limits import DEVNET_PARENT_NS
from cocoon.core.units import SECOND_NS
from cocoon.devnet.service import Announcement, Settings, run


def run_until_signal(
    settings: Settings, ready: Callable[[Announcement], None], parent: int | None = None
) -> None:
    """Run a devnet until SIGTERM or SIGINT; raises as ``service.run``.

    Args:
        parent: Process that started this one; its end, however it comes, is a signal too.
    """
    trio.run(_run, settings, ready, parent)


async def _run(settings: Settings, ready: Callable[[Announcement], None], parent: int | None) -> None:
    with single_error(), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, settings, ready)
            if parent is not None:
                nursery.start_soon(_end_with, parent, nursery.cancel_scope)
            async for _ in signals:
                nursery.cancel_scope.cancel()


async def _end_with(parent: int, scope: trio.CancelScope) -> None:
    """Cancel once ``parent`` is no longer our parent.

    Not by the kernel's death signal: that one follows the thread that started us.
    """
    try:
        handle = os.pidfd_open(parent)
    except OSError:  # gone already, or a kernel without it
        handle = -1
    try:
        while os.getppid() == parent:
            with trio.move_on_after(DEVNET_PARENT_NS / SECOND_NS):
                await (trio.lowlevel.wait_readable(handle) if handle >= 0 else trio.sleep_forever())
    finally:
        if handle >= 0:
            os.close(handle)
    scope.cancel()
