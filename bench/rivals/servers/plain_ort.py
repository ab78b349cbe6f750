"""Plain ONNX Runtime in one process, one run after the other: no server, no bytes to move.

usage: python -m bench.rivals.servers.plain_ort ITEMS SECONDS     (prints nanoseconds of each run, as JSON)

Purity: shell.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from bench.rivals.servers.engine import open_session


def main() -> None:
    """Run for a while; the first tenth of the time is left out."""
    items, span_ns = int(sys.argv[1]), int(float(sys.argv[2]) * 1e9)
    session, x = open_session(), np.linspace(-1, 1, int(sys.argv[1]), dtype="f4").reshape(1, items)
    took_ns: list[int] = []
    warm_ns = time.perf_counter_ns() + span_ns // 10
    while (began_ns := time.perf_counter_ns()) < warm_ns + span_ns:
        session.run(None, {"x": x})
        if began_ns >= warm_ns:
            took_ns.append(time.perf_counter_ns() - began_ns)
    print(json.dumps({"took_ns": took_ns, "span_ns": span_ns}))


if __name__ == "__main__":
    main()
