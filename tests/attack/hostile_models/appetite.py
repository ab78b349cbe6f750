"""Models that want too much: memory, time, room for their answer. Each is small and lawful ONNX.

Unless it says otherwise, a model takes one float32 ``x`` and is run on 1.
"""

from __future__ import annotations

import numpy as np

from tests import models
from tests.attack.hostile_models.row import row, written

MEMORY = "memory_exceeded"
#: What is slow on one machine runs out of memory first on another.
EITHER = "memory_exceeded run_timeout"
TIME = "run_timeout"
_ROUNDS = "rounds = Constant <value = int64 {4611686018427387904}> () yes = Constant <value = bool {1}> ()"


def _wide(shape: str, then: str) -> str:
    return f"s = Constant <value = int64[2] {{{shape}}}> () w = Expand (x, s) {then}"


def _loop(carried: str, body: str, after: str) -> str:
    """A Loop of 2**62 rounds over one value; its body makes ``ao`` of ``a``."""
    graph = f"body = b (int64 i, bool c, {carried} a) => (bool co, {carried} ao) {{ co = Identity (c) {body} }}"
    return f"{_ROUNDS} end = Loop <{graph}> (rounds, yes, x) {after}"


MEMORY_ROWS = [
    row("expand", models.memory_bomb, MEMORY),
    row("folded constant", models.memory_bomb_by_folding, MEMORY),
    row("sparse initializers made dense", models.memory_bomb_at_load, MEMORY),
    row("size from the input", models.memory_bomb_by_input, MEMORY, models.bomb_inputs),
    row("more memory than there are addresses", models.memory_bomb_by_input, "memory_exceeded run_failed",
        lambda: models.bomb_inputs(2**62)),
    row("tile", written("z = Constant <value = int64[1] {0}> () v = Unsqueeze (x, z)"
                        " r = Constant <value = int64[1] {2684354560}> () w = Tile (v, r)"
                        " y = ReduceSum <keepdims = 0> (w)"), "memory_exceeded run_failed"),
    row("pad", written("z = Constant <value = int64[1] {0}> () v = Unsqueeze (x, z)"
                       " p = Constant <value = int64[2] {0, 2684354560}> () w = Pad (v, p)"
                       " y = ReduceSum <keepdims = 0> (w)"), MEMORY),
    row("range", written("f = Constant <value = float {0.0}> () t = Constant <value = float {3e9}> ()"
                         " w = Range (f, t, x) y = ReduceSum <keepdims = 0> (w)"), MEMORY),
    row("one hot", written("i = Cast <to = 7> (x) z = Constant <value = int64[1] {0}> () v = Unsqueeze (i, z)"
                           " d = Constant <value = int64 {2684354560}> () o = Constant <value = float[2] {0.0, 1.0}> ()"
                           " w = OneHot (v, d, o) y = ReduceSum <keepdims = 0> (w)"), MEMORY),
    row("random numbers", written("w = RandomNormal <shape = [65536, 65536]> () s = ReduceSum <keepdims = 0> (w)"
                                  " y = Add (s, x)"), MEMORY),
    row("random numbers like a wide one", written(_wide("65536, 65536", "r = RandomUniformLike (w)"
                                                  " y = ReduceSum <keepdims = 0> (r)")), MEMORY),
    row("outer product", written(_wide("65536, 1", "t = Transpose (w) m = Mul (w, t)"
                                       " y = ReduceSum <keepdims = 0> (m)")), MEMORY),
    row("einsum of four axes", written(_wide("256, 256", 'e = Einsum <equation = "ab,cd->abcd"> (w, w)'
                                             " y = ReduceSum <keepdims = 0> (e)")), MEMORY),
    row("resize", written("s = Constant <value = int64[4] {1, 1, 1, 1}> () w = Expand (x, s)"
                          " n = Constant <value = float[4] {1.0, 1.0, 60000.0, 60000.0}> ()"
                          ' r = Resize <mode = "nearest"> (w, , n) y = ReduceSum <keepdims = 0> (r)'), MEMORY),
    row("doubling in a loop", written(_loop("float[n]", "ao = Concat <axis = 0> (a, a)",
                                            "y = ReduceSum <keepdims = 0> (end)"), "g (float[n] x) => (float y)"),
        MEMORY, lambda: {"x": np.ones(1, "f4")}),
    row("an answer a round", written(
        f"{_ROUNDS} s = Constant <value = int64[1] {{262144}}> ()"
        " w = Loop <body = b (int64 i, bool c) => (bool co, float[262144] each)"
        " { co = Identity (c) each = Expand (x, s) }> (rounds, yes) y = ReduceSum <keepdims = 0> (w)"), EITHER),
    row("a sequence that grows", written(
        f"{_ROUNDS} e = SequenceEmpty <dtype = 1> () s = Constant <value = int64[1] {{262144}}> ()"
        " q = Loop <body = b (int64 i, bool c, seq(float[n]) a) => (bool co, seq(float[n]) ao)"
        " { co = Identity (c) w = Expand (x, s) ao = SequenceInsert (a, w) }> (rounds, yes, e)"
        " l = SequenceLength (q) y = Cast <to = 1> (l)"), EITHER),
    row("a million million texts", written(
        "s = Constant <value = int64[1] {1000000000}> () w = Expand (t, s) n = Size (w) y = Cast <to = 1> (n)",
        "g (string t) => (float y)"), EITHER, lambda: {"t": np.array("boom", object)}),
    row("one text that doubles", written(
        _loop("string", "ao = StringConcat (a, a)", "n = Size (end) y = Cast <to = 1> (n)"),
        "g (string x) => (float y)"), EITHER + " worker_lost run_failed", lambda: {"x": np.array("boom" * 64, object)}),
    row("a convolution turned round", written(
        "s = Constant <value = int64[4] {1, 1, 64, 64}> () w = Expand (x, s)"
        " k = Constant <value = int64[4] {1, 64, 3, 3}> () f = Expand (x, k)"
        " c = ConvTranspose <strides = [4000, 4000]> (w, f) y = ReduceSum <keepdims = 0> (c)"), MEMORY),
    row("gather with a wide index", written(
        _wide("65536, 65536", "i = Cast <to = 7> (w) v = Constant <value = float[2] {1.0, 2.0}> ()"
              " z = Gather (v, i) y = ReduceSum <keepdims = 0> (z)")), MEMORY),
]  # fmt: skip

TIME_ROWS = [
    row("endless loop", models.endless_model, TIME),
    row("endless loop over constants", models.endless_at_load_model, TIME),
    row("loop without a count", written(
        "yes = Constant <value = bool {1}> () end = Loop <body = b (int64 i, bool c, float a) => (bool co, float ao)"
        " { co = Identity (c) ao = Add (a, a) }> (, yes, x) y = Identity (end)"), TIME),
    row("loop in a loop", written(
        f"{_ROUNDS} y = Loop <body = b (int64 i, bool c, float a) => (bool co, float ao) {{ co = Identity (c)"
        " ao = Loop <body = n (int64 j, bool d, float e) => (bool do, float eo)"
        " { do = Identity (d) eo = Add (e, e) }> (rounds, yes, a) }> (rounds, yes, x)"), TIME),
    row("scan over a wide tensor", written(
        "s = Constant <value = int64[1] {30000000}> () w = Expand (x, s)"
        " end = Scan <num_scan_inputs = 1, body = b (float a, float v) => (float ao) { ao = Add (a, v) }> (x, w)"
        " y = Identity (end)"), TIME),
    row("one matrix product", models.kernel_bomb, EITHER, models.kernel_bomb_inputs),
    row("one convolution", written(
        "s = Constant <value = int64[4] {1, 64, 512, 512}> () w = Expand (x, s)"
        " k = Constant <value = int64[4] {64, 64, 63, 63}> () f = Expand (x, k)"
        " c = Conv (w, f) y = ReduceSum <keepdims = 0> (c)"), EITHER),
    row("sort of a wide tensor", written(
        "s = Constant <value = int64[1] {30000000}> () r = RandomUniform <shape = [30000000]> ()"
        " v, i = TopK (r, s) m = ReduceMax <keepdims = 0> (v) y = Add (m, x)"), EITHER),
    row("determinant of a large matrix", written(_wide("6000, 6000", "d = Det (w) y = Identity (d)")), EITHER),
]  # fmt: skip

ANSWER_ROWS = [
    row("a gibibyte for four bytes", models.wide_output_model, MEMORY, lambda: {"x": np.ones(1, "f4")}),
    row("a little more than a payload", lambda: models.wide_output_model(17_000_000), "limit_exceeded",
        lambda: {"x": np.ones(1, "f4")}),
    row("many answers that are small", written(
        "s = Constant <value = int64[1] {262144}> () "
        + " ".join(f"y{n} = Expand (x, s)" for n in range(80)),
        f"g (float x) => ({', '.join(f'float[n] y{n}' for n in range(80))})"), "limit_exceeded"),
    row("a long text", written(
        "n = Constant <value = int64 {26}> () yes = Constant <value = bool {1}> ()"
        " y = Loop <body = b (int64 i, bool c, string a) => (bool co, string ao)"
        " { co = Identity (c) ao = StringConcat (a, a) }> (n, yes, x)", "g (string x) => (string y)"),
        "limit_exceeded memory_exceeded", lambda: {"x": np.array("boom", object)}),
    row("more texts than are carried", written(
        "s = Constant <value = int64[1] {2000000}> () y = Expand (x, s)", "g (string x) => (string[n] y)"),
        "limit_exceeded", lambda: {"x": np.array("", object)}),
]  # fmt: skip

ROWS = [*MEMORY_ROWS, *TIME_ROWS, *ANSWER_ROWS]
