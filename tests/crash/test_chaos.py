"""Peers with money die and freeze at any moment, and all of them come back: every answer is right, every unit is paid.

A devnet, two providers and a requester; clients that map, keep sessions, read tokens, and leave in the middle.
What else may happen to one peer at one place, the other tests here say; this one looks for what nobody thought of.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import cocoon
from cocoon.convert import tiny
from cocoon.core.errors import CocoonError
from cocoon.sdk import Ask
from tests.loopback.paid import ASKS, BLOCK_MS, RUN_NANOTON, TON, Market, covered, inputs, kept, until, vouched
from tests.loopback.test_generation import right, tiny_package
from tests.loopback.town import Peer, Town, town, wait_s
from tests.loopback.verdict import all_up

DISASTERS = 30
BUYERS = 4
#: A disaster lasts up to so long, and the next one comes as soon after it.
FROZEN_S, DEAD_S, PAUSED_S, REST_S = 10.0, 2.0, 2.0, 3.0
DEADLINE_S = 30
_CAPS = {"wallet_hour_nanoton": str(10**15), "wallet_day_nanoton": str(10**15)}
SETTINGS = {
    "bootstrap": {"devnet_block_ms": BLOCK_MS},
    "first": {**ASKS, **_CAPS},
    "second": {**ASKS, **_CAPS, "price_run_nanoton": str(1_200 * RUN_NANOTON)},
    "requester": _CAPS,
}
PROVIDERS = ("first", "second")


@dataclass
class Chaos:
    """The peers by name, and what their clients saw."""

    place: Town
    folder: Path
    peers: dict[str, Peer] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def start(self, name: str) -> None:
        """This peer, on its home."""
        if name == "bootstrap":
            self.peers[name] = self.place.bootstrap(**SETTINGS[name])
            return
        provides = ("--provide",) if name in PROVIDERS else ()
        self.peers[name] = self.place.up(name, *provides, "--join", self.place.link, **SETTINGS[name])
        self.peers[name].wait_line("ready")

    def client(self, name: str) -> cocoon.Client:
        """Of this peer."""
        return cocoon.connect(self.folder / name)

    # --- disasters -------------------------------------------------------------

    def kill(self, name: str, moments: random.Random) -> None:
        """It dies with all its processes, and comes back."""
        dead = self.peers[name]
        dead.kill_tree()
        self.place.peers.remove(dead)
        wait_s(moments.uniform(0, DEAD_S))
        self.start(name)

    def freeze(self, name: str, moments: random.Random) -> None:
        """It stands still, mostly for a moment."""
        self.peers[name].freeze(moments.uniform(0, 1) * moments.choice([0.01, 0.1, 1]) * FROZEN_S)

    def pause(self, name: str, moments: random.Random) -> None:
        """Its owner wants the machine."""
        self.client(name).pause()
        wait_s(moments.uniform(0, PAUSED_S))
        self.client(name).pause(False)

    # --- what clients do -------------------------------------------------------

    def buy(self, model: Path, decoder: Path, choices: random.Random) -> None:
        """One task after the other."""
        jobs: dict[str, Callable[[], None]] = {
            "map": lambda: self._map(model, choices), "leave": lambda: self._leave(model, choices),
            "session": lambda: self._session(model, choices), "generate": lambda: self._generate(decoder, choices),
        }
        while not self.over.is_set():
            name = choices.choice(list(jobs))
            try:
                jobs[name]()
                self.ends[f"{name} done"] += 1
            except CocoonError as error:
                self.ends[f"{name} {error.code}"] += 1
                if error.code == "no_local_peer":
                    wait_s(PAUSED_S / 10)               # the requester is dead

    def _map(self, model: Path, choices: random.Random) -> None:
        given = inputs(choices.choice([1, 5, 40, 300]))
        found = self.client("requester").run(model, given, deadline_s=DEADLINE_S, spread=choices.choice([1, 2]))
        for one, result in zip(given, found, strict=True):
            self._see(one, result.outputs)

    def _leave(self, model: Path, choices: random.Random) -> None:
        found = self.client("requester").map(model, iter(inputs(200)), deadline_s=DEADLINE_S)
        for _ in range(choices.randrange(60)):
            next(found)
        found.close()

    def _session(self, model: Path, choices: random.Random) -> None:
        with self.client("requester").session(model, runs=50, deadline_s=DEADLINE_S) as session:
            for one in inputs(choices.randrange(1, 40)):
                self._see(one, session.run(one).outputs)

    def _generate(self, decoder: Path, choices: random.Random) -> None:
        prompts = [tuple(choices.choices(range(tiny.SIZES.vocabulary), k=choices.randrange(1, 9))) for _ in range(3)]
        most = choices.choice([3, 20])
        answers = self.client("requester").generate(decoder, [Ask(one, most) for one in prompts], deadline_s=DEADLINE_S)
        for prompt, answer in zip(prompts, answers, strict=True):
            # A provider that was frozen may cut an answer short, and says so.
            if answer.reason != "cancelled" and not right(answer, prompt, most):
                self.wrong.append(f"{prompt}: {answer}")

    def _see(self, given: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
        if not np.array_equal(found["y"], given["x"] + 1):
            self.wrong.append(f"{given}: {found}")


def strike(here: Chaos, moments: random.Random) -> None:
    """One disaster after the other."""
    for _ in range(DISASTERS):
        kind = moments.random()
        if kind < 0.3:
            here.kill(moments.choice([*PROVIDERS, *PROVIDERS, "requester", "bootstrap"]), moments)
        elif kind < 0.4:
            here.pause(moments.choice(PROVIDERS), moments)
        else:
            here.freeze(moments.choice(list(here.peers)), moments)
        wait_s(moments.uniform(0, REST_S))


def check_books(here: Chaos) -> None:
    """Once all are back: what was promised is held, and every account is right to the nanoton."""
    requester, providers = here.peers["requester"], [here.peers[name] for name in PROVIDERS]
    until(lambda: here.client("requester").wallet()["unsettled_leases"] == 0, "the settled leases")
    promised = sum(vouched(requester).values())
    until(lambda: sum(sum(kept(one).values()) for one in providers) == promised, "the vouchers")
    assert sum(covered(requester).values()) == promised > 0
    assert all(here.client(name).audit()["clean"] for name in (*PROVIDERS, "requester"))


@pytest.mark.long
def test_whatever_befalls_whom_answers_are_right_and_paid_once(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    decoder = tiny_package(tmp_path / "tiny")
    with town(tmp_path, "ton") as place:
        here = Chaos(place, tmp_path)
        for name in SETTINGS:
            here.start(name)
            if name != "bootstrap":
                here.client(name).fund(1_000 * TON)
        market = Market(place, here.peers["bootstrap"], here.peers["first"], here.peers["requester"], tmp_path)
        with ThreadPoolExecutor(BUYERS) as pool:
            buyers = [
                pool.submit(here.buy, market.model(), decoder, random.Random(seed + number))
                for number in range(1, BUYERS + 1)
            ]
            try:
                strike(here, random.Random(seed))
            finally:
                here.over.set()
        for buyer in buyers:
            buyer.result()
        print(sorted(here.ends.items()))
        assert not here.wrong
        assert {"map done", "leave done", "session done", "generate done"} <= set(here.ends)
        check_books(here)
        all_up(place)
