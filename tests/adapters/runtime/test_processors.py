"""RUN-37: counts of a real kernel, with a program that does nothing but count."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cocoon.core.units import PPM
from cocoon.runtime.processors import Count, count, others_ppm

BURN = "while True: pass"
#: Ticks, of ten milliseconds on most kernels, after which a difference is no accident.
ENOUGH = 20


@pytest.fixture
def burning():
    """A process of this one that uses a processor."""
    process = subprocess.Popen([sys.executable, "-c", BURN])
    yield process
    process.kill()
    process.wait()


def until(holds, before, pid):
    """Look again until the counts differ enough."""
    while not holds(now := count(pid)):
        assert now.all >= before.all and now.busy >= before.busy
    return now


def test_what_a_child_uses_is_our_own_and_for_the_child_it_is_ours_alone(burning):
    before = count(os.getpid())
    ours = until(lambda now: now.own - before.own >= ENOUGH, before, os.getpid())
    assert ours.own - before.own <= ours.busy - before.busy + ENOUGH
    assert count(burning.pid).own <= count(os.getpid()).own


def test_what_another_uses_is_not_ours(burning):
    quiet = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        before = count(quiet.pid)
        after = until(lambda now: now.busy - before.busy >= 5 * ENOUGH, before, quiet.pid)
        assert after.own - before.own < ENOUGH
        assert others_ppm(before, after) > 0
    finally:
        quiet.stdin.close()
        quiet.wait()


def test_time_of_a_child_that_ended_stays_ours():
    before = count(os.getpid()).own
    busy = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    assert count(os.getpid()).own - before >= ENOUGH


def test_a_system_that_tells_nothing_is_no_error(tmp_path):
    assert count(1, tmp_path) is None


def test_processes_that_end_while_they_are_looked_at_are_passed_over(tmp_path):
    (tmp_path / "stat").write_text("cpu  10 1 5 80 3 1 1 0 0 0\ncpu0 1 2 3\n")
    zeros = "0 " * 9
    for pid, text in ((7, f"7 (a ) b) S 1 {zeros}3 4 5 6 0"), (8, f"8 (c) S 7 {zeros}1 1 0 0 0"), (9, "")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(text)
    (tmp_path / "10").mkdir()
    assert count(7, tmp_path) == Count(all=101, busy=18, own=20)
    assert count(8, tmp_path).own == 2 and count(99, tmp_path).own == 0


@pytest.mark.parametrize(("before", "now", "ppm"), [
    ((0, 0, 0), (100, 60, 10), PPM // 2),
    ((0, 0, 0), (100, 60, 90), 0),                      # ticks are coarse, and told at different moments
    ((0, 0, 50), (100, 60, 10), 6 * PPM // 10),         # one of ours ended and nobody waited for it
    ((5, 5, 5), (5, 5, 5), 0),
    ((0, 0, 0), (100, 200, 0), PPM),
])
def test_the_share_of_others(before, now, ppm):
    assert others_ppm(Count(*before), Count(*now)) == ppm


def test_a_process_that_ends_while_it_is_looked_at_ends_no_count(monkeypatch):
    def ended(path):
        raise ProcessLookupError(3, "No such process", str(path))

    monkeypatch.setattr(Path, "exists", ended)          # as the kernel answers for one that ended after it was listed
    assert count(os.getpid()).own > 0
