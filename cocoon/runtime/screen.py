"""Refuse models that reach outside themselves, before ONNX Runtime sees them.

ONNX Runtime reads other files on a model's word (hard links, sparse tensors even
from bytes; a magic location reads its own memory), guesses a second file format
from four bytes, and inlines functions without a bound. So the protobuf is walked
whole: subgraphs, attributes, functions, sparse tensors, training graphs. ``onnx``
is pinned at least as new as the schema inside ONNX Runtime, so that nothing it
understands is hidden from this walk.

``Loop``, ``Scan`` and ``If`` are allowed: every run is confined to a process and
killed at its deadline, so an endless model costs its owner, not the provider.

Purity: pure, but imports onnx, so only a worker process may import it.
Spec: docs/spec/runtime.md, rules RUN-7 and RUN-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError

from cocoon.core.errors import LimitExceeded, ModelRefused
from cocoon.core.limits import FUNCTION_DEPTH, MODEL_BYTES, MODEL_NODES, TENSOR_NAME_CHARS, TENSORS

#: Domains whose operators ship inside ONNX Runtime; a model's own functions add theirs.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
#: Operators of those domains that name files or carry compiled code.
REFUSED_OPERATORS = frozenset({("com.microsoft", "EPContext"), ("com.microsoft", "Snpe")})

_ORT_FORMAT_MAGIC = b"ORTM"  # at offset 4 of a flatbuffer, ONNX Runtime's own format
_FunctionKey = tuple[str, str]


def screen(data: bytes) -> frozenset[str]:
    """Walk the model in ``data``; pass if it may be loaded.

    Returns:
        Names of inputs and outputs whose rank the model leaves open.

    Raises:
        ModelRefused: no ONNX model; external data; an operator outside ``DOMAINS``
            that is no function of the model; a refused operator; recursion; names
            of inputs or outputs with control characters.
        LimitExceeded: more bytes, inputs, outputs or inlined nodes than a limit.
    """
    model = _parse(data)
    functions = {(f.domain, f.name): f for f in model.functions}
    walk = _Walk(functions)
    for graph in _top_graphs(model):
        walk.graph(graph)
    for function in model.functions:
        walk.nodes(function.node)
        walk.attributes(function.attribute_proto)
    _check_expansion(model, functions)
    return _check_ends(model.graph)


def _parse(data: bytes) -> onnx.ModelProto:
    if len(data) > MODEL_BYTES:
        raise LimitExceeded(f"the model has {len(data)} bytes, above {MODEL_BYTES}")
    if data[4:8] == _ORT_FORMAT_MAGIC:
        raise ModelRefused("this is ONNX Runtime's own format; give the ONNX file it was made from")
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise ModelRefused(f"these {len(data)} bytes are no ONNX model, or a truncated one") from None
    if not model.HasField("graph") or not model.graph.output or not model.opset_import:
        raise ModelRefused(f"these {len(data)} bytes hold no ONNX graph with an output and an operator set")
    return model


def _top_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for training in model.training_info:
        yield training.initialization
        yield training.algorithm


@dataclass(slots=True)
class _Walk:
    """Visits everything; recursion is bounded by protobuf's own nesting limit of 100."""

    functions: dict[_FunctionKey, onnx.FunctionProto]

    def graph(self, graph: onnx.GraphProto) -> None:
        self.nodes(graph.node)
        self.tensors(graph.initializer)
        self.sparse(graph.sparse_initializer)

    def nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            if (node.domain, node.op_type) not in self.functions:
                _check_operator(node)
            self.attributes(node.attribute)

    def attributes(self, attributes: Iterable[onnx.AttributeProto]) -> None:
        # Whatever ``type`` claims, every field that is there is walked.
        for attribute in attributes:
            if attribute.HasField("t"):
                self.tensors((attribute.t,))
            if attribute.HasField("sparse_tensor"):
                self.sparse((attribute.sparse_tensor,))
            self.tensors(attribute.tensors)
            self.sparse(attribute.sparse_tensors)
            for graph in _subgraphs(attribute):
                self.graph(graph)

    def sparse(self, items: Iterable[onnx.SparseTensorProto]) -> None:
        for item in items:
            self.tensors((item.values, item.indices))

    def tensors(self, items: Iterable[onnx.TensorProto]) -> None:
        for tensor in items:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                name = tensor.name[:TENSOR_NAME_CHARS]
                raise ModelRefused(f"tensor {name!r} lies in another file; save the model with its weights")


def _check_operator(node: onnx.NodeProto) -> None:
    domain, op_type = node.domain[:TENSOR_NAME_CHARS], node.op_type[:TENSOR_NAME_CHARS]
    if node.domain not in DOMAINS:
        raise ModelRefused(f"operator {domain}:{op_type} is none of ONNX Runtime's own")
    if (node.domain, node.op_type) in REFUSED_OPERATORS:
        raise ModelRefused(f"operator {domain}:{op_type} carries compiled code or names a file")


def _subgraphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _check_ends(graph: onnx.GraphProto) -> frozenset[str]:
    """Bound inputs and outputs; return the names of those without a rank."""
    ends = [*graph.input, *graph.output]
    if len(graph.input) - len(graph.initializer) > TENSORS or len(graph.output) > TENSORS:
        raise LimitExceeded(f"the model has more than {TENSORS} inputs or outputs")
    for end in ends:
        if len(end.name) > TENSOR_NAME_CHARS:
            raise LimitExceeded(f"an input or output has a name above {TENSOR_NAME_CHARS} characters")
        if not end.name.isprintable():  # error texts show names, and terminals obey control characters
            raise ModelRefused(f"the name {end.name!r} of an input or output holds control characters")
    return frozenset(e.name for e in ends if not e.type.tensor_type.HasField("shape"))


# --- functions ---------------------------------------------------------------


def _check_expansion(model: onnx.ModelProto, functions: dict[_FunctionKey, onnx.FunctionProto]) -> None:
    """Bound what inlining makes of the model: each level may call the next one twice."""
    cost: dict[_FunctionKey, tuple[int, int]] = {}
    for key in functions:
        _measure(key, functions, cost)
    total = sum(_expanded(graph.node, cost)[0] for graph in _top_graphs(model))
    if total > MODEL_NODES:
        raise LimitExceeded(f"the model has {total} nodes with its functions inlined, above {MODEL_NODES}")


def _measure(
    start: _FunctionKey,
    functions: dict[_FunctionKey, onnx.FunctionProto],
    cost: dict[_FunctionKey, tuple[int, int]],
) -> None:
    """Fill ``cost`` with (nodes, depth) of ``start`` and of all it calls; depth first, own stack."""
    opened: set[_FunctionKey] = set()
    todo = [start]
    while todo:
        key = todo[-1]
        if key in cost:
            todo.pop()
            continue
        waiting = [k for k in _calls(functions[key].node) if k in functions and k not in cost]
        if not waiting:
            nodes, depth = _expanded(functions[key].node, cost)
            cost[key] = (nodes, depth + 1)
            if depth >= FUNCTION_DEPTH:
                raise LimitExceeded(f"functions of the model nest deeper than {FUNCTION_DEPTH}")
        elif key in opened:
            raise ModelRefused(f"function {key[0]}:{key[1][:TENSOR_NAME_CHARS]} calls itself")
        opened.add(key)
        todo.extend(waiting)


def _expanded(nodes: Sequence[onnx.NodeProto], cost: dict[_FunctionKey, tuple[int, int]]) -> tuple[int, int]:
    """How many nodes ``nodes`` become, and the deepest call among them."""
    total = deepest = 0
    for key in _calls(nodes):
        count, depth = cost.get(key, (1, 0))
        total += count
        deepest = max(deepest, depth)
    return total, deepest


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[_FunctionKey]:
    """(domain, operator) of every node, those inside subgraphs included.

    Overloads of one function count as one: a call between them is refused as
    recursion, which no exporter writes.
    """
    for node in nodes:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            for graph in _subgraphs(attribute):
                yield from _calls(graph.node)
