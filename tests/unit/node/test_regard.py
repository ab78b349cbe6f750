"""Opinions outlive the process that formed them, and blame nobody for what was ours (SCH-21, SCH-23)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio.testing

from cocoon.core.errors import (
    BadSeal,
    ChainUnreachable,
    CocoonError,
    LeaseReturned,
    ModelRefused,
    ProviderBusy,
    ProviderLost,
    WorkerLost,
)
from cocoon.core.ids import PeerKey
from cocoon.core.limits import REPUTATION_HALF_LIFE_NS
from cocoon.core.units import SECOND_NS
from cocoon.node.buying import Buyer
from cocoon.node.regard import Regard
from tests.unit.node.scripted import Clock, Heard, Memory, Streets, identity, purse_of

SELLER, OTHER = PeerKey(b"\x07" * 32), PeerKey(b"\x08" * 32)
WEEK_S = REPUTATION_HALF_LIFE_NS // SECOND_NS


def regard(journal: Memory, now_s: int = 0) -> Regard:
    made = Regard(journal, Clock(), Heard(), lambda: now_s)  # type: ignore[arg-type]
    made.restore()
    return made


async def test_a_peer_that_starts_again_remembers_and_what_it_remembers_has_aged(
    autojump_clock: trio.testing.MockClock
) -> None:
    journal = Memory()
    first = regard(journal, now_s=1_000_000)
    for _ in range(8):
        await first.failed(SELLER, ProviderLost("silent"))
    await first.kept(SELLER)
    assert regard(journal, now_s=1_000_000).standing(SELLER) == first.standing(SELLER)
    assert regard(journal, now_s=1_000_000 + WEEK_S).standing(SELLER).lost in (3, 4)
    assert regard(journal, now_s=1_000_000 + 20 * WEEK_S).standing(SELLER).lost == 0


async def test_a_clock_that_was_set_back_makes_no_memory_younger_than_now() -> None:
    journal = Memory()
    await regard(journal, now_s=1_000_000).failed(SELLER, ProviderLost("silent"))
    assert regard(journal, now_s=0).standing(SELLER).lost == 1


@pytest.mark.parametrize(("error", "counts"), [
    (ProviderLost("x"), (1, 0)), (WorkerLost("x"), (1, 0)), (BadSeal("x"), (0, 1)),
    (ChainUnreachable("x"), (0, 0)), (ProviderBusy("x"), (0, 0)), (ModelRefused("x"), (0, 0)),
])
async def test_only_a_loss_or_a_lie_of_its_own_is_held_against_a_provider(
    error: CocoonError, counts: tuple[int, int]
) -> None:
    journal = Memory()
    made = regard(journal)
    await made.failed(SELLER, error)
    standing = made.standing(SELLER)
    assert (standing.lost, standing.lied) == counts and len(journal.rows) == sum(counts)


async def test_on_a_full_disk_an_opinion_lasts_as_long_as_the_process() -> None:
    journal = Memory(full=1)
    made = regard(journal)
    await made.failed(SELLER, ProviderLost("silent"))
    assert made.standing(SELLER).lost == 1 and not journal.rows


# --- who is to blame ---------------------------------------------------------


def ended(error: CocoonError, *, worked: bool = True, settled: bool = True) -> Any:
    """A purchase that is over."""
    tally = SimpleNamespace(verifier=SimpleNamespace(settled=settled))
    return SimpleNamespace(provider=SELLER, ending=error, worked=worked, tally=tally)


@pytest.mark.parametrize(("connected", "lost"), [([OTHER], 1), ([], 0), ([SELLER], 0)])
async def test_whoever_lost_everybody_at_once_blames_no_provider(connected: list[PeerKey], lost: int) -> None:
    buyer = await buyer_with(connected)
    await buyer._remember(ended(ProviderLost("silent")))
    assert buyer._purse.regard.standing(SELLER).lost == lost


async def test_a_lie_is_a_lie_whoever_is_connected() -> None:
    buyer = await buyer_with([])
    await buyer._remember(ended(BadSeal("x")))
    assert buyer._purse.regard.standing(SELLER).lied == 1


@pytest.mark.parametrize(("worked", "settled", "kept"), [(True, True, 1), (False, True, 0), (True, False, 0)])
async def test_a_lease_is_kept_if_work_was_done_on_it_and_all_of_it_is_receipted(
    worked: bool, settled: bool, kept: int
) -> None:
    buyer = await buyer_with([OTHER])
    await buyer._remember(ended(LeaseReturned("x"), worked=worked, settled=settled))
    assert buyer._purse.regard.standing(SELLER).kept == kept


async def buyer_with(connected: list[PeerKey]) -> Buyer:
    async with trio.open_nursery() as nursery:
        streets = Streets(identity(1).key, nursery)
        streets.connections = lambda: connected  # type: ignore[attr-defined]
        return Buyer(purse_of(identity(1), streets, nursery), nursery)
