"""market, and what earnings tells besides: tables for people that claim no more than is known, objects for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cocoon.cli.market import age
from cocoon.core.ids import peer_id
from tests.control_server import HINDSIGHT, LEASE, MARKET, PROVIDER, SOLD, SUMS, Talk, serving
from tests.unit.cli.conftest import Command

EARNED = {"earned_nanoton": 5, "fees_nanoton": 0, "lanes": 0}


def nothing(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """A peer that saw nobody."""
    sums = {"heard": 0, "bid": 0, "won": 0, "lost": 0, "declined": {}, "reason": ""}
    talk.send({"done": {"sums": sums}})


def busy(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """A peer that heard fifty calls, in three pages."""
    (call,) = MARKET["calls"]
    for first, last in ((0, 20), (20, 40), (40, 50)):
        talk.event("page", part="calls", items=[{**call, "units": units} for units in range(first, last)])
    talk.event("page", part="of another version", items=[{}])
    talk.send({"done": {"sums": SUMS}})


def test_the_market_is_three_tables(command: Command, home: Path) -> None:
    with serving(home):
        said = command("market").out.splitlines()
    assert said[0] == "offers: 1" and said[2].startswith(f"{peer_id(PROVIDER)}\t0\t3\t")
    assert "calls heard: 2, bid 1, won 0, lost 1 (most often: up to 5 % dearer); declined: 1 busy" in said
    assert "1 min\tinfer\tprivate\t2\t9\t4000\tbid\tlost\tup to 5 % dearer" in said
    assert said[-4:] == [
        "auctions held: 1", "age\tunits\tprovider\texpected_nanoton\tcompletion_ms\toutcome",
        f"3 s\t4\t{peer_id(PROVIDER)}\t12\t8\ttaken", f"3 s\t4\t{peer_id(LEASE)}\t-\t-\tno bid: unreachable",
    ]


def test_for_programs_each_part_is_an_object_a_line_and_the_sums_come_last(command: Command, home: Path) -> None:
    with serving(home):
        said = command("market", "--json")
    assert said.objects[:-1] == [{"part": part, **item} for part, items in MARKET.items() for item in items]
    assert said.objects[-1] == {"summary": {"offers": 1, "calls": 1, "auctions": 1, **SUMS}}


def test_who_saw_nobody_is_told_so(command: Command, home: Path) -> None:
    with serving(home, nothing):
        said = command("market")
        assert command("market", "--json").objects == [
            {"summary": {"offers": 0, "calls": 0, "auctions": 0, "heard": 0, "bid": 0, "won": 0, "lost": 0,
                         "declined": {}, "reason": ""}}
        ]
    assert said.out.splitlines() == [
        "offers: 0", "", "calls heard: 0, bid 0, won 0, lost 0", "", "auctions held: 0"
    ]


def test_a_person_sees_the_latest_calls_and_a_program_all(command: Command, home: Path) -> None:
    with serving(home, busy):
        said = command("market").out
        assert [item["units"] for item in command("market", "--json").objects[:-1]] == list(range(50))
    assert "\tprivate\t29\t" not in said and "\tprivate\t30\t" in said and "\tprivate\t49\t" in said
    assert "30 earlier ones: --json shows them" in said


def test_earnings_are_told_apart_by_model_or_day(command: Command, home: Path) -> None:
    with serving(home) as server:
        assert command("earnings", "--json").objects == [{"summary": EARNED}]
        assert command("earnings", "--by", "day", "--json").objects == [
            {"day": "x", **SOLD}, {"summary": {**EARNED, "groups": 1}}
        ]
        assert "model\tunits\tearned_nanoton\treceipts\nx\t7\t5\t2\n" in command("earnings", "--by", "model").out
        assert command("earnings", "--by", "buyer").code == 2
    assert server.requests == [("earnings", {}), ("earnings", {"by": "day"}), ("earnings", {"by": "model"})]


def test_hindsight_says_at_least_and_at_most(command: Command, home: Path) -> None:
    with serving(home) as server:
        said = command("earnings", "--ask", "2000000000").out.splitlines()
        assert command("earnings", "--ask", "7", "--json").objects[-1]["summary"]["what_if"] == {
            **HINDSIGHT, "ask_nanoton": 7
        }
        assert command("earnings", "--ask", "-1").code == 2
    assert said[2:] == [
        "if 1,000 runs had been bid at 2 TON in the 4 remembered bids of the last day:",
        "  3 were lost and dearer than the taken bid; of these",
        "    in a lower band, or no dearer: at least 2, at most 3",
        "    no dearer than the taken one: at least 1, at most 2",
        "    won, unless a newcomer was tried: at least 1, worth 0.000000008 TON",
        "  the 1 that were won: at most 0.000000006 TON for all their units, instead of 0.00000001 TON",
    ]
    assert [args for _, args in server.requests] == [{"ask_nanoton": 2_000_000_000}, {"ask_nanoton": 7}]


@pytest.mark.parametrize(("age_ms", "said"), [
    (0, "0 s"), (59_999, "59 s"), (60_000, "1 min"), (3_600_000, "1 h"), (200_000_000, "2 d"),
])
def test_an_age_is_told_in_its_largest_unit(age_ms: int, said: str) -> None:
    assert age(age_ms) == said
