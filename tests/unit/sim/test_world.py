"""Worlds: reproducible to the bit, and their checks see what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cocoon.core.errors import BadSignature
from cocoon.core.ids import PeerKey, TaskId
from cocoon.core.values import replace
from cocoon.scheduler.reputation import Outcome, OutcomeSeen
from cocoon.wire.judged import Voucher
from cocoon.wire.messages import Offer
from cocoon.wire.schema import body_bytes
from cocoon.wire.signing import sign
from sim.checks import GRACE_NS, Checks, Submitted
from sim.engine.heap import Heap
from sim.peers import words
from sim.scenario import read_scenario
from sim.world import World
from tests.unit.scheduler import builders
from tests.unit.sim.worlds import run, scenario, text

_PROGRAM = """
from cocoon.core.values import replace
from sim.world import World
from tests.unit.sim.worlds import scenario
print(World(replace(scenario("{name}"), seconds=25), 3).run().digest)
"""


def test_a_free_market_without_faults_does_every_task() -> None:
    _, found = run(scenario("free"), 1)
    assert found.breaches == ()
    assert found.metrics["ended"] == {"done": 60} and found.metrics["open"] == 0


def test_fake_envelopes_change_no_decision_and_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.world.REAL_SIGNERS", 1)
    _, found = run(scenario("free"), 1)
    assert found.breaches == () and found.metrics["ended"] == {"done": 60}
    assert found.metrics["signatures"] == "fake envelopes, real cells"


def test_a_named_signature_of_another_message_is_refused() -> None:
    signer = words.FakeSigner(1, b"a")
    assert words.named(signer.key, b"cocoon/1/x") == signer.sign(b"cocoon/1/x") != signer.sign(b"cocoon/1/y")


def test_a_signature_that_nobody_of_this_world_made_is_verified() -> None:
    known = words.Words(are_real=True)
    signer, stranger = words.KnownSigner(1, b"a", known.made), words.RealSigner(1, b"b")
    ours, theirs = (sign(builders.offer(), one) for one in (signer, stranger))
    assert known.open(ours.pack(), Offer).signer == signer.key
    assert known.open(theirs.pack(), Offer).signer == stranger.key
    for signed in (ours, theirs):
        forged = replace(signed, body=body_bytes(replace(signed.message, seq=7)))
        with pytest.raises(BadSignature):
            known.open(forged.pack(), Offer)


@pytest.mark.parametrize("name", ["free", "all_faults"])
def test_the_same_seed_gives_the_same_digest_in_fresh_processes_whatever_hashes_are(name: str) -> None:
    digests = set()
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(name=name)], capture_output=True, text=True, timeout=200, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        digests.add(done.stdout)
    assert len(digests) == 1 and digests != {""}


def test_another_seed_gives_another_digest() -> None:
    read = read_scenario(text())
    assert World(read, 1).run().digest == World(read, 1).run().digest != World(read, 2).run().digest


# --- what the checks see -----------------------------------------------------


def checks() -> Checks:
    made = Checks(Heap())
    made.numbers |= {PeerKey(bytes([n]) * 32): n for n in range(4)}
    made.tasks[TaskId(bytes(16))] = Submitted(1, 0, 1, 0, 10, 2)
    return made


def key(number: int) -> PeerKey:
    return PeerKey(bytes([number]) * 32)


def test_a_unit_accepted_twice_is_a_breach() -> None:
    made = checks()
    for provider in (1, 2):
        made.unit_accepted(TaskId(bytes(16)), 0, 0, key(provider), 5)
    assert len(made.breaches) == 1


def test_a_task_that_ends_twice_or_late_is_a_breach() -> None:
    made = checks()
    made.task_ended(TaskId(bytes(16)), None, "")
    made.heap.now_ns = 10 + GRACE_NS + 1
    made.task_ended(TaskId(bytes(16)), None, "")
    assert len(made.breaches) == 2


def test_an_honest_provider_is_no_liar_and_loses_only_by_its_own_death_or_a_cut() -> None:
    made = checks()
    buyer = type("Buyer", (), {"number": 0})()
    made.outcome(buyer, OutcomeSeen(key(1), Outcome.KEPT, ""))
    made.accident(1, 0)
    made.outcome(buyer, OutcomeSeen(key(1), Outcome.LOST, "provider_lost"))
    made.dishonest.add(3)
    made.outcome(buyer, OutcomeSeen(key(3), Outcome.LIED, "wrong_price"))
    assert made.breaches == []
    made.outcome(buyer, OutcomeSeen(key(1), Outcome.LIED, "wrong_price"))
    made.outcome(buyer, OutcomeSeen(key(2), Outcome.LOST, "provider_lost"))
    assert len(made.breaches) == 2


def test_a_voucher_above_what_was_delivered_and_a_second_one_are_breaches() -> None:
    made = checks()
    voucher = Voucher(1, bytes(32), 1, 1, 0, bytes(32))
    made.promised(voucher)
    made.promised(voucher)
    assert made.breaches == []
    made.promised(replace(voucher, head=bytes([1]) * 32))
    made.promised(replace(voucher, seq=2, total_nanoton=1))
    assert len(made.breaches) == 2
