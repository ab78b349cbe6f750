"""The figures of `make bench`, each beside its goal.

Each measure is a function that returns rows; ``python -m bench.run NAME ...`` runs only those.
Timings are medians on this machine, whatever else it does at the moment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.batching import batching
from bench.boundary import boundary
from bench.bulk import bulk
from bench.joined import joined
from bench.leases import leases
from bench.ledger import anchor, demo, first_task, vouchers
from bench.market import match
from bench.peers import peers
from bench.rivals.run import rivals
from bench.rows import ROOT, Row
from bench.simulator import simulator
from bench.spoken import spoken
from bench.stream import shared, stream
from bench.tokens import tokens
from bench.workers import workers

LOCKS = ROOT / "requirements"
HELP_STARTS = 15


def help_time() -> list[Row]:
    """`cocoon --help`, process start to exit, with byte code."""
    command = [str(ROOT / ".venv" / "bin" / "cocoon"), "--help"]
    took = [_seconds(command) for _ in range(HELP_STARTS + 1)][1:]
    return [Row("cocoon --help, median", f"{median(took):.3f} s", "0.3 s")]


def install() -> list[Row]:
    """A fresh environment from the product's lock, nothing cached, byte code included."""
    with tempfile.TemporaryDirectory(prefix="cocoon-install-") as folder:
        started = time.perf_counter()
        _quiet([sys.executable, "-m", "venv", folder])
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-qq", "--no-cache-dir", "--disable-pip-version-check"]
        hashed = [*pip, "--no-deps", "--no-build-isolation", "--require-hashes", "-r"]
        _quiet([*hashed, str(LOCKS / "setuptools.lock")])
        _quiet([*hashed, str(LOCKS / "product.lock")])
        subprocess.run([python, "-m", "compileall", "-q", "-j", "0", folder], capture_output=True)
        took = time.perf_counter() - started
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return [
        Row("install from the lock, empty cache", f"{took:.0f} s", "180 s with the demo"),
        Row("installed size", f"{size / 2**20:.0f} MiB"),
    ]


MEASURES: tuple[Callable[[], list[Row]], ...] = (
    help_time, peers, stream, shared, bulk, rivals, boundary, workers, joined, leases, batching, tokens, spoken, match,
    vouchers, anchor, first_task, simulator, demo, install,
)


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    _quiet(command)
    return time.perf_counter() - started


def _quiet(command: list[str]) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def main(names: list[str]) -> int:
    """Print the rows of every measure, or of the named ones."""
    chosen = [measure for measure in MEASURES if not names or measure.__name__ in names]
    print(f"{'figure':<58} {'value':>12}   goal")
    for measure in chosen:
        for row in measure():
            print(f"{row.what:<58} {row.value:>12}   {row.goal}", flush=True)
    return 0 if chosen else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
