"""The one door to ONNX Runtime: sessions, and the truth about the device.

Execution profile (RUN-12): all graph optimisations, sequential execution, one
inter-operator thread, deterministic kernels, no spinning, ONNX format only. On
CPU the bits of a result depend on nothing else that we could vary (session,
wheel; threads only for a few rows, RUN-32: measured), so an output can be
compared with a run elsewhere.

``onnxruntime.get_device()`` and ``get_available_providers()`` speak of a GPU on
machines without one; only a session's ``get_providers()`` is believed.

Purity: shell; only a worker process may import it.
Spec: docs/spec/runtime.md, rules RUN-9 to RUN-13.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from cocoon.core.errors import DtypeUnsupported, LimitExceeded, MemoryExceeded, ModelRefused, RunFailed
from cocoon.core.limits import ALIGNMENT_BYTES, PAYLOAD_BYTES, SMALL_PAYLOAD_BYTES, TENSOR_RANK, WORKER_TEXT_CHARS
from cocoon.runtime.death import tells_no_memory
from cocoon.runtime.specs import CPU_PROVIDER, TensorSpec, check_inputs, clip

Array = np.ndarray[Any, Any]
Forms = dict[str, tuple[str, tuple[int, ...]]]

ENGINE = f"onnxruntime {ort.__version__}"
OPTIMISATION = "level=all mode=sequential inter=1 deterministic=1"
CPU = CPU_PROVIDER
CUDA = "CUDAExecutionProvider"
ort.set_default_logger_severity(4)  # the probe of a missing GPU is no error

#: ONNX Runtime's type texts of the dtypes that Cocoon carries.
_DTYPES = {
    "tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64", "tensor(bool)": "bool", "tensor(string)": "string",
}
_NOTHING: Mapping[str, Array] = MappingProxyType({})
#: Forms of inputs whose plan is remembered; then all are forgotten.
_PLANS = 64
_PREAMBLE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |status\.IsOK\(\) was false\. ")
#: ONNX Runtime's exceptions share no base class of their own; pybind turns C++ ones into the rest.
_ERRORS: tuple[type[Exception], ...] = (
    *(c for c in vars(_state).values() if isinstance(c, type) and issubclass(c, Exception)),
    RuntimeError, ValueError, TypeError, IndexError, OverflowError, MemoryError,
)


def options(threads: int) -> ort.SessionOptions:
    """Session options of the execution profile."""
    chosen = ort.SessionOptions()
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.use_deterministic_compute = True
    chosen.log_severity_level = 4  # fatal only: its warnings quote models and data
    # Several workers share the cores: an idle one must not burn any.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without this, four bytes of a file choose another parser than the one that was screened.
    chosen.add_session_config_entry("session.load_model_format", "ONNX")
    return chosen


def effective_provider(gpu: bool) -> str:
    """The provider that a real session gets: CUDA if ``gpu`` and it works, else CPU."""
    if gpu and CUDA in ort.get_available_providers():
        try:
            ort.preload_dlls()
            if _open(probe_model(), CUDA, 1, PAYLOAD_BYTES).get_providers()[0] == CUDA:
                return CUDA
        except _ERRORS:
            pass
    return CPU


class Plan(NamedTuple):
    """What follows from the form of inputs.

    Attributes:
        staged: Aligned room for the small ones among them.
        outputs: Dtype and shape of every output, as the model tells; None if it does not, or none is large.
    """

    staged: Mapping[str, Array]
    outputs: Forms | None


class Model:
    """One session; ``inputs``, ``outputs`` and ``provider`` say what it really is."""

    def __init__(
        self, data: bytes, any_rank: frozenset[str], provider: str, threads: int, memory_bytes: int
    ) -> None:
        """Create the session of screened ``data``; ``any_rank`` is what ``screen`` returned.

        A model that cannot run wholly on CUDA (strings, missing kernels) runs
        wholly on the CPU, and ``provider`` says so: never half and half.

        Raises:
            ModelRefused: ONNX Runtime refuses the model, or it takes or gives no tensors.
            DtypeUnsupported: an input or output of a dtype that Cocoon does not carry.
            MemoryExceeded: the session needs more memory than its limit.
        """
        try:
            self._session = _open_on(data, provider, threads, memory_bytes)
        except _ERRORS as error:
            if _no_memory(error):
                raise MemoryExceeded("the model needs more memory than its limit to be loaded") from None
            raise ModelRefused(clip(f"ONNX Runtime refuses the model: {_reason(error)}")) from None
        self._tells_shapes = True
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self.provider: str = self._session.get_providers()[0]
        self.inputs = tuple(_spec(arg, any_rank) for arg in self._session.get_inputs())
        self.outputs = tuple(_spec(arg, any_rank) for arg in self._session.get_outputs())

    def plan(self, feeds: Mapping[str, Array]) -> Plan:
        """What is known before a run on inputs of this form; they are checked once.

        Raises:
            InputsMismatch: ``feeds`` are not exactly the model's inputs.
        """
        form = tuple([(name, array.dtype, array.shape) for name, array in feeds.items()])
        plan = self._plans.get(form)
        if plan is None:
            check_inputs(self.inputs, {name: (_dtype_name(a), a.shape) for name, a in feeds.items()})
            if len(self._plans) == _PLANS:
                self._plans.clear()
            staged = {name: _room(array) for name, array in feeds.items() if _is_staged(array)}
            plan = self._plans[form] = Plan(staged, self._forms(feeds) if self._tells_shapes else None)
        return plan

    def run(
        self, feeds: Mapping[str, Array], plan: Plan | None = None, lent: Mapping[str, Array] = _NOTHING
    ) -> tuple[dict[str, Array], int]:
        """Run once on exactly ``feeds``; the outputs by name, and microseconds inside ONNX Runtime.

        Args:
            plan: What ``plan`` said of them, if it was asked.
            lent: Aligned memory for outputs of the forms in ``plan``; those outputs then are these arrays themselves.

        Raises:
            RunFailed: an operator failed on these values.
            MemoryExceeded, LimitExceeded: the run, or its outputs, are too large.
            InputsMismatch: as ``plan``.
        """
        plan = plan or self.plan(feeds)
        try:
            aligned = {name: _aligned(array, plan.staged.get(name)) for name, array in feeds.items()}
            began_ns = time.perf_counter_ns()
            results = self._run_into(aligned, lent) if lent else self._session.run(None, aligned)
            ran_us = (time.perf_counter_ns() - began_ns) // 1_000
        except _ERRORS as error:
            if _no_memory(error):
                raise MemoryExceeded("the run needs more memory than the model's limit") from None
            raise RunFailed(clip(f"the model failed on these inputs: {_reason(error)}")) from None
        outputs = {spec.name: array for spec, array in zip(self.outputs, results, strict=True)}
        if (size_bytes := sum([array.nbytes for array in results])) > PAYLOAD_BYTES:
            raise LimitExceeded(f"the outputs take {size_bytes} bytes, above {PAYLOAD_BYTES} of one run")
        return outputs, ran_us

    def bound(self) -> Bound:
        """Places of this session's inputs and outputs, none named yet."""
        return Bound(self._session)

    def _forms(self, feeds: Mapping[str, Array]) -> Forms | None:
        """Dtype and shape of each output, by what the model says; None if it says too little, or all are small."""
        axes: dict[str, int] = {}
        for spec in self.inputs:
            for axis, length in zip(spec.shape or (), feeds[spec.name].shape, strict=False):
                if isinstance(axis, str) and axis:
                    axes[axis] = length
        forms: Forms = {}
        for spec in self.outputs:
            shape = [axes.get(axis) if isinstance(axis, str) else axis for axis in spec.shape or ()]
            told = [length for length in shape if length is not None]
            if spec.shape is None or spec.dtype == "string" or len(told) < len(shape):
                return None
            forms[spec.name] = spec.dtype, tuple(told)
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in forms.values()]
        return forms if max(sizes, default=0) >= SMALL_PAYLOAD_BYTES else None

    def _run_into(self, feeds: dict[str, Array], lent: Mapping[str, Array]) -> list[Array]:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for spec in self.outputs:
            if (room := lent.get(spec.name)) is None:
                binding.bind_output(spec.name, "cpu")
            else:
                binding.bind_output(spec.name, "cpu", 0, room.dtype, room.shape, room.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except _ERRORS as error:
            if _no_memory(error):
                raise
            # Perhaps an output has another shape than the model says. This attempt gave no result to anybody.
            results = list(self._session.run(None, feeds))
            self._tells_shapes = False
            self._plans.clear()
            return results
        found = binding.get_outputs()
        return [
            lent[spec.name] if spec.name in lent else value.numpy()
            for spec, value in zip(self.outputs, found, strict=True)
        ]


class Bound:
    """Executions on memory that stays where it is: what one of them leaves there, the next one finds.

    An output may lie where an input does, as a decoder's cache does. So a failed run is never repeated here.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session, self._binding = session, session.io_binding()

    def input(self, name: str, array: Array) -> None:
        """From now on the input of this name is what lies in this array, which the caller keeps alive."""
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def output(self, name: str, array: Array) -> None:
        """From now on the output of this name is written into this array."""
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self) -> None:
        """Execute once.

        Raises:
            RunFailed: an operator failed on these values, or an output has not the shape of its place.
            MemoryExceeded: the run is too large.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except _ERRORS as error:
            if _no_memory(error):
                raise MemoryExceeded("the run needs more memory than the model's limit") from None
            raise RunFailed(clip(f"the model failed on these inputs: {_reason(error)}")) from None


def _open_on(data: bytes, provider: str, threads: int, memory_bytes: int) -> ort.InferenceSession:
    if provider == CUDA:
        try:
            return _open(data, CUDA, threads, memory_bytes)
        except _ERRORS as error:
            if _no_memory(error):
                raise
    return _open(data, CPU, threads, memory_bytes)


def _open(data: bytes, provider: str, threads: int, memory_bytes: int) -> ort.InferenceSession:
    chosen = options(threads)
    if provider == CPU:
        return ort.InferenceSession(data, chosen, providers=[CPU])
    chosen.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    # TF32 changes results in the third digit; the algorithm search would depend on the load of the card.
    settings = {
        "gpu_mem_limit": str(memory_bytes), "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC",
    }
    session = ort.InferenceSession(data, chosen, providers=[CUDA], provider_options=[settings])
    if session.get_providers()[0] != CUDA:
        raise RuntimeError("CUDA is not effective")
    return session


def _spec(arg: Any, any_rank: frozenset[str]) -> TensorSpec:
    name, kind = str(arg.name), str(arg.type)
    dtype = _DTYPES.get(kind)
    if dtype is None and kind.startswith("tensor("):
        raise DtypeUnsupported(f"{name!r} is a {kind}, which Cocoon does not carry yet")
    if dtype is None:
        raise ModelRefused(f"{name!r} is a {clip(kind, WORKER_TEXT_CHARS)}; only plain tensors are carried")
    axes = list(arg.shape)
    if len(axes) > TENSOR_RANK:
        raise LimitExceeded(f"{name!r} has rank {len(axes)}, above {TENSOR_RANK}")
    if not axes and name in any_rank:  # ONNX Runtime shows an open rank as a scalar
        return TensorSpec(name, dtype, None)
    return TensorSpec(name, dtype, tuple(_axis(axis) for axis in axes))


def _axis(axis: Any) -> int | str:
    return axis if isinstance(axis, int) else clip(axis or "", WORKER_TEXT_CHARS)


def _dtype_name(array: Array) -> str:
    return "string" if array.dtype == object else array.dtype.name


def _is_staged(array: Array) -> bool:
    """Whether these inputs are copied in any case: for small ones that costs less than to look where they lie."""
    return array.dtype != object and array.nbytes < SMALL_PAYLOAD_BYTES


def _aligned(array: Array, room: Array | None) -> Array:
    """The array itself at an aligned address, or a copy there.

    Tensors arrive as views at any offset of a message, and vectorised sums split
    at aligned addresses: without the copy the last bit of a result could depend
    on how its message was laid out.
    """
    if room is None:
        if array.dtype == object or array.ctypes.data % ALIGNMENT_BYTES == 0:
            return array
        room = _room(array)
    np.copyto(room, array)
    return room


def _room(array: Array) -> Array:
    """An array of this form at an aligned address."""
    room = np.empty(array.nbytes + ALIGNMENT_BYTES, np.uint8)
    first = -room.ctypes.data % ALIGNMENT_BYTES
    found: Array = room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    return found


def _reason(error: Exception) -> str:
    """What ONNX Runtime says without the C++ signatures in front of it."""
    return _PREAMBLE.split(str(error))[-1] or type(error).__name__


def _no_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or tells_no_memory(str(error))


def probe_model() -> bytes:
    """The smallest model: ``y = relu(x)``, float32, one item."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 21)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def probe_inputs() -> dict[str, Array]:
    """Inputs of ``probe_model``."""
    return {"x": np.ones(1, np.float32)}
