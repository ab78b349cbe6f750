"""Models that tests run: five honest ones of a user, and the ones a provider must survive.

Every function is deterministic and returns the bytes of an ONNX file. Feeds are
dicts from input name to numpy array, string tensors as object arrays of ``str``.
Nothing here imports Cocoon or ONNX Runtime.

    five_models()            the acceptance set: (name, model, inputs) of different ranks and dtypes
    adder_model()            y = x + 1, float32, dynamic axis: the smallest useful model
    affine_model()           two named inputs with fixed and dynamic axes, for mismatch tests
    endless_model()          a Loop of 2**62 rounds: never ends
    kernel_bomb()            one MatMul that takes minutes and cannot be interrupted from inside
    memory_bomb()            wants 10 GiB at run time, from a 200-byte file
    memory_bomb_at_load()    wants 10 GiB while the session is created (sparse initializers made dense)
    memory_bomb_by_folding() invites the optimiser to fold 10 GiB; it gives up, so the run wants them
    memory_bomb_by_input()   wants as many floats as its input says
    wide_output_model()      answers 1 GiB for 4 bytes
    external_data_model()    reads a tensor from another file, by initializer, attribute or sparse tensor
    custom_domain_model()    uses an operator of an unknown domain
    local_function_model()   the same spelling, but the model brings the function along (lawful)
    and further refused ones: see the end of the file
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

IR_VERSION = 10
OPSET = 21
#: A float32 tensor of this many items takes 10 GiB.
BOMB_ITEMS = 2_684_354_560

Feeds = dict[str, np.ndarray]
Where = Literal["initializer", "attribute", "sparse_attribute", "sparse_initializer", "subgraph", "function"]


class UserModel(NamedTuple):
    """One model of a user with inputs that it accepts; unpacks as (name, model, inputs)."""

    name: str
    model: bytes
    inputs: Feeds


def five_models() -> list[UserModel]:
    """Ranks 0 to 4; float32, float16, int64, bool, string; every model has a dynamic axis."""
    return [_image_float32(), _attention_float16(), _embedding_int64(), _mask_bool(), _labels_string()]


def adder_model() -> bytes:
    """y = x + 1; ``x`` and ``y`` float32 of shape (n,)."""
    nodes = [h.make_node("Add", ["x", "one"], ["y"])]
    return _model(nodes, [_f32("x", ["n"])], [_f32("y", ["n"])], [nh.from_array(np.ones(1, "f4"), "one")])


def mirror_model(axis: str = "m") -> bytes:
    """y = x, twice: float32 of shape (n,) becomes (2 n,); ``axis`` names the output's, and "n" would be a lie."""
    return _model([h.make_node("Concat", ["x", "x"], ["y"], axis=0)], [_f32("x", ["n"])], [_f32("y", [axis])])


def four_outputs_model() -> bytes:
    """Of float32 ``x`` of shape (n,): ``a`` is its sum, ``b`` = -x, ``c`` whether x > 0, ``d`` = x as int16."""
    nodes = [
        h.make_node("ReduceSum", ["x"], ["a"], keepdims=0), h.make_node("Neg", ["x"], ["b"]),
        h.make_node("Greater", ["x", "zero"], ["c"]), h.make_node("Cast", ["x"], ["d"], to=T.INT16),
    ]
    ends = [_f32("a", []), _f32("b", ["n"]), _value("c", T.BOOL, ["n"]), _value("d", T.INT16, ["n"])]
    return _model(nodes, [_f32("x", ["n"])], ends, [nh.from_array(np.zeros(1, "f4"), "zero")])


def affine_model() -> bytes:
    """y = x @ w + b; ``x`` float32 (n, 4), ``b`` float32 (3,), ``y`` float32 (n, 3)."""
    weights = np.arange(12, dtype="f4").reshape(4, 3) / 7
    nodes = [h.make_node("MatMul", ["x", "w"], ["xw"]), h.make_node("Add", ["xw", "b"], ["y"])]
    inputs = [_f32("x", ["n", 4]), _f32("b", [3])]
    return _model(nodes, inputs, [_f32("y", ["n", 3])], [nh.from_array(weights, "w")])


def affine_inputs() -> Feeds:
    """Inputs that ``affine_model`` accepts."""
    return {"x": np.linspace(-1, 1, 8, dtype="f4").reshape(2, 4), "b": np.ones(3, "f4")}


# --- bombs -------------------------------------------------------------------


def endless_model() -> bytes:
    """Loops 2**62 times; input ``x`` float32 scalar. Loads in milliseconds, never answers."""
    return _endless(start="x")


def endless_at_load_model() -> bytes:
    """The same loop over constants only, in case the optimiser folds it; input ``x`` float32 scalar."""
    return _endless(start="zero")


def counting_model() -> bytes:
    """Loops as often as the int64 scalar ``rounds`` says, which a stranger gives; ``y`` is that, as float32."""
    nodes = [h.make_node("Loop", ["rounds", "true", "zero"], ["y"], body=_counting())]
    constants = [nh.from_array(np.array(True), "true"), *_COUNTED]
    return _model(nodes, [_value("rounds", T.INT64, [])], [_f32("y", [])], constants)


def endless_inputs() -> Feeds:
    """Inputs of ``endless_model`` and ``memory_bomb``: one float32 scalar ``x``."""
    return {"x": np.array(1, "f4")}


def memory_bomb() -> bytes:
    """Expands scalar ``x`` (float32) to 10 GiB and sums it."""
    nodes = [
        h.make_node("Expand", ["x", "shape"], ["wide"]),
        h.make_node("Exp", ["wide"], ["exp"]),
        h.make_node("ReduceSum", ["exp"], ["y"], keepdims=0),
    ]
    shape = nh.from_array(np.array([BOMB_ITEMS], "i8"), "shape")
    return _model(nodes, [_f32("x", [])], [_f32("y", [])], [shape])


def memory_bomb_at_load() -> bytes:
    """Five sparse initializers of one value each, 10 GiB when made dense; input ``x`` float32 scalar."""
    names = [f"w{index}" for index in range(5)]
    nodes = [h.make_node("Sum", ["x", *names], ["s"]), h.make_node("ReduceSum", ["s"], ["y"], keepdims=0)]
    model = onnx.load_from_string(_model(nodes, [_f32("x", [])], [_f32("y", [])]))
    indices = h.make_tensor("at", T.INT64, [1], [0])
    for name in names:
        values = h.make_tensor(name, T.FLOAT, [1], [1.0])
        # One item less than 2 GiB: ONNX Runtime refuses larger ones.
        model.graph.sparse_initializer.add(values=values, indices=indices, dims=[BOMB_ITEMS // 5 - 1])
    return model.SerializeToString()


def memory_bomb_by_folding() -> bytes:
    """The optimiser may fold a 10 GiB constant while the session is created; input ``x`` float32 scalar."""
    nodes = [
        h.make_node("Constant", [], ["s"], value=h.make_tensor("s", T.INT64, [1], [BOMB_ITEMS])),
        h.make_node("ConstantOfShape", ["s"], ["t"], value=h.make_tensor("v", T.FLOAT, [1], [1.0])),
        h.make_node("Exp", ["t"], ["e"]),
        h.make_node("Mul", ["e", "x"], ["y"]),
    ]
    return _model(nodes, [_f32("x", [])], [_f32("y", ["k"])])


def memory_bomb_by_input() -> bytes:
    """Fills as many float32 as input ``s`` (int64, shape (1,)) says, and sums them."""
    nodes = [
        h.make_node("ConstantOfShape", ["s"], ["t"], value=h.make_tensor("v", T.FLOAT, [1], [1.0])),
        h.make_node("ReduceSum", ["t"], ["y"], keepdims=0),
    ]
    return _model(nodes, [_value("s", T.INT64, [1])], [_f32("y", [])])


def bomb_inputs(items: int = BOMB_ITEMS) -> Feeds:
    """Inputs of ``memory_bomb_by_input``."""
    return {"s": np.array([items], "i8")}


def kernel_bomb(side: int = 16_384) -> bytes:
    """One (side, side) MatMul: minutes of CPU inside a single kernel; input ``x`` float32 (1, 1)."""
    nodes = [
        h.make_node("Expand", ["x", "shape"], ["t"]),
        h.make_node("MatMul", ["t", "t"], ["u"]),
        h.make_node("ReduceSum", ["u"], ["y"], keepdims=0),
    ]
    shape = nh.from_array(np.array([side, side], "i8"), "shape")
    return _model(nodes, [_f32("x", [1, 1])], [_f32("y", [])], [shape])


def kernel_bomb_inputs() -> Feeds:
    """Inputs of ``kernel_bomb``."""
    return {"x": np.ones((1, 1), "f4")}


def wide_output_model(items: int = 1 << 28) -> bytes:
    """Answers ``items`` float32 (default 1 GiB) for input ``x`` float32 (1,)."""
    shape = nh.from_array(np.array([items], "i8"), "shape")
    nodes = [h.make_node("Expand", ["x", "shape"], ["y"])]
    return _model(nodes, [_f32("x", [1])], [_f32("y", ["k"])], [shape])


# --- refused -----------------------------------------------------------------


def not_onnx() -> bytes:
    """A text file."""
    return b"this is a shopping list, not a model: eggs, milk, bread\n" * 20


def truncated_model() -> bytes:
    """A real model cut in the middle of its weights."""
    data = five_models()[0].model
    return data[: len(data) * 2 // 3]


def external_data_model(location: str, where: Where = "initializer") -> bytes:
    """y = x + w, shape (4,), whose ``w`` is 16 bytes of the file ``location``."""
    tensor = onnx.TensorProto(name="w", data_type=T.FLOAT, dims=[4], data_location=T.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=text)
    indices = h.make_tensor("i", T.INT64, [4], [0, 1, 2, 3])
    sparse = onnx.SparseTensorProto(values=tensor, indices=indices, dims=[4])
    add = h.make_node("Add", ["x", "w"], ["y"])
    inputs, outputs = [_f32("x", [4])], [_f32("y", [4])]
    match where:
        case "initializer":
            return _model([add], inputs, outputs, [tensor])
        case "attribute":
            return _model([h.make_node("Constant", [], ["w"], value=tensor), add], inputs, outputs)
        case "sparse_attribute":
            return _model([h.make_node("Constant", [], ["w"], sparse_value=sparse), add], inputs, outputs)
        case "sparse_initializer":
            model = onnx.load_from_string(_model([add], inputs, outputs))
            model.graph.sparse_initializer.append(sparse)
            return model.SerializeToString()
        case "subgraph":
            return _model(_branching(h.make_node("Constant", [], ["b"], value=tensor)), inputs, outputs)
        case "function":
            return _with_function([h.make_node("Constant", [], ["c"], value=tensor),
                                   h.make_node("Add", ["a", "c"], ["b"])])


def custom_domain_model(domain: str = "com.example.custom") -> bytes:
    """One operator of a domain that no provider ships."""
    node = h.make_node("Frobnicate", ["x"], ["y"], domain=domain)
    return _model([node], [_f32("x", ["n"])], [_f32("y", ["n"])], domains=(domain,))


def local_function_model() -> bytes:
    """y = x + x through a function that the model itself defines in a domain of its own."""
    return _with_function([h.make_node("Add", ["a", "a"], ["b"])])


def recursive_function_model() -> bytes:
    """A function that calls itself: inlining never ends."""
    return _with_function([h.make_node("Twice", ["a"], ["b"], domain="local")])


def exploding_function_model(levels: int = 30) -> bytes:
    """Functions that call the next level twice: 2**levels nodes after inlining, from a few kilobytes."""
    model = onnx.load_from_string(local_function_model())
    opsets = [h.make_opsetid("", OPSET), h.make_opsetid("local", 1)]
    del model.functions[:]
    for level in range(levels):
        callee = f"F{level + 1}"
        ends = ((["a"], ["m"]), (["m"], ["b"]))
        body = [h.make_node(callee, start, end, domain="local") for start, end in ends]
        model.functions.append(h.make_function("local", f"F{level}", ["a"], ["b"], body, opsets))
    body = [h.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(h.make_function("local", f"F{levels}", ["a"], ["b"], body, opsets))
    model.graph.node[0].op_type = "F0"
    return model.SerializeToString()


def narrow_float_model(dtype: Literal["bfloat16", "float8e4m3fn"]) -> bytes:
    """Casts float32 ``x`` (n,) to a dtype that Cocoon does not carry."""
    code = {"bfloat16": T.BFLOAT16, "float8e4m3fn": T.FLOAT8E4M3FN}[dtype]
    node = h.make_node("Cast", ["x"], ["y"], to=code)
    return _model([node], [_f32("x", ["n"])], [_value("y", code, ["n"])])


def sequence_output_model() -> bytes:
    """Answers a sequence of tensors."""
    node = h.make_node("SequenceConstruct", ["x", "x"], ["y"])
    return _model([node], [_f32("x", ["n"])], [h.make_tensor_sequence_value_info("y", T.FLOAT, None)])


def sequence_input_model() -> bytes:
    """Takes a sequence of tensors."""
    node = h.make_node("SequenceLength", ["s"], ["y"])
    source = h.make_tensor_sequence_value_info("s", T.FLOAT, None)
    return _model([node], [source], [_value("y", T.INT64, [])])


def optional_input_model() -> bytes:
    """Takes an optional tensor."""
    kind = h.make_optional_type_proto(h.make_tensor_type_proto(T.FLOAT, ["n"]))
    node = h.make_node("OptionalHasElement", ["o"], ["y"])
    return _model([node], [h.make_value_info("o", kind)], [_value("y", T.BOOL, [])])


def map_output_model() -> bytes:
    """Answers a sequence of maps, as scikit-learn classifiers do."""
    zipmap = h.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b"])
    inner = onnx.TypeProto()
    inner.sequence_type.elem_type.map_type.key_type = T.STRING
    inner.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = T.FLOAT
    output = h.make_value_info("y", inner)
    return _model([zipmap], [_f32("x", ["n", 2])], [output], domains=("ai.onnx.ml",))


def context_node_model() -> bytes:
    """``com.microsoft.EPContext`` names a file with compiled code."""
    file = {"embed_mode": 0, "ep_cache_context": "../x.bin"}
    node = h.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", **file)
    return _model([node], [_f32("x", ["n"])], [_f32("y", ["n"])], domains=("com.microsoft",))


def failing_model() -> bytes:
    """Loads, accepts float32 ``x`` (n,) and int64 ``i`` (k,), fails if an index is out of bounds."""
    node = h.make_node("Gather", ["x", "i"], ["y"], axis=0)
    return _model([node], [_f32("x", ["n"]), _value("i", T.INT64, ["k"])], [_f32("y", ["k"])])


# --- the five ----------------------------------------------------------------


def _image_float32() -> UserModel:
    rng = np.random.default_rng(1)
    weights = [
        nh.from_array(rng.standard_normal((8, 3, 3, 3), dtype="f4") / 5, "conv"),
        nh.from_array(rng.standard_normal((8, 5), dtype="f4"), "dense"),
    ]
    nodes = [
        h.make_node("Conv", ["image", "conv"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        h.make_node("Relu", ["c"], ["r"]),
        h.make_node("GlobalAveragePool", ["r"], ["g"]),
        h.make_node("Flatten", ["g"], ["f"]),
        h.make_node("MatMul", ["f", "dense"], ["m"]),
        h.make_node("Softmax", ["m"], ["score"], axis=-1),
    ]
    model = _model(nodes, [_f32("image", ["n", 3, "h", "w"])], [_f32("score", ["n", 5])], weights)
    return UserModel("image_float32", model, {"image": rng.standard_normal((2, 3, 17, 23), dtype="f4")})


def _attention_float16() -> UserModel:
    rng = np.random.default_rng(2)
    scale = nh.from_array(np.array(0.25, "f2"), "scale")
    nodes = [
        h.make_node("Transpose", ["key"], ["kt"], perm=[0, 2, 1]),
        h.make_node("MatMul", ["query", "kt"], ["qk"]),
        h.make_node("Mul", ["qk", "scale"], ["s"]),
        h.make_node("Softmax", ["s"], ["p"], axis=-1),
        h.make_node("MatMul", ["p", "key"], ["context"]),
    ]
    inputs = [_value("query", T.FLOAT16, ["b", "q", 16]), _value("key", T.FLOAT16, ["b", "k", 16])]
    model = _model(nodes, inputs, [_value("context", T.FLOAT16, ["b", "q", 16])], [scale])
    lengths = (("query", 3), ("key", 7))
    feeds = {name: rng.standard_normal((2, n, 16), dtype="f4").astype("f2") for name, n in lengths}
    return UserModel("attention_float16", model, feeds)


def _embedding_int64() -> UserModel:
    rng = np.random.default_rng(3)
    table = nh.from_array(rng.standard_normal((50, 12), dtype="f4"), "table")
    nodes = [
        h.make_node("Gather", ["table", "ids"], ["e"], axis=0),
        h.make_node("ReduceMean", ["e", "axis"], ["mean"], keepdims=0),
        h.make_node("ArgMax", ["mean"], ["best"], axis=-1, keepdims=0),
        h.make_node("Add", ["ids", "offset"], ["shifted"]),
    ]
    constants = [table, nh.from_array(np.array([1], "i8"), "axis")]
    inputs = [_value("ids", T.INT64, ["n", "t"]), _value("offset", T.INT64, [])]
    integers = [_value("best", T.INT64, ["n"]), _value("shifted", T.INT64, ["n", "t"])]
    outputs = [_f32("mean", ["n", 12]), *integers]
    feeds = {"ids": rng.integers(0, 50, (4, 9)), "offset": np.array(2**40, "i8")}
    return UserModel("embedding_int64", _model(nodes, inputs, outputs, constants), feeds)


def _mask_bool() -> UserModel:
    rng = np.random.default_rng(4)
    nodes = [
        h.make_node("And", ["left", "right"], ["both"]),
        h.make_node("Xor", ["left", "right"], ["one"]),
        h.make_node("NonZero", ["both"], ["where"]),
    ]
    inputs = [_value(name, T.BOOL, ["n", "m"]) for name in ("left", "right")]
    outputs = [_value(name, T.BOOL, ["n", "m"]) for name in ("both", "one")]
    outputs.append(_value("where", T.INT64, [2, "k"]))
    feeds = {name: rng.integers(0, 2, (5, 6)).astype(bool) for name in ("left", "right")}
    return UserModel("mask_bool", _model(nodes, inputs, outputs), feeds)


def _labels_string() -> UserModel:
    nodes = [
        h.make_node("LabelEncoder", ["word"], ["code"], domain="ai.onnx.ml", default_int64=-1,
                    keys_strings=["cocoon", "ton", "trailing\0"], values_int64s=[1, 2, 3]),
        h.make_node("Unsqueeze", ["word", "axis"], ["column"]),
        h.make_node("Identity", ["word"], ["echo"]),
    ]
    axis = nh.from_array(np.array([1], "i8"), "axis")
    strings = [_value("column", T.STRING, ["n", 1]), _value("echo", T.STRING, ["n"])]
    outputs = [_value("code", T.INT64, ["n"]), *strings]
    model = _model(nodes, [_value("word", T.STRING, ["n"])], outputs, [axis], domains=("ai.onnx.ml",))
    words = np.array(["ton", "", "trailing\0", "\0x\0y", "größe", "日本語", "cocoon"], dtype=object)
    return UserModel("labels_string", model, {"word": words})


# --- parts -------------------------------------------------------------------


def _value(name: str, dtype: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, dtype, shape)


def _f32(name: str, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return _value(name, T.FLOAT, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    domains: Sequence[str] = (),
    **more: Any,
) -> bytes:
    graph = h.make_graph(nodes, "g", inputs, outputs, initializers)
    versions = {"ai.onnx.ml": 4}
    opsets = [h.make_opsetid("", OPSET), *(h.make_opsetid(d, versions.get(d, 1)) for d in domains)]
    return h.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, **more).SerializeToString()


def _with_function(body: Sequence[onnx.NodeProto]) -> bytes:
    opsets = [h.make_opsetid("", OPSET), h.make_opsetid("local", 1)]
    function = h.make_function("local", "Twice", ["a"], ["b"], body, opsets)
    node = h.make_node("Twice", ["x"], ["y"], domain="local")
    return _model([node], [_f32("x", [4])], [_f32("y", [4])], domains=("local",), functions=[function])


def _branching(constant: onnx.NodeProto) -> list[onnx.NodeProto]:
    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        return h.make_graph([node], name, [], [_f32("b", [4])])

    plain = h.make_node("Constant", [], ["b"], value=h.make_tensor("p", T.FLOAT, [4], [0.0] * 4))
    return [
        h.make_node("Constant", [], ["cond"], value=h.make_tensor("c", T.BOOL, [], [True])),
        h.make_node("If", ["cond"], ["w"], then_branch=branch("t", constant), else_branch=branch("e", plain)),
        h.make_node("Add", ["x", "w"], ["y"]),
    ]


#: What ``_counting`` adds, and what it begins with.
_COUNTED = nh.from_array(np.array(1, "f4"), "one"), nh.from_array(np.array(0, "f4"), "zero")


def _counting() -> onnx.GraphProto:
    """The body of a loop that adds one."""
    return h.make_graph(
        [h.make_node("Identity", ["c"], ["co"]), h.make_node("Add", ["a", "one"], ["ao"])],
        "body",
        [_value("i", T.INT64, []), _value("c", T.BOOL, []), _f32("a", [])],
        [_value("co", T.BOOL, []), _f32("ao", [])],
    )


def _endless(start: str) -> bytes:
    nodes = [
        h.make_node("Loop", ["rounds", "true", start], ["end"], body=_counting()),
        h.make_node("Add", ["end", "x"], ["y"]),
    ]
    constants = [nh.from_array(np.array(2**62, "i8"), "rounds"), nh.from_array(np.array(True), "true"), *_COUNTED]
    return _model(nodes, [_f32("x", [])], [_f32("y", [])], constants)
