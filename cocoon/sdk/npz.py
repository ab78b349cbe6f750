"""Tensors in .npz files, without pickle, so that what is written comes back bit by bit.

A numeric tensor ``x`` is the member ``x.npy``, as numpy writes it. A string
tensor ``x`` is three members: ``x.utf8`` (uint8, all items joined), ``x.offsets``
(uint64, where each item begins, and the end) and ``x.shape`` (uint64). numpy
itself would pickle object arrays, and its fixed-width text drops trailing NULs.

A file is foreign: names, headers and sizes are checked before memory is taken,
and a member whose dtype holds Python objects is refused, never loaded.

Purity: shell. Spec: docs/spec/tensors.md, rules TEN-10 to TEN-14.
"""

from __future__ import annotations

import ast
import lzma
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from cocoon.core import limits
from cocoon.core.errors import BadInput, CocoonError, DtypeUnsupported, LimitExceeded, NotFound, UsageError
from cocoon.core.units import format_bytes
from cocoon.sdk.arrays import Array, plain_array, plain_tensors
from cocoon.sdk.files import write_whole

_PARTS = (".utf8", ".offsets", ".shape")
# Fixed, so that equal tensors give equal files: the earliest time that a zip can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)
#: One plain dtype, as numpy writes it: ``<f4``, ``|b1``, ``<U7``, ``<M8[s]``.
_DESCR = re.compile(r"[<>|=]?[A-Za-z?][0-9]*(\[[0-9A-Za-z]*\])?")
#: What zipfile, its decompressors and literal_eval raise on bad data.
_FORMAT_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError, TypeError, SyntaxError,
    KeyError, EOFError, RuntimeError, OverflowError, MemoryError,
)


# --- reading ---------------------------------------------------------------


def load(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read all tensors of an npz file.

    Returns:
        Names to arrays in the form of ``arrays.plain_tensors``.

    Raises:
        NotFound: no such file. BadInput: no npz, or not plain tensors.
        LimitExceeded: more tensors or bytes than one run may carry.
        DtypeUnsupported: a dtype that does not travel.
    """
    try:
        if not os.path.isfile(path):
            raise NotFound(f"there is no regular file {os.fspath(path)!r}")
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            return _joined({name: _array(archive, name, info, path) for name, info in members.items()}, path)
    except CocoonError:
        raise
    except OSError as error:
        raise BadInput(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}") from None
    except _FORMAT_ERRORS as error:
        raise BadInput(f"{os.fspath(path)!r} is no npz file: {str(error)[:200]}") from None


def _members(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > limits.TENSORS * len(_PARTS):
        raise LimitExceeded(f"{os.fspath(path)!r} holds {len(infos)} arrays, above {limits.TENSORS} tensors")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in members:
            raise BadInput(f"{os.fspath(path)!r}: {info.filename!r} is no array, or stands there twice")
        members[name] = info
    total_bytes = sum(info.file_size for info in infos)
    if total_bytes > limits.NPZ_BYTES:
        size, bound = format_bytes(total_bytes), format_bytes(limits.NPZ_BYTES)
        raise LimitExceeded(f"{os.fspath(path)!r} holds {size} of arrays, more than the {bound} of one run")
    return members


def _array(
    archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo, path: str | os.PathLike[str]
) -> Array:
    """Read one member; its header must promise exactly the bytes that are there."""
    with archive.open(info) as member:
        dtype, order, shape = _header(member, name)
        promised_bytes = math.prod(shape) * dtype.itemsize
        if len(shape) > limits.TENSOR_RANK or promised_bytes != info.file_size - member.tell():
            raise BadInput(f"{os.fspath(path)!r}: the header of {name!r} does not fit its size")
        raw = member.read(promised_bytes)
        # Reading past the end makes zipfile compare its checksum.
        if len(raw) != promised_bytes or member.read(1):
            raise BadInput(f"{os.fspath(path)!r}: {name!r} is truncated")
    # A dtype of width 0 (empty fixed-width text) has no buffer to look at.
    array = np.frombuffer(raw, dtype=dtype) if raw else np.zeros(math.prod(shape), dtype=dtype)
    return plain_array(name, array.reshape(shape, order=order))


def _header(member: IO[bytes], name: str) -> tuple[np.dtype[Any], Literal["C", "F"], tuple[int, ...]]:
    """Read a npy header: numpy's own reader repairs old spellings, and fails in a dozen ways."""
    magic = member.read(8)
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(magic)
    if width is None:
        raise BadInput(f"{name!r} is no array of npy format 1.0 or 2.0")
    length = int.from_bytes(member.read(width), "little")
    if length > limits.NPY_HEADER_BYTES:
        raise BadInput(f"{name!r} has a header of {length} bytes")
    match ast.literal_eval(member.read(length).decode("latin-1").strip()):
        case {"descr": descr, "fortran_order": bool(turned), "shape": tuple(shape), **rest} if not rest:
            if all(type(size) is int and size >= 0 for size in shape):
                return _dtype(descr, name), "F" if turned else "C", shape
    raise BadInput(f"{name!r} has a header that says something else than dtype, order and shape")


def _dtype(descr: object, name: str) -> np.dtype[Any]:
    if not isinstance(descr, str) or not _DESCR.fullmatch(descr):
        raise DtypeUnsupported(f"tensor {name!r} holds records, which are not carried")
    dtype = np.dtype(descr)
    if dtype.hasobject:
        raise BadInput(f"{name!r} holds pickled objects, which are never loaded")
    return dtype


def _joined(arrays: dict[str, Array], path: str | os.PathLike[str]) -> dict[str, Array]:
    """Replace each complete trio of string parts by its tensor (TEN-11)."""
    tensors = dict(arrays)
    for base in _text_bases(arrays):
        if base in arrays:
            raise BadInput(f"{os.fspath(path)!r} holds {base!r} both as numbers and as text")
        tensors[base] = _text(base, *(tensors.pop(base + part) for part in _PARTS))
    if len(tensors) > limits.TENSORS:
        raise LimitExceeded(f"{os.fspath(path)!r} holds {len(tensors)} tensors, more than {limits.TENSORS}")
    return tensors


def _text_bases(arrays: Mapping[str, Array]) -> list[str]:
    dtypes = ("uint8", "uint64", "uint64")
    found = []
    for name in arrays:
        base = name.removesuffix(_PARTS[0])
        parts = [arrays.get(base + part) for part in _PARTS]
        if base != name and all(
            part is not None and part.ndim == 1 and part.dtype.name == dtype
            for part, dtype in zip(parts, dtypes, strict=True)
        ):
            found.append(base)
    return found


def _text(base: str, blob: Array, offsets: Array, shape: Array) -> Array:
    sizes = [int(size) for size in shape]
    count = math.prod(sizes)
    marks = [int(mark) for mark in offsets]
    if len(sizes) > limits.TENSOR_RANK or len(marks) != count + 1:
        raise BadInput(f"string tensor {base!r}: shape {sizes} does not fit {len(marks) - 1} items")
    if marks[0] != 0 or marks[-1] != blob.size or any(a > b for a, b in zip(marks, marks[1:], strict=False)):
        raise BadInput(f"string tensor {base!r}: offsets do not rise from 0 to {blob.size}")
    raw = blob.tobytes()
    text = np.empty(count, dtype=object)
    for index in range(count):
        try:
            text[index] = raw[marks[index] : marks[index + 1]].decode("utf-8")
        except UnicodeDecodeError:
            raise BadInput(f"string tensor {base!r}: item {index} is no UTF-8 text") from None
    return text.reshape(sizes)


# --- writing ---------------------------------------------------------------


def save(path: str | os.PathLike[str], tensors: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write ``tensors`` to an npz file, whole or not at all.

    Args:
        tensors: As for ``arrays.plain_tensors``.
        overwrite: Replace an existing file.

    Raises:
        UsageError: the file exists, the directory does not, or a name cannot stand in an npz.
        StorageFull: no space on that disk.
        DtypeUnsupported, BadInput: as for ``arrays.plain_tensors``.
    """
    members = _split(plain_tensors(tensors))
    write_whole(Path(path), lambda file: _write(file, members), overwrite=overwrite)


def _split(tensors: dict[str, Array]) -> dict[str, Array]:
    members: dict[str, Array] = {}
    text = [name for name, array in tensors.items() if array.dtype.kind == "O"]
    for name, array in tensors.items():
        parts = _text_parts(name, array) if array.dtype.kind == "O" else {name: array}
        for key, part in parts.items():
            if not key or "\0" in key or key in members or len(key.encode()) > 0x7FFF:
                raise UsageError(f"tensor name {key[:64]!r} cannot stand in an npz, or stands there twice")
            members[key] = part
    if sorted(_text_bases(members)) != sorted(text) or any(name in members for name in text):
        raise UsageError("names ending in .utf8, .offsets and .shape would be read back as a string tensor")
    return members


def _text_parts(name: str, array: Array) -> dict[str, Array]:
    items = [item.encode("utf-8") for item in array.reshape(-1).tolist()]
    offsets = np.zeros(len(items) + 1, dtype="<u8")
    np.cumsum([len(item) for item in items], out=offsets[1:])
    blob = np.frombuffer(b"".join(items), dtype=np.uint8)
    shape = np.array(array.shape, dtype="<u8")
    return dict(zip((name + part for part in _PARTS), (blob, offsets, shape), strict=True))


def _write(file: IO[bytes], members: dict[str, Array]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
