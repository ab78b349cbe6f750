"""JOI-3 to JOI-5 on real sessions: who may be joined, found by executing and not by believing.

The sessions live in one process of their own, because onnxruntime may not come after tonpy in one.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from cocoon.core.units import GIB
from tests import models

MAGIKA = Path(__file__).parents[3] / "build" / "magika" / "model.onnx"

REGISTER = """
import json, sys
from pathlib import Path
from cocoon.runtime import screen, session
from cocoon.runtime.registration import register
found = {}
for path in Path(sys.argv[1]).glob("*.onnx"):
    data = path.read_bytes()
    model = session.Model(data, screen.screen(data), session.CPU, 1, int(sys.argv[2]))
    done = register(model.run, model.inputs, int(sys.argv[2]), 7, 0.0)
    found[path.stem] = [done.joining.name, done.difference, done.curve.points, done.curve.best_rows()]
print(json.dumps(found))
"""


def one_node(operator, outputs, opset=21, **attributes):
    """A model of one operator on ``x``, float32 (n, 4)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "one", [x], [y])
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=models.IR_VERSION).SerializeToString()


def small_table():
    """Looks int64 ids up in a table of three rows: most numbers that could be drawn are out of bounds."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "t", 2])
    table = numpy_helper.from_array(np.arange(6, dtype="f4").reshape(3, 2), "table")
    graph = helper.make_graph([helper.make_node("Gather", ["table", "ids"], ["y"])], "table", [ids], [y], [table])
    imports = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=imports, ir_version=models.IR_VERSION).SerializeToString()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By name of the model: grade, difference, points of the curve, largest batch."""
    folder = tmp_path_factory.mktemp("models")
    chosen = {user.name: user.model for user in models.five_models()} | {
        "adder": models.adder_model(),
        "affine": models.affine_model(),
        "small_table": small_table(),
        "relative_to_others": one_node("Softmax", ["n", 4], axis=0),
        "over_all": one_node("ReduceMean", [1, 4], axes=[0], opset=13),
        "dice": one_node("RandomNormalLike", ["n", 4]),
    }
    if MAGIKA.is_file():
        chosen["magika"] = MAGIKA.read_bytes()
    for name, data in chosen.items():
        (folder / f"{name}.onnx").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", REGISTER, str(folder), str(GIB)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["adder", "image_float32", "attention_float16", "labels_string", "small_table"])
def test_rows_that_come_out_with_equal_bits_may_be_joined(found, name):
    grade, difference, points, best_rows = found[name]
    assert (grade, difference) == ("LEASES", 0)
    assert points[0][0] == 1 and best_rows >= 1
    assert [rows for rows, _ in points] == [1 << step for step in range(len(points))]
    assert all(less[1] <= more[1] for less, more in zip(points, points[1:], strict=False))


@pytest.mark.parametrize("name", ["relative_to_others", "over_all", "dice"])
def test_rows_that_depend_on_each_other_or_on_dice_are_never_joined(found, name):
    grade, difference, points, best_rows = found[name]
    assert grade == "NOTHING" and difference > 0.01
    assert best_rows == 1


@pytest.mark.parametrize("name", ["affine", "embedding_int64", "mask_bool"])
def test_a_model_with_an_input_or_output_that_has_no_rows_is_never_joined(found, name):
    assert found[name][0] == "NOTHING"


@pytest.mark.skipif(not MAGIKA.is_file(), reason="LOUD SKIP: no build/magika; `make test` puts it there")
def test_magika_is_joined_within_a_lease_only(found):
    """Its last bits change with the size of the batch."""
    grade, difference, _, _ = found["magika"]
    assert grade == "LEASE" and 0 < difference < 0.01
