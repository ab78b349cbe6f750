"""The node tests of ONNX, one after the other in this process: a line for each, with how it ended.

Run as ``python -m tests.adapters.runtime.operators confined`` or ``... plain``. A system call that
the filter forbids ends the process, and the last line then names the test before.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator

import numpy as np

from cocoon.core.errors import CocoonError
from cocoon.core.units import GIB
from cocoon.runtime import seccomp, session, worker
from cocoon.runtime.screen import screen

Feeds = dict[str, np.ndarray]


def cases() -> Iterator[tuple[str, bytes, Feeds]]:
    """Name, model and tensors of every test of one operator that ONNX ships."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they compute with infinities on purpose
        for case in collect_testcases(None):
            names = [each.name for each in case.model.graph.input]
            for inputs, _ in case.data_sets[:1]:
                tensors = {name: v for name, v in zip(names, inputs, strict=False) if isinstance(v, np.ndarray)}
                yield case.name, case.model.SerializeToString(), tensors


def main(how: str) -> None:
    """Run them all, with one to four threads in turn."""
    found = list(cases())
    worker.warm_up(session.CPU)
    if how == "confined":
        worker.confined_start(os.getppid(), gpu=False)
        seccomp.install()
    for number, (name, data, tensors) in enumerate(found):
        try:
            session.Model(data, screen(data), session.CPU, 1 + number % 4, GIB).run(tensors)
            end = "ran"
        except CocoonError as error:
            end = error.code
        print(name, end, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
