"""SIGKILL in the middle of work: what was acknowledged is there, and the chain is whole.

A kill proves nothing about power cuts (the kernel still has the pages); that
synchronous=FULL is set is tested beside this.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

from cocoon.store.service import Room, open_journal, open_reader

CHILD = """
import os, sys, time, trio
from pathlib import Path
from cocoon.store.service import Room, open_journal

async def writer(journal, name):
    n = 0
    while True:
        n += 1
        seq = await journal.append("k", b"%d.%d" % (name, n), b"%s.%d.%d" % (sys.argv[2].encode(), name, n))
        os.write(1, b"%d %d.%d\\n" % (seq, name, n))

async def main():
    async with open_journal(Path(sys.argv[1]), time.time_ns, room=Room(reserve_bytes=65536)) as journal:
        async with trio.open_nursery() as nursery:
            for name in range(16):
                nursery.start_soon(writer, journal, name)

trio.run(main)
"""


def killed_run(path, life: int, acknowledged: int) -> dict[int, bytes]:
    """Let a child append until ``acknowledged`` lines were read, kill it, return every line it said."""
    command = [sys.executable, "-c", CHILD, str(path), str(life)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledged)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    pairs = (line.split() for line in lines if line.endswith(b"\n"))
    return {int(seq): body for seq, body in pairs}


async def test_kill_9_loses_no_acknowledged_record(tmp_path):
    path = tmp_path / "journal.db"
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    said: dict[int, bytes] = {}
    for life in range(8):
        said |= killed_run(path, life, rng.randrange(1, 400))
        with open_reader(path) as reader:
            reader.verify()
            kept = {entry.seq: entry.body for entry in reader.entries()}
        lost = {seq: body for seq, body in said.items() if kept.get(seq) != body}
        assert lost == {}
    async with open_journal(path, time.time_ns, room=Room(reserve_bytes=65_536)) as journal:
        assert await journal.append("after", b"") == len(kept) + 1
