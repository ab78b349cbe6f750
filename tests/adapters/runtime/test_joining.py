"""JOI-17 to JOI-20 in real workers: the same bits as alone, in fewer executions; and who says so is confined."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cocoon.core.limits import BATCH_RUNS
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests import models

ITEMS = 256


def dense(layers=4):
    """``y`` of some layers of float32 weights, (n, 256) each way."""
    generator = np.random.default_rng(3)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", ITEMS]) for name in ("x", "y")]
    names = ["x", *(f"h{layer}" for layer in range(1, layers)), "y"]
    weights = [
        numpy_helper.from_array((generator.standard_normal((ITEMS, ITEMS)) / 16).astype("f4"), f"w{layer}")
        for layer in range(layers)
    ]
    nodes = [
        helper.make_node("MatMul", [before, weight.name], [after])
        for before, weight, after in zip(names, weights, names[1:], strict=False)
    ]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], weights)
    imports = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=imports, ir_version=models.IR_VERSION).SerializeToString()


async def orders(worker, payloads, count):
    """The same runs, order after order: outputs and seats of each order."""
    found = []
    for _ in range(count):
        reports = await worker.run_all(payloads)
        found.append(([bytes(one.outputs) for one in reports], [(one.joined, one.place) for one in reports]))
    return found


async def test_runs_of_one_form_come_to_go_together_and_keep_their_bits(start, model_file):
    generator = np.random.default_rng(4)
    payloads = [encode_tensors({"x": generator.standard_normal((1, ITEMS)).astype("f4")}) for _ in range(BATCH_RUNS)]
    async with await start() as worker:
        await worker.load(model_file(dense()), tolerance=(100, 1_000))
        (alone, first), *_, (_, last) = found = await orders(worker, payloads, 9)
    assert first[0] == (1, 0) and last[0][0] > 1
    for outputs, seats in found:
        joined = [place for runs, place in seats if runs > 1]
        assert all(runs == 1 or place < runs for runs, place in seats) and len(joined) != 1
        for one, other in zip(alone, outputs, strict=True):
            before, after = decode_tensors(one)["y"], decode_tensors(other)["y"]
            assert np.allclose(before, after, rtol=1e-4, atol=1e-6)


async def test_a_model_whose_rows_depend_on_each_other_never_shares_an_execution(start, model_file):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"], axis=0)], "over", [x], [y])
    imports = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=models.IR_VERSION).SerializeToString()
    payloads = [encode_tensors({"x": np.full((1, 4), number, "f4")}) for number in range(BATCH_RUNS)]
    async with await start() as worker:
        await worker.load(model_file(model), tolerance=(10, 10))
        for outputs, seats in await orders(worker, payloads, 6):
            assert seats == [(1, 0)] * BATCH_RUNS
            assert all(decode_tensors(one)["y"].tolist() == [[1.0] * 4] for one in outputs)
