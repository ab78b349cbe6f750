"""Models that are not what they seem: files they name, code they carry, shapes that do not fit, bytes that lie.

None of them gets as far as a run, unless it says so.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h

from cocoon.wire.codec import encode
from tests import models
from tests.attack.hostile_models.row import row, written

REFUSED = "model_refused"
_PLACES = ("attribute", "sparse_attribute", "sparse_initializer", "subgraph", "function")
#: Every form of a path; all but the odd ones lead to a file that is there.
_LOCATIONS = {
    "parent": "../weights.bin", "absolute": "/etc/hostname", "url": "file:///etc/hostname", "empty": "",
    "process": "/proc/self/environ", "own memory": "*/_ORT_MEM_ADDR_/*",
    "link": "symbolic.bin", "hard link": "hard.bin",
}  # fmt: skip


def changed(make: Callable[[], bytes], change: Callable[[onnx.ModelProto], object]) -> Callable[[], bytes]:
    """The model that ``make`` gives, after ``change`` was done to it."""

    def made() -> bytes:
        model = onnx.load_from_string(make())
        change(model)
        return bytes(model.SerializeToString())

    return made


# --- files -------------------------------------------------------------------


def _outside() -> onnx.TensorProto:
    return onnx.load_from_string(models.external_data_model("weights.bin")).graph.initializer[0]


def _in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(_outside())


def _in_list(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(h.make_attribute("more", [_outside()]))


def _in_default(model: onnx.ModelProto) -> None:
    model.functions[0].attribute_proto.append(h.make_attribute("w", _outside()))


def _in_graphs(model: onnx.ModelProto) -> None:
    graph = h.make_graph([], "hidden", [], [], [_outside()])
    model.graph.node[0].attribute.append(h.make_attribute("graphs", [graph]))


def _in_indices(model: onnx.ModelProto) -> None:
    values = h.make_tensor("w", T.FLOAT, [1], [1.0])
    model.graph.sparse_initializer.add(values=values, indices=_outside(), dims=[4])


FILE_ROWS = [
    *(row(f"file by {form}", lambda path=path: models.external_data_model(path), REFUSED)
      for form, path in _LOCATIONS.items()),
    *(row(f"file in {where}", lambda where=where: models.external_data_model("../weights.bin", where), REFUSED)
      for where in _PLACES),
    row("file in a training graph", changed(models.adder_model, _in_training), REFUSED),
    row("file in a list of tensors", changed(models.adder_model, _in_list), REFUSED),
    row("file in a default of a function", changed(models.local_function_model, _in_default), REFUSED),
    row("file in a list of graphs", changed(models.adder_model, _in_graphs), REFUSED),
    row("file in the indices of a sparse tensor", changed(models.adder_model, _in_indices), REFUSED),
]  # fmt: skip

# --- code --------------------------------------------------------------------


def _mutual(model: onnx.ModelProto) -> None:
    other = onnx.FunctionProto()
    other.CopyFrom(model.functions[0])
    other.name = "Other"
    model.functions.append(other)
    for function, callee in zip(model.functions, ("Other", "Twice"), strict=True):
        del function.node[1:]
        function.node[0].CopyFrom(h.make_node(callee, ["a"], ["b"], domain="local"))


def _library() -> bytes:
    node = h.make_node("Snpe", ["x"], ["y"], domain="com.microsoft", DLC=b"\x7fELF")
    ends = [h.make_tensor_value_info(name, T.FLOAT, [1]) for name in ("x", "y")]
    opsets = [h.make_opsetid("", 21), h.make_opsetid("com.microsoft", 1)]
    return bytes(h.make_model(h.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=opsets).SerializeToString())


CODE_ROWS = [
    row("operator of a library", models.custom_domain_model, REFUSED),
    row("operator of the layout optimiser", lambda: models.custom_domain_model("com.microsoft.nchwc"), REFUSED),
    row("operator of PyTorch", lambda: models.custom_domain_model("org.pytorch.aten"), REFUSED),
    row("operator of a preview", lambda: models.custom_domain_model("ai.onnx.preview.training"), REFUSED),
    row("compiled context", models.context_node_model, REFUSED),
    row("compiled library", _library, REFUSED),
    row("function that calls itself", models.recursive_function_model, REFUSED),
    row("functions that call each other", changed(models.local_function_model, _mutual), REFUSED),
    row("functions that double at each level", models.exploding_function_model, "limit_exceeded"),
    row("functions nested deeply", lambda: models.exploding_function_model(64), "limit_exceeded"),
]

# --- bytes -------------------------------------------------------------------


def _length(count: int) -> bytes:
    """A protobuf varint."""
    low = count & 0x7F
    return bytes([low]) if count < 0x80 else bytes([low | 0x80]) + _length(count >> 7)


def _field(number: int, body: bytes) -> bytes:
    return _length(number << 3 | 2) + _length(len(body)) + body


def empty_nodes(count: int) -> bytes:
    """Two bytes each in the file, two hundred each in memory."""
    graph = _field(1, b"") * count + _field(12, _field(1, b"y"))
    return b"\x08\x0a" + _field(7, graph) + _field(8, b"\x10\x15")


def nested_graphs(levels: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    graph = b""
    for _ in range(levels):
        graph = _field(1, _field(4, b"If") + _field(5, _field(1, b"then_branch") + _field(6, graph)))
    return b"\x08\x0a" + _field(7, graph + _field(12, _field(1, b"y"))) + _field(8, b"\x10\x15")


def _random_bytes() -> bytes:
    return random.Random(7).randbytes(4_096)


def _flipped() -> bytes:
    data = bytearray(models.five_models()[0].model)
    places = random.Random(11)
    for _ in range(64):
        data[places.randrange(len(data) // 8)] ^= 1 << places.randrange(8)
    return bytes(data)


BYTES_ROWS = [
    row("nothing", lambda: b"", REFUSED),
    row("text", models.not_onnx, REFUSED),
    row("zeros", lambda: bytes(4_096), REFUSED),
    row("random bytes", _random_bytes, REFUSED),
    row("flipped bits", _flipped, REFUSED),
    row("cut off", models.truncated_model, REFUSED),
    row("compressed", lambda: gzip.compress(models.adder_model()), REFUSED),
    row("ONNX Runtime's own format", lambda: b"\x20\0\0\0ORTM" + bytes(64), REFUSED),
    row("two bytes that become hundreds", lambda: empty_nodes(4_000_000), REFUSED + " memory_exceeded"),
    row("nested past the parser's depth", lambda: nested_graphs(200), REFUSED),
    row("nested deeply", lambda: nested_graphs(30), REFUSED),
    row("a graph of no outputs", changed(models.adder_model, lambda m: m.graph.ClearField("output")), REFUSED),
]

# --- shapes, types, names ----------------------------------------------------


def _weights(**fields: object) -> Callable[[], bytes]:
    """The adder with another one as its weight."""

    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].MergeFrom(onnx.TensorProto(**fields))

    return changed(models.adder_model, change)


def _name(name: str) -> Callable[[], bytes]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = model.graph.node[0].input[0] = name

    return changed(models.adder_model, change)


def _many_outputs(model: onnx.ModelProto) -> None:
    for number in range(300):
        model.graph.node.append(h.make_node("Identity", ["x"], [f"y{number}"]))
        model.graph.output.append(h.make_tensor_value_info(f"y{number}", T.FLOAT, ["n"]))


def _rank(model: onnx.ModelProto) -> None:
    for _ in range(40):
        model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[0])


SHAPE_ROWS = [
    row("weights of 2**62 items", _weights(dims=[2**62]), REFUSED + " memory_exceeded"),
    row("weights whose size overflows", _weights(dims=[2**32, 2**32]), REFUSED + " memory_exceeded"),
    row("weights of a negative size", _weights(dims=[-1]), REFUSED),
    row("weights of 2**31 items without data", _weights(dims=[2**31]), REFUSED + " memory_exceeded"),
    row("weights of an unknown type", _weights(dims=[1], data_type=999), REFUSED),
    row("weights of another length", _weights(dims=[3]), REFUSED),
    row("types that do not fit", written("y = Add (x, i) ", "g (float x, int64 i) => (float y)"), REFUSED),
    row("branches of two types", written(
        "c = Cast <to = 9> (x) y = If (c) <then_branch = t () => (float a) { a = Identity (x) },"
        " else_branch = e () => (int64 b) { b = Cast <to = 7> (x) }>"), REFUSED),
    row("a value that needs itself", changed(models.adder_model, _cycle), REFUSED),
    row("a value made twice", changed(models.adder_model, _twice), REFUSED),
    row("an operator set of the future",
        changed(models.adder_model, lambda m: setattr(m.opset_import[0], "version", 2**31)), REFUSED),
    row("a format of the future", changed(models.adder_model, lambda m: setattr(m, "ir_version", 2**40)), REFUSED),
    row("three hundred outputs", changed(models.adder_model, _many_outputs), "limit_exceeded"),
    row("rank 41", changed(models.adder_model, _rank), "limit_exceeded"),
    row("a name of a mebibyte", _name("x" * 2**20), "limit_exceeded"),
    row("a name that moves a terminal's cursor", _name("x\x1b[2J\x07"), REFUSED),
    row("a sequence as input", models.sequence_input_model, REFUSED),
    row("a sequence as output", models.sequence_output_model, REFUSED),
    row("an optional input", models.optional_input_model, REFUSED),
    row("maps as output", models.map_output_model, REFUSED),
    row("bfloat16", lambda: models.narrow_float_model("bfloat16"), "dtype_unsupported"),
    row("float8", lambda: models.narrow_float_model("float8e4m3fn"), "dtype_unsupported"),
]  # fmt: skip

# --- inputs that a lawful model meets ----------------------------------------


def _tensor(dtype: str, shape: list[int], raw: bytes) -> bytes:
    return encode([["x", dtype, shape, raw]])


INPUT_ROWS = [
    row("no tensors", models.adder_model, "malformed", lambda: b"\x91\x00"),
    row("a tensor of 2**40 items in four bytes", models.adder_model, "malformed too_large limit_exceeded",
        lambda: _tensor("float32", [2**40], bytes(4))),
    row("a tensor of a negative length", models.adder_model, "malformed", lambda: _tensor("float32", [-1], bytes(4))),
    row("nothing times everything", models.adder_model, "malformed too_large limit_exceeded inputs_mismatch",
        lambda: _tensor("float32", [0, 2**62], b"")),
    row("texts that are all length", models.adder_model, "malformed too_large",
        lambda: _tensor("string", [2**21], b"\xff" * 64)),
    row("another type", models.adder_model, "inputs_mismatch", lambda: {"x": np.ones(1, "f8")}),
    row("an index outside", models.failing_model, "run_failed",
        lambda: {"x": np.ones(3, "f4"), "i": np.array([2**62])}),
    row("a shape of not-a-number", written(
        "z = Sub (x, x) n = Div (z, z) i = Cast <to = 7> (n) a = Constant <value = int64[1] {0}> ()"
        " s = Unsqueeze (i, a) w = Expand (x, s) y = ReduceSum <keepdims = 0> (w)"), "run_failed memory_exceeded"),
    row("a shape below nothing", written(
        "s = Constant <value = int64[1] {-5}> () w = ConstantOfShape (s) t = ReduceSum <keepdims = 0> (w)"
        " y = Add (t, x)"),
        "run_failed model_refused"),
    row("two unknown lengths", written(
        "s = Constant <value = int64[2] {-1, -1}> () w = Reshape (x, s) y = ReduceSum <keepdims = 0> (w)"),
        "run_failed model_refused"),
    row("a text that is no number", written("y = Cast <to = 1> (t)", "g (string t) => (float y)"), "run_failed",
        lambda: {"t": np.array("boom", object)}),
]  # fmt: skip

ROWS = [*FILE_ROWS, *CODE_ROWS, *BYTES_ROWS, *SHAPE_ROWS, *INPUT_ROWS]
