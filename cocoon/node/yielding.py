"""Looks at what other programs do on a provider's machine, and lets it rest while they need it.

Purity: shell. Spec: docs/spec/leases.md, rule LEA-19; runtime.md, rule RUN-37.
"""

from __future__ import annotations

import os

import trio

from cocoon.core.clock import Clock
from cocoon.core.limits import YIELD_LOOK_NS
from cocoon.core.units import SECOND_NS
from cocoon.node.counter import Capacity
from cocoon.runtime.cards import Card
from cocoon.runtime.processors import Count, count, others_ppm, tree
from cocoon.runtime.service import Runtime
from cocoon.scheduler.yielding import OthersSeen, Rest, SellAgain, Yielding
from cocoon.telemetry.log import Log


async def yield_to_others(limit_ppm: int, capacity: Capacity, runtime: Runtime, clock: Clock, log: Log) -> None:
    """Look every ``YIELD_LOOK_NS``, until cancelled; at once over where the system does not tell."""
    machine, before, card = Yielding(limit_ppm), await _count(), runtime.card
    while before is not None:
        await trio.sleep(YIELD_LOOK_NS / SECOND_NS)
        if (now := await _count()) is None:
            break
        seen_ppm, before = others_ppm(before, now), now
        if card is not None:
            on_card_ppm = await _on_card(card)
            if on_card_ppm is None:
                log.warning("cannot_yield", device=card.name)
                card = None
            seen_ppm = max(seen_ppm, on_card_ppm or 0)
        for effect in machine.handle(clock.now_ns(), OthersSeen(seen_ppm)):
            match effect:
                case Rest():
                    capacity.yields = True
                    log.info("yielding", others_ppm=seen_ppm)
                    await runtime.cool()
                case SellAgain():
                    capacity.yields = False
                    log.info("selling_again")
    log.warning("cannot_yield", platform=os.uname().sysname)


async def _on_card(card: Card) -> int | None:
    """In a thread, as ``_count``."""
    return await trio.to_thread.run_sync(lambda: card.others_ppm(tree(os.getpid())))


async def _count() -> Count | None:
    """In a thread: every process of the machine is looked at."""
    return await trio.to_thread.run_sync(count, os.getpid())
