"""What a model takes and gives, and whether given inputs fit.

Invariants
    Nothing here knows numpy: a tensor is (dtype name, shape), so that the peer
    can read a model's specs without loading a numeric library.

Purity: pure. Spec: docs/spec/runtime.md, rules RUN-9 to RUN-11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cocoon.core.errors import InputsMismatch
from cocoon.core.limits import ERROR_TEXT_CHARS
from cocoon.core.values import Value

#: ONNX Runtime's name of the execution provider that every machine has.
CPU_PROVIDER = "CPUExecutionProvider"
#: A concrete tensor as a run brings it: dtype name and shape.
Got = tuple[str, tuple[int, ...]]


class TensorSpec(Value):
    """One input or output as the model declares it.

    Attributes:
        dtype: Name as in ``wire.tensors``: ``float32``, ``string`` ...
        shape: A fixed length, or the name of a dynamic axis (may be ""); None
            if the model leaves even the rank open.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {_shape_text(self.shape)}"

    def fits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor has this dtype, this rank and these fixed lengths."""
        if dtype != self.dtype:
            return False
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(self.shape, shape, strict=True)
        )


def check_inputs(specs: Sequence[TensorSpec], got: Mapping[str, Got]) -> None:
    """Pass if ``got`` holds exactly the inputs of ``specs``, each of them fitting.

    Raises:
        InputsMismatch: the message names every wrong input, then what the model takes.
    """
    wanted = {spec.name: spec for spec in specs}
    faults = [f"input {name!r} is missing" for name in wanted if name not in got]
    faults += [f"the model has no input {name!r}" for name in got if name not in wanted]
    for name, (dtype, shape) in got.items():
        spec = wanted.get(name)
        if spec is not None and not spec.fits(dtype, shape):
            want = f"{spec.dtype} {_shape_text(spec.shape)}"
            faults.append(f"input {name!r} is {dtype} {_shape_text(shape)}, not {want}")
    if faults:
        takes = ", ".join(str(spec) for spec in specs) or "no inputs"
        raise InputsMismatch(clip(f"{'; '.join(faults)}; the model takes {takes}"))


def clip(text: str, chars: int = ERROR_TEXT_CHARS) -> str:
    """One printable line of at most ``chars`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * chars]).split())
    return line if len(line) <= chars else line[: chars - 3] + "..."


def _shape_text(shape: tuple[int | str, ...] | None) -> str:
    if shape is None:
        return "(any rank)"
    axes = ", ".join(str(axis) if axis != "" else "?" for axis in shape)
    return f"({axes},)" if len(shape) == 1 else f"({axes})"
