"""Models that people really run, and two that we build for what those lack, with inputs as they meet them.

    magika        file types, int32 bytes, scores of 214 kinds; bound by arithmetic
    minilm_int8   sentence embeddings, weights in int8, token ids
    silero_vad    speech in 36 ms of sound; carries its state from run to run
    int8_gates    activations in int8, whose scale follows from the whole batch (built)
    transformer   one block of attention over 32 tokens of 64 numbers, float32 (built)

Whatever a generator draws follows from its seed. Nothing here imports Cocoon or ONNX Runtime.

Purity: shell (reads model files).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
Dice = np.random.Generator

_BUILD = Path(__file__).resolve().parents[1] / "build"
#: 512 samples of 16 kHz and the 64 before them: what this release of the model hears at a time.
_SAMPLES = 576
_RATE_HZ = 16_000
_HIDDEN = 64
_TOKENS = 32


class Packaged(NamedTuple):
    """One model.

    Attributes:
        draw: Inputs of so many rows.
        carried: Inputs of the next run that are outputs of the one before, by output name; ``draw`` gives the first.
        axes: Batch axis of inputs and outputs where it is not the first; None for what has no rows.
    """

    name: str
    read: Callable[[], bytes]
    draw: Callable[[Dice, int], Feeds]
    carried: Mapping[str, str] = {}
    axes: Mapping[str, int | None] = {}

    def inputs(self, runs: int, rows: int = 1, seed: int = 1) -> list[Feeds]:
        """Inputs of ``runs`` runs, one after the other."""
        dice = np.random.default_rng(seed)
        return [self.draw(dice, rows) for _ in range(runs)]


def packaged() -> list[Packaged]:
    """All of them; a file that `make` has not fetched yet is missed when it is read."""
    state = {"state": 1, "stateN": 1, "sr": None}
    return [
        Packaged("magika", (_BUILD / "magika" / "model.onnx").read_bytes, _files),
        Packaged("minilm_int8", (_BUILD / "models" / "minilm_int8.onnx").read_bytes, _sentences),
        Packaged("silero_vad", (_BUILD / "models" / "silero_vad.onnx").read_bytes, _sound, {"stateN": "state"}, state),
        Packaged("int8_gates", int8_gates, lambda dice, rows: {"x": dice.standard_normal((rows, 256), dtype="f4")}),
        Packaged("transformer", transformer, _hidden),
    ]


def relu() -> bytes:
    """y = relu(x); float32, shape (n, items): it costs nothing to compute, so that all else shows."""
    ends = [h.make_tensor_value_info(name, T.FLOAT, ["n", "items"]) for name in ("x", "y")]
    return _model([h.make_node("Relu", ["x"], ["y"])], ends[:1], ends[1:])


def int8_gates() -> bytes:
    """Two layers whose inputs are quantised as they come: the scale is that of the largest value of the batch."""
    dice = np.random.default_rng(11)
    nodes, weights, last = [], [], "x"
    for layer, (width, out) in enumerate(((256, 512), (512, 64))):
        weights += [
            nh.from_array(dice.integers(-127, 128, (width, out), dtype=np.int8), f"w{layer}"),
            nh.from_array(np.array(1 / (127 * np.sqrt(width)), "f4"), f"s{layer}"),
        ]
        quantised = [f"q{layer}", f"scale{layer}", f"zero{layer}"]
        nodes += [
            h.make_node("DynamicQuantizeLinear", [last], quantised),
            h.make_node("MatMulInteger", [quantised[0], f"w{layer}", quantised[2]], [f"i{layer}"]),
            h.make_node("Cast", [f"i{layer}"], [f"c{layer}"], to=T.FLOAT),
            h.make_node("Mul", [quantised[1], f"s{layer}"], [f"m{layer}"]),
            h.make_node("Mul", [f"c{layer}", f"m{layer}"], [f"p{layer}"]),
            h.make_node("Tanh", [f"p{layer}"], [last := f"y{layer}"]),
        ]
    nodes.append(h.make_node("Identity", [last], ["y"]))
    ends = (h.make_tensor_value_info(name, T.FLOAT, ["n", width]) for name, width in (("x", 256), ("y", 64)))
    return _model(nodes, [next(ends)], [next(ends)], weights)


def transformer() -> bytes:
    """Attention of four heads and a feed-forward layer, each with its normalisation; float32."""
    dice, nodes, weights = np.random.default_rng(12), [], []

    def weight(name: str, *shape: int) -> str:
        scale = np.sqrt(shape[0]) if len(shape) == 2 else 1
        weights.append(nh.from_array((dice.standard_normal(shape) / scale).astype("f4"), name))
        return name

    def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(h.make_node(kind, inputs, [output], **attributes))
        return output

    weights.append(nh.from_array(np.array([0, 0, 4, _HIDDEN // 4], "i8"), "heads"))
    weights.append(nh.from_array(np.array([0, 0, _HIDDEN], "i8"), "flat"))
    weights.append(nh.from_array(np.array(0.25, "f4"), "quarter"))
    turns = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    for name, turn in turns.items():
        node("MatMul", ["x", weight(f"w{name}", _HIDDEN, _HIDDEN)], f"{name}0")
        node("Reshape", [f"{name}0", "heads"], f"{name}1")
        node("Transpose", [f"{name}1"], name, perm=turn)
    node("Mul", [node("MatMul", ["q", "k"], "qk"), "quarter"], "scores")
    node("MatMul", [node("Softmax", ["scores"], "p", axis=-1), "v"], "seen")
    node("Reshape", [node("Transpose", ["seen"], "back", perm=[0, 2, 1, 3]), "flat"], "together")
    node("Add", ["x", node("MatMul", ["together", weight("wo", _HIDDEN, _HIDDEN)], "o")], "a")
    node("LayerNormalization", ["a", weight("g0", _HIDDEN)], "n0", axis=-1)
    node("MatMul", ["n0", weight("up", _HIDDEN, 4 * _HIDDEN)], "u")
    node("Mul", ["u", node("Sigmoid", ["u"], "gate")], "swish")
    node("MatMul", ["swish", weight("down", 4 * _HIDDEN, _HIDDEN)], "d")
    node("LayerNormalization", [node("Add", ["n0", "d"], "b"), weight("g1", _HIDDEN)], "y", axis=-1)
    ends = [h.make_tensor_value_info(name, T.FLOAT, ["n", "t", _HIDDEN]) for name in ("x", "y")]
    return _model(nodes, ends[:1], ends[1:], weights)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> bytes:
    graph = h.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [h.make_opsetid("", 21)]
    return bytes(h.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def _files(dice: Dice, rows: int) -> Feeds:
    """Beginnings and ends of files: text of few letters, bytes of any kind, and 256 for what is not there."""
    tokens = np.full((rows, 2_048), 256, np.int32)
    for row in tokens:
        length = int(dice.integers(8, 1_025))
        letters = 256 if dice.random() < 0.5 else 60
        for part in (row[:length], row[-length:]):
            part[:] = dice.integers(0, 1 + letters, length).clip(0, 255)
    return {"bytes": tokens}


def _sentences(dice: Dice, rows: int) -> Feeds:
    """Token ids between 101 and 102, of another length each time, the rows of one run of the same."""
    length = int(dice.integers(4, 65))
    ids = dice.integers(1_000, 30_000, (rows, length))
    ids[:, 0], ids[:, -1] = 101, 102
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _sound(dice: Dice, rows: int) -> Feeds:
    """A voice's harmonics in noise."""
    times_s = np.arange(_SAMPLES) / _RATE_HZ
    pitches_hz = dice.uniform(80, 300, (rows, 1))
    waves = sum(np.sin(2 * np.pi * pitches_hz * k * times_s + dice.uniform(0, 6, (rows, 1))) / k for k in range(1, 9))
    sound = 0.2 * np.asarray(waves) * dice.random((rows, 1)) + 0.01 * dice.standard_normal((rows, _SAMPLES))
    state = np.zeros((2, rows, 128), "f4")
    return {"input": sound.astype("f4"), "state": state, "sr": np.array(_RATE_HZ, "i8")}


def _hidden(dice: Dice, rows: int) -> Feeds:
    return {"x": dice.standard_normal((rows, _TOKENS, _HIDDEN), dtype="f4")}


def dense(items: int, layers: int) -> bytes:
    """``y`` of so many layers of ``items`` x ``items`` float32 weights with a ReLU behind each; (n, items) each way."""
    dice = np.random.default_rng(1)
    nodes, weights, before = [], [], "x"
    for layer in range(layers):
        drawn = (dice.standard_normal((items, items)) / np.sqrt(items)).astype("f4")
        weights.append(nh.from_array(drawn, f"w{layer}"))
        after = "y" if layer == layers - 1 else f"h{layer}"
        nodes += [
            h.make_node("MatMul", [before, f"w{layer}"], [f"s{layer}"]), h.make_node("Relu", [f"s{layer}"], [after])
        ]
        before = after
    x, y = (h.make_tensor_value_info(name, T.FLOAT, ["n", items]) for name in ("x", "y"))
    return _model(nodes, [x], [y], weights)
