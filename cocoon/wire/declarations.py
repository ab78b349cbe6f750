"""What a manifest may say of its model besides its files: for people, and for who chooses by it.

Whatever is chosen by is a word of a closed list, so that two models that do the
same say the same. None of it is believed where it matters: a worker reports a
model's true inputs, and a buyer counts his own units.

Purity: pure. Spec: docs/spec/models.md, rules MOD-7 and MOD-8.
"""

from __future__ import annotations

from collections.abc import Iterator

from cocoon.core.errors import UsageError
from cocoon.core.limits import (
    LICENCE_CHARS,
    MANIFEST_ENDS,
    MANIFEST_STEPS,
    MODEL_NAME_CHARS,
    TENSOR_NAME_CHARS,
    TENSOR_RANK,
    WORKER_TEXT_CHARS,
)
from cocoon.core.units import UnitKind
from cocoon.core.values import Value
from cocoon.wire.licence import check_expression
from cocoon.wire.types import U32, Each, Line, Record, Word

KINDS = ("infer", "embed", "map", "generate")
#: What a run is counted in, by the names of ``UnitKind``.
UNITS = tuple(kind.name.lower() for kind in UnitKind)
#: How equal the outputs of equal inputs are: to the bit everywhere; to the bit within one execution profile; within
#: the tolerance of ``joinable``; not at all, because the model draws.
DETERMINISM = ("exact", "profile", "close", "free")
BEFORE = ("tokens", "image_rgb", "scale_unit", "normalise_imagenet")
AFTER = ("softmax", "argmax", "mean_pool", "normalise_l2", "labels")
_DTYPES = (
    *("float16", "float32", "float64", "bool", "string"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


class End(Value):
    """One input or output. An axis is a length in digits, a name, or "?"; the only axis "*" leaves the rank open."""

    name: str
    dtype: str
    axes: tuple[str, ...]


class Tolerance(Value):
    """How far a run may be from the same run alone when others share its batch, as measured; zeros are equal bits."""

    relative_ppm: int
    absolute_nano: int


NAME = Line(MODEL_NAME_CHARS)
LICENCE = Line(LICENCE_CHARS)
WORD = Word(32)
STEPS = Each(WORD, most=MANIFEST_STEPS, least=1)
ENDS = Each(
    Record(End, name=Line(TENSOR_NAME_CHARS), dtype=Word(16), axes=Each(Line(WORKER_TEXT_CHARS), most=TENSOR_RANK)),
    most=MANIFEST_ENDS, least=1,
)
TOLERANCE = Record(Tolerance, relative_ppm=U32, absolute_nano=U32)


def text_flaw(**texts: str | None) -> str | None:
    """A declared text says something, and has no blanks around it: what is not declared is left out."""
    for what, text in texts.items():
        if text is not None and (not text or text != text.strip()):
            return f"{what} {text!r:.40} is empty or padded; what is not declared is left out"
    return None


def word_flaw(what: str, words: tuple[str | None, ...], known: tuple[str, ...]) -> str | None:
    """Declared words are of their list."""
    for word in words:
        if word is not None and word not in known:
            return f"{what} {word!r:.40} is none of {', '.join(known)}"
    return None


def licence_flaw(expression: str | None) -> str | None:
    """A declared licence is an SPDX expression."""
    try:
        check_expression(expression or "")
    except UsageError as error:
        return error.text
    return None


def ends_flaw(ends: tuple[End, ...] | None) -> str | None:
    """Every input, or output, has a name of its own, a dtype that travels, and axes that can be."""
    return next(_ends_flaws(ends or ()), None)


def _ends_flaws(ends: tuple[End, ...]) -> Iterator[str]:
    if len({end.name for end in ends}) != len(ends):
        yield "two inputs, or two outputs, have one name"
    for end in ends:
        if end.dtype not in _DTYPES:
            yield f"{end.name!r:.40} has the dtype {end.dtype!r}, which does not travel"
        for axis in end.axes:
            if not axis or (axis == "*" and len(end.axes) > 1):
                yield f"{end.name!r:.40} has the axis {axis!r}"
