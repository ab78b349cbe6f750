"""The ONNX graph of a Llama-family decoder, one builder for published and for random weights.

Inputs and outputs have the names that onnxruntime-genai uses, so that decoders
made elsewhere fit the same loop. The cache is *shared*: the present of a layer
has the length of its past, and a caller gives both the same memory, so a
step writes one position and copies nothing.

Attention is GroupQueryAttention, which alone of the operators of ONNX Runtime
can do so on rows of unequal length; figures are in docs/benchmarks.md. The head sees
the last position only: nobody needs the others, and a prompt of 512 would have
96 MiB of them.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-1 to TOK-3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cocoon.convert.weights import BLOCK, Array, Blocks, Matrix, Read, Sizes, check, quantise
from cocoon.core.errors import ModelRefused

_OPSETS = (("", 21), ("com.microsoft", 1))
_IR_VERSION = 10


def build(sizes: Sizes, read: Read, exact: bool = False) -> bytes:
    """The ONNX file of a decoder.

    Args:
        read: Gives weights by their GGUF names. Without ``output.weight`` the head is the embedding.
        exact: Keep float32 matrices as they are; else they become 8-bit blocks.

    Raises:
        ModelRefused: sizes that fit no decoder, a weight that is missing or has another shape.
    """
    check(sizes)
    graph = _Graph(sizes, read, exact)
    state = graph.embedding()
    graph.shared()
    for layer in range(sizes.layers):
        state = graph.layer(layer, state)
    graph.head(state)
    made = helper.make_graph(graph.nodes, "decoder", *_ends(sizes), graph.tensors)
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString())


def _ends(sizes: Sizes) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs by the convention (TOK-2)."""
    def cache(name: str, layer: int, part: str) -> Any:
        axes: list[str | int | None] = ["batch", sizes.kv_heads, f"{name}_length", sizes.head_width]
        return helper.make_tensor_value_info(f"{name}.{layer}.{part}", TensorProto.FLOAT, axes)

    places = [(layer, part) for layer in range(sizes.layers) for part in ("key", "value")]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, sizes.vocabulary])
    outputs = [logits, *(cache("present", *at) for at in places)]
    return [*inputs, *(cache("past_key_values", *at) for at in places)], outputs


@dataclass(slots=True)
class _Graph:
    """Nodes and tensors so far; each method adds a part and names its result."""

    sizes: Sizes
    read: Read
    exact: bool
    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)

    def embedding(self) -> str:
        """Rows of the embedding; blocks are made numbers after they were chosen, so the table is stored once."""
        table = self._matrix("token_embd.weight", self.sizes.vocabulary, self.sizes.width)
        if not isinstance(table, Blocks):
            return self._node("Gather", [self._hold("embedding", table), "input_ids"], "embedded")
        codes = self._node("Gather", [self._hold("embedding", table.codes), "input_ids"], "chosen_codes")
        scales = self._node("Gather", [self._hold("embedding_scales", table.scales), "input_ids"], "chosen_scales")
        signed = self._node("Cast", [codes], "chosen_numbers", to=TensorProto.FLOAT)
        steps = self._node("Sub", [signed, self._hold("zero_code", np.float32(128))], "chosen_steps")
        apart = self._node("Unsqueeze", [scales, self._hold("last_axis", np.array([-1]))], "chosen_scale")
        blocks = self._node("Mul", [steps, apart], "chosen_blocks")
        form = self._hold("embedded_form", np.array([0, 0, self.sizes.width]))
        return self._node("Reshape", [blocks, form], "embedded")

    def shared(self) -> None:
        """What every layer's attention reads: lengths from the mask, and the turns of the positions."""
        self._hold("first_axis", np.array([1]))
        self._hold("one", np.array(1))
        kept = self._node("ReduceSum", ["attention_mask", "first_axis"], "lengths", keepdims=0)
        last = self._node("Sub", [kept, "one"], "last_position")
        self._node("Cast", [last], "seqlens_k", to=TensorProto.INT32)
        form = self._node("Shape", ["attention_mask"], "mask_form")
        longest = self._node("Gather", [form, "one"], "longest", axis=0)
        self._node("Cast", [longest], "total_length", to=TensorProto.INT32)
        powers = np.arange(0, self.sizes.head_width, 2) / self.sizes.head_width
        turns = np.outer(np.arange(self.sizes.context), self.sizes.rope_base ** -powers)
        self._hold("cosines", np.cos(turns).astype(np.float32))
        self._hold("sines", np.sin(turns).astype(np.float32))

    def layer(self, number: int, state: str) -> str:
        """Attention and feed-forward part, each added to what came in."""
        sizes, name = self.sizes, f"blk.{number}."
        heads, kv = sizes.heads * sizes.head_width, sizes.kv_heads * sizes.head_width
        calm = self._norm(name + "attn_norm", state)
        query = self._product(name + "attn_q", calm, sizes.width, heads)
        key = self._product(name + "attn_k", calm, sizes.width, kv)
        value = self._product(name + "attn_v", calm, sizes.width, kv)
        seen = self._product(name + "attn_output", self._attention(number, query, key, value), heads, sizes.width)
        state = self._node("Add", [state, seen], name + "attended")
        calm = self._norm(name + "ffn_norm", state)
        gate = self._product(name + "ffn_gate", calm, sizes.width, sizes.inner)
        up = self._product(name + "ffn_up", calm, sizes.width, sizes.inner)
        opened = self._node("Mul", [gate, self._node("Sigmoid", [gate], name + "sigmoid")], name + "opened")
        both = self._node("Mul", [opened, up], name + "inner")
        down = self._product(name + "ffn_down", both, sizes.inner, sizes.width)
        return self._node("Add", [state, down], name + "state")

    def head(self, state: str) -> None:
        """Logits of the last position."""
        last = self._node("Gather", [state, self._hold("last", np.array([-1]))], "last_state", axis=1)
        calm = self._norm("output_norm", last)
        own = self.read("output.weight") is not None
        table = "output.weight" if own else "token_embd.weight"
        names = ("head", "head_scales") if own else ("embedding", "embedding_scales")
        matrix = self._matrix(table, self.sizes.vocabulary, self.sizes.width)
        self._multiply(calm, matrix, names, "logits", hold=own)

    def _attention(self, number: int, query: str, key: str, value: str) -> str:
        sizes, made = self.sizes, f"blk.{number}.seen"
        pasts = [f"past_key_values.{number}.{part}" for part in ("key", "value")]
        presents = [f"present.{number}.{part}" for part in ("key", "value")]
        self.nodes.append(helper.make_node(
            "GroupQueryAttention",
            [query, key, value, *pasts, "seqlens_k", "total_length", "cosines", "sines"], [made, *presents],
            domain="com.microsoft", num_heads=sizes.heads, kv_num_heads=sizes.kv_heads,
            do_rotary=1, rotary_interleaved=int(sizes.interleaved), name=made,
        ))
        return made

    def _norm(self, name: str, state: str) -> str:
        vector = self.read(name + ".weight")
        if vector is None or isinstance(vector, Blocks) or vector.shape != (self.sizes.width,):
            raise ModelRefused(f"{name}.weight is missing, or no vector of {self.sizes.width} numbers")
        weight = self._hold(name + ".weight", vector)
        kind, epsilon = "SimplifiedLayerNormalization", self.sizes.epsilon
        return self._node(kind, [state, weight], name, epsilon=epsilon, axis=-1)

    def _product(self, name: str, state: str, inward: int, outward: int) -> str:
        matrix = self._matrix(name + ".weight", outward, inward)
        self._multiply(state, matrix, (name + ".weight", name + ".scales"), name, hold=True)
        return name

    def _multiply(self, state: str, matrix: Matrix, names: tuple[str, str], made: str, hold: bool) -> None:
        """``state`` times the transposed matrix; ``hold`` unless a tensor of these names is there already."""
        if not isinstance(matrix, Blocks):
            stored = self._hold(names[0], matrix) if hold else names[0]
            turned = self._node("Transpose", [stored], made + ".turned", perm=[1, 0])
            self._node("MatMul", [state, turned], made)
            return
        if hold:
            self._hold(names[0], matrix.codes)
            self._hold(names[1], matrix.scales)
        outward, blocks, _ = matrix.codes.shape
        self._node(
            "MatMulNBits", [state, *names], made, domain="com.microsoft", K=blocks * BLOCK, N=outward, bits=8,
            block_size=BLOCK, accuracy_level=4,
        )

    def _matrix(self, name: str, outward: int, inward: int) -> Matrix:
        """A weight as it will be stored."""
        matrix = self.read(name)
        if matrix is None:
            raise ModelRefused(f"{name} is missing")
        found = (len(matrix.codes), matrix.codes[0].size) if isinstance(matrix, Blocks) else matrix.shape
        if found != (outward, inward):
            raise ModelRefused(f"{name} has shape {found}, and should have {(outward, inward)}")
        return matrix if self.exact or isinstance(matrix, Blocks) else quantise(matrix)

    def _hold(self, name: str, array: Array | np.float32) -> str:
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _node(self, kind: str, inputs: list[str], made: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [made], name=made, **attributes))
        return made
