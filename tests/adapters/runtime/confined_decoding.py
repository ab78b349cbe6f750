"""Decoding where a worker stands: no files, no network, few system calls, limited memory. Prints the tokens as JSON."""

from __future__ import annotations

import json
import os
import sys

from cocoon.convert.tiny import tiny_decoder
from cocoon.core.units import GIB
from cocoon.runtime import confine, seccomp, worker
from tests.adapters.runtime.decoding import Subject, generated


def main() -> None:
    """As the worker does: import, confine, limit, filter; then run."""
    data = tiny_decoder(exact=False)
    ready = worker.confined_start(os.getppid(), gpu=False)
    confine.limit_memory(GIB, 1)
    if seccomp.available():
        seccomp.install()
    tokens = generated(Subject.of(data), 3, list(range(8)))
    os.write(sys.stdout.fileno(), json.dumps([ready.confinement, tokens]).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
