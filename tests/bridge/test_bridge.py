"""What the machines of live peers did, they do again in another process, to the byte: the simulator drives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

import cocoon
from tests.bridge.tape import Entry, Played, machines, play, read
from tests.loopback.paid import ASKS, TON, inputs, until
from tests.loopback.town import town
from tests.models import adder_model


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Entry]]]:
    """A provider and a requester trade, fail, settle and end, and another provider rests because the machine is busy;
    what each of their machines took and ordered.
    """
    folder = tmp_path_factory.mktemp("bridge")
    paths = {who: folder / f"{who}.tape" for who in ("provider", "requester", "resting")}
    model = folder / "model.onnx"
    model.write_bytes(adder_model())
    with town(folder, ledger="ton") as place:
        place.bootstrap(devnet_block_ms="50")

        def start(who: str, *flags: str, **more: str) -> cocoon.Client:
            words = (str(paths[who]), "up", *flags, "--join", place.link)
            peer = place.start(who, "tests.bridge.root", *words, **ASKS, **more)
            peer.wait_line("ready")
            return cocoon.connect(peer.home)

        for who, flags in (("provider", ["--provide"]), ("requester", [])):
            start(who, *flags).fund(10 * TON)
        buyer, seller = (cocoon.connect(place.directory / who) for who in ("requester", "provider"))
        until(lambda: len(buyer.run(model, inputs(20))) == 20, "a task")
        buyer.run(model, inputs(3))
        buyer.settle()
        seller.settle()
        resting = start("resting", "--provide", yield_ppm="1")
        until(lambda: "other programs" in resting.status()["rests"], "its rest")
        for peer in reversed(place.peers[-3:]):
            assert peer.terminate() == 0
    yield {who: list(read(path)) for who, path in paths.items()}


def played(tapes: dict[str, list[Entry]]) -> list[Played]:
    return [step for entries in tapes.values() for step in play(entries)]


def test_every_machine_orders_again_what_it_ordered_live(tapes: dict[str, list[Entry]]) -> None:
    steps = played(tapes)
    unlike = [step for step in steps if step.orders != step.entry.orders]
    assert not unlike, f"{len(unlike)} of {len(steps)}, first {unlike[0]}"


def test_the_live_market_needed_every_machine(tapes: dict[str, list[Entry]]) -> None:
    seen = {entry.kind for entries in tapes.values() for entry in entries}
    assert seen == {one.__name__ for one in machines()}


def test_nothing_changes_a_machine_but_its_facts(tapes: dict[str, list[Entry]]) -> None:
    """A state in mid life was made by hand: what the tape cannot explain, and the simulator would not do."""
    by_hand: Counter[str] = Counter()
    for entries in tapes.values():
        begun: set[int] = set()
        for entry in entries:
            by_hand[entry.kind] += entry.state is not None and entry.machine in begun
            begun.add(entry.machine)
    assert +by_hand == {}
