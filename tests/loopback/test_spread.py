"""A task over three providers at once, one of which is killed half-way: complete, in order, each unit paid once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core.ids import peer_id
from cocoon.core.units import NANOTON_PER_TON
from cocoon.sdk.npz import load, save
from tests import journals
from tests.loopback.paid import ASKS, TON, Market, accepted, covered, market, until, vouched
from tests.loopback.town import Peer
from tests.models import affine_inputs, affine_model

UNITS = 240
MANY_UNITS = 2_000
#: What the first asks per 1,000 runs, the second and the third more; a receipt is due every dozen runs or so.
RUN_NANOTON_PER_1000 = (40_000_000, 50_000_000, 60_000_001)
NAMES = ("provider", "second", "third")
Feeds = dict[str, np.ndarray]


def asks(index: int) -> dict[str, str]:
    """The prices of one provider."""
    return {**ASKS, "price_run_nanoton": str(RUN_NANOTON_PER_1000[index])}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with three providers at three prices."""
    with market(tmp_path_factory.mktemp("market"), **asks(0)) as place:
        for index in (1, 2):
            cocoon.connect(place.place.provider(NAMES[index], **asks(index)).home).fund(10 * TON)
        until(lambda: len(place.buyer.offers()) == 3, "the offers of all three")
        yield place


def providers(here: Market) -> dict[str, Peer]:
    """The living providers, by peer id."""
    alive = [peer for peer in here.place.peers if peer.name in NAMES and peer.process.poll() is None]
    return {str(cocoon.connect(peer.home).status()["peer"]): peer for peer in alive}


def feeds(units: int) -> list[Feeds]:
    """As many different inputs of the affine model."""
    return [{name: np.roll(array, index) + index for name, array in affine_inputs().items()} for index in range(units)]


def directly(folder: Path, model: Path, sources: list[Path]) -> list[Feeds]:
    """What ONNX Runtime computes of these npz files in a process of its own."""
    targets = [folder / f"direct-{path.name}" for path in sources]
    names = [str(path) for pair in zip(sources, targets, strict=True) for path in pair]
    command = [sys.executable, "-m", "tests.loopback.run_directly", str(model), *names]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    return [load(target) for target in targets]


def saved(folder: Path, inputs: list[Feeds]) -> list[Path]:
    """One npz file for each input, in their order."""
    paths = [folder / f"{index:04}.npz" for index in range(len(inputs))]
    for path, tensors in zip(paths, inputs, strict=True):
        save(path, tensors)
    return paths


def affine(folder: Path) -> Path:
    """The model of these tests, as a file."""
    path = folder / "affine.onnx"
    path.write_bytes(affine_model())
    return path


def warm(here: Market, model: Path, spread: int) -> None:
    """Open so many leases for this model: else who is ready first may be done before the others are there."""
    leases: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "lease":
            leases.append(event)

    with here.buyer.session(model, spread=spread, on_event=hear) as session:
        until(lambda: bool(session.run(affine_inputs())) and len(leases) == spread, "the leases")


@dataclass(slots=True)
class Half:
    """Kills a provider once half of the units are told, and some of its own."""

    units: int
    victim_id: str
    victim: Peer
    is_over: bool = False
    #: Units told by provider.
    told: Counter[str] = field(default_factory=Counter)

    def hear(self, provider: str) -> None:
        """A unit was delivered by this provider."""
        self.told[provider] += 1
        if not self.is_over and self.told.total() >= self.units // 2 and self.told[self.victim_id]:
            self.is_over = True
            self.victim.kill()


def assert_equal(results: Iterable[Feeds], due: Iterable[Feeds]) -> None:
    """To the bit, in the order of the inputs."""
    for found, wanted in zip(results, due, strict=True):
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in wanted.items()
        }


def each_is_paid_once(here: Market, told: list[dict[str, Any]], summary: dict[str, Any], before: int) -> None:
    """Each unit is accepted once; the summary says who ran what for how much; who was killed comes back and is paid.

    Args:
        told: Unit, provider and price of each result, as the client heard them.
        before: Units that the requester had accepted before this task.
    """
    units = journals.accepted(here.requester.home)[before:]
    assert sorted(unit.unit for unit in units) == list(range(len(told))), "a unit was accepted twice, or not at all"
    assert {unit.unit: (peer_id(unit.provider), unit.price_nanoton) for unit in units} == {
        one["unit"]: (one["provider"], one["price_nanoton"]) for one in told
    }
    assert summary["price_nanoton"] == sum(unit.price_nanoton for unit in units)
    for share in summary["providers"]:
        theirs = [one["price_nanoton"] for one in told if one["provider"] == share["provider"]]
        assert (share["units"], share["price_nanoton"]) == (len(theirs), sum(theirs))
    assert summary["provider"] == max(summary["providers"], key=lambda share: share["units"])["provider"]
    assert len({one["provider"] for one in told}) == len(summary["providers"]) == 3, "a provider had nothing to do"

    here.place.provider("second", **asks(1))
    until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the account of the lost lease")
    owed = accepted(here.requester)
    assert owed.items() <= covered(here.requester).items(), "an accepted unit is under no receipt"
    for peer in providers(here).values():
        assert sum(vouched(here.requester, to=peer).values()) == sum(
            unit.price_nanoton for unit in journals.accepted(here.requester.home)
            if peer_id(unit.provider) == cocoon.connect(peer.home).status()["peer"]
        )
    for home in (here.requester.home, *(peer.home for peer in providers(here).values())):
        assert cocoon.connect(home).audit()["clean"]
    until(lambda: len(here.buyer.offers()) == 3, "the offer of the provider that came back")


def test_one_of_three_providers_is_killed_and_the_task_is_complete_in_order_and_paid_once(
    here: Market, tmp_path: Path
) -> None:
    model, inputs, alive = affine(tmp_path), feeds(UNITS), providers(here)
    warm(here, model, 3)
    victim = next(who for who, peer in alive.items() if peer.name == "second")
    half, before = Half(UNITS, victim, alive[victim]), len(journals.accepted(here.requester.home))
    events: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "result":
            half.hear(event["provider"])

    results = here.buyer.run(model, inputs, spread=3, deadline_s=60, on_event=hear)

    assert [result.unit for result in results] == list(range(UNITS))
    assert_equal((result.outputs for result in results), directly(tmp_path, model, saved(tmp_path, inputs)))
    assert half.told == Counter(result.provider for result in results)
    told = [
        {"unit": one.unit, "provider": one.provider, "price_nanoton": one.price_nanoton} for one in results
    ]
    summary = next(event for event in events if event["event"] == "done")
    each_is_paid_once(here, told, summary, before)


@pytest.mark.long
def test_two_thousand_inputs_over_three_providers_one_killed_half_way_are_complete_in_order_and_paid_once(
    here: Market, tmp_path: Path
) -> None:
    model, alive = affine(tmp_path), providers(here)
    warm(here, model, 3)
    sources = saved(tmp_path, feeds(MANY_UNITS))
    victim = next(who for who, peer in alive.items() if peer.name == "second")
    half, before = Half(MANY_UNITS, victim, alive[victim]), len(journals.accepted(here.requester.home))
    files = [word for path in sources for word in ("--input", str(path))]

    def hear(line: dict[str, Any]) -> None:
        if "unit" in line:
            half.hear(line["provider"])

    run = here.place.begin(
        here.requester, "run", str(model), "--json", "--spread", "3", "--output", str(tmp_path / "out"), *files
    )
    ran = run.follow(hear, patience_s=600)

    assert ran.code == 0, (ran.err, ran.objects[-1])
    told = [line for line in ran.objects if "unit" in line]
    assert [line["unit"] for line in told] == list(range(MANY_UNITS))
    assert_equal((load(Path(line["output"])) for line in told), directly(tmp_path, model, sources))
    print(f"{MANY_UNITS} runs in {ran.took_s:.1f} s: {dict(half.told)}")
    each_is_paid_once(here, told, ran.objects[-1]["summary"], before)


def test_a_second_task_begins_on_all_warm_leases(here: Market, tmp_path: Path) -> None:
    model = affine(tmp_path)
    warm(here, model, 2)
    events: list[dict[str, Any]] = []
    here.buyer.run(model, feeds(60), spread=2, deadline_s=60, on_event=events.append)
    leases = [event for event in events if event["event"] == "lease"]
    assert len(leases) == 2 and all(event["warm"] for event in leases)
    assert not [event for event in events if event["event"] == "discovering"]


def test_the_ceiling_decides_how_far_a_task_is_spread(here: Market, tmp_path: Path) -> None:
    """Enough for the cheapest alone, to the nanoton, is enough; and then nobody else is asked to work."""
    model = here.model()
    quoted = here.buyer.quote(model, runs=60)["quotes"]
    cheapest = min(quoted, key=lambda one: int(one["expected_nanoton"]))
    events: list[dict[str, Any]] = []
    results = here.buyer.run(
        model, [{"x": np.arange(3, dtype=np.float32) + index} for index in range(60)], spread=3, deadline_s=60,
        max_price_nanoton=cheapest["expected_nanoton"], on_event=events.append,
    )
    assert {result.provider for result in results} == {cheapest["provider"]}
    assert sum(result.price_nanoton for result in results) == cheapest["expected_nanoton"] < NANOTON_PER_TON
