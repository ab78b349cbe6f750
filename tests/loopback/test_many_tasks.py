"""Several tasks at one time, on one peer and one provider."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cocoon
from cocoon.core.limits import LEASES_PER_REQUESTER
from tests.loopback.conftest import Settled
from tests.models import five_models

TASKS = 2 * LEASES_PER_REQUESTER
UNITS = 20


def test_tasks_that_want_one_cold_model_at_once_share_a_lease(settled: Settled, tmp_path: Path) -> None:
    _, model, inputs = five_models()[0]
    (tmp_path / "model.onnx").write_bytes(model)
    client = cocoon.connect(settled.requester.home)

    def task(_: int) -> list[cocoon.Result]:
        return client.run(tmp_path / "model.onnx", [inputs] * UNITS)

    with ThreadPoolExecutor(TASKS) as threads:
        tasks = list(threads.map(task, range(TASKS)))
    results = [result for of_task in tasks for result in of_task]
    assert [result.unit for of_task in tasks for result in of_task] == [*range(UNITS)] * TASKS
    assert len({result.lease for result in results}) == 1
    assert len({result.number for result in results}) == TASKS * UNITS, "two runs had one number"
    assert all(result.receipt for result in results)


def test_more_models_than_leases_are_run_one_after_the_other(settled: Settled, tmp_path: Path) -> None:
    client = cocoon.connect(settled.requester.home)
    for index in range(LEASES_PER_REQUESTER + 2):
        name, model, inputs = five_models()[index % len(five_models())]
        path = tmp_path / f"{index}.onnx"
        # A trailing unknown field makes another file of the same model.
        path.write_bytes(model + b"\x9a\x06\x01" + bytes([index]))
        result = client.run(path, inputs)
        assert result.receipt is not None, name
