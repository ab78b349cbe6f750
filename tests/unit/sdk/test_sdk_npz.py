"""npz files: what is written comes back bit by bit, and nothing foreign gets in."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cocoon.core import limits
from cocoon.core.errors import (
    BadInput,
    CocoonError,
    DtypeUnsupported,
    LimitExceeded,
    NotFound,
    StorageFull,
    UsageError,
)
from cocoon.sdk import npz
from cocoon.wire.tensors import NUMERIC

NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=8)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)
NUMBERS = st.sampled_from(sorted(NUMERIC)).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
STRINGS = hnp.arrays(
    np.dtype(object), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), elements=TEXT
)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Equal names, dtypes, shapes and bits."""
    return sorted(first) == sorted(second) and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and (
            first[name].tolist() == second[name].tolist()
            if first[name].dtype.kind == "O"
            else first[name].tobytes() == second[name].tobytes()
        )
        for name in first
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=st.dictionaries(NAMES, NUMBERS | STRINGS, max_size=4))
@example(tensors={"x": np.array(["a\0", "\0\0", ""], dtype=object)})
@example(tensors={"x.npy": np.zeros(1), "x": np.array(["a"], dtype=object)})
@example(tensors={"a/b": np.array("é", dtype=object)})
@example(tensors={"x": np.array(["a"], dtype=object), "x.utf8": np.zeros(1, dtype=np.uint8)})
def test_what_is_written_comes_back_or_is_refused(tmp_path: Path, tensors: dict[str, Any]) -> None:
    path = tmp_path / "t.npz"
    try:
        npz.save(path, tensors, overwrite=True)
    except UsageError as error:
        assert ".utf8" in error.text or "stands there twice" in error.text
        return
    assert same(npz.load(path), tensors)


def test_equal_tensors_give_equal_files(tmp_path: Path) -> None:
    tensors = {"x": np.arange(5), "s": np.array(["a\0"], dtype=object)}
    npz.save(tmp_path / "a.npz", tensors)
    npz.save(tmp_path / "b.npz", tensors)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_numpy_reads_what_we_write_without_pickle(tmp_path: Path) -> None:
    text = np.array([["a\0", "né"]], dtype=object)
    npz.save(tmp_path / "a.npz", {"x": np.arange(5, dtype=np.int16), "s": text})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as read:
        assert sorted(read.files) == ["s.offsets", "s.shape", "s.utf8", "x"]
        assert read["x"].tolist() == [0, 1, 2, 3, 4]
        assert read["s.utf8"].tobytes() == "a\0né".encode() and read["s.offsets"].tolist() == [0, 2, 5]
        assert read["s.shape"].tolist() == [1, 2]


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_we_read_what_numpy_writes(tmp_path: Path, savez: Any) -> None:
    savez(
        tmp_path / "a.npz", f=np.asfortranarray(np.arange(6.0).reshape(2, 3)), big=np.arange(3, dtype=">i8"),
        u=np.array([["ab", "c"]]), s=np.array([b"x", b"\xc3\xa9"]), scalar=np.int8(3), bool=np.array([True]),
    )
    read = npz.load(tmp_path / "a.npz")
    assert read["f"].tolist() == [[0, 1, 2], [3, 4, 5]] and read["f"].flags.c_contiguous
    assert read["big"].tolist() == [0, 1, 2] and read["big"].dtype == np.dtype("<i8")
    assert read["u"].tolist() == [["ab", "c"]] and read["s"].tolist() == ["x", "é"]
    assert read["scalar"].shape == () and read["bool"].dtype == np.bool_


def savez(path: Path, arrays: dict[str, Any]) -> None:
    """``np.savez`` with names that are no Python names."""
    np.savez(path, **arrays)


def npy(array: Any, **options: Any) -> bytes:
    """One array as numpy writes it."""
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **options)
    return out.getvalue()


def header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A hand-written npy member."""
    padded = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(padded)) + padded + data


def zipped(path: Path, **members: bytes) -> Path:
    """An npz with these members, as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


class Bomb:
    """Executes when unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("/tmp/cocoon-was-unpickled",))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    bomb = np.array([Bomb()], dtype=object)
    np.savez(tmp_path / "a.npz", x=bomb)
    raw = header("{'descr': '|O', 'fortran_order': False, 'shape': (), }", pickle.dumps(Bomb()))
    for path in (tmp_path / "a.npz", zipped(tmp_path / "b.npz", x=raw)):
        with pytest.raises(BadInput, match="pickled objects"):
            npz.load(path)
    assert not Path("/tmp/cocoon-was-unpickled").exists()


F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize("member", [
    b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\xff\xff", b"garbage" * 10,
    header(F4 % "(2,)", bytes(4)), header(F4 % "(2,)", bytes(12)), header(F4 % "(1099511627776,)", bytes(4)),
    header(F4 % "(9223372036854775807, 9223372036854775807)"), header(F4 % "(-1,)", bytes(4)),
    header(F4 % "(True,)", bytes(4)), header(F4 % "('x',)"), header(F4 % ("(" + "1," * 40 + ")"), bytes(4)),
    header("__import__('os')"), header("{" * 100), header("{'descr': 1}"), header("{}"),
    header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", bytes(4)),
    header(F4 % "(1,)", bytes(4), version=b"\x03\x00"), header(F4 % "(1,)", bytes(4), version=b"\x09\x00"),
    header(F4 % ("(1,)" + " " * 20_000), bytes(4)),
    header("{'descr': '<f4', 'fortran_order': 7, 'shape': (1,), }", bytes(4)),
    header("{'descr': '|V2', 'fortran_order': False, 'shape': (1,), }", bytes(2)),
    header("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    header("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    header("{'descr': '|S1', 'fortran_order': False, 'shape': (1,), }", b"\xff"),
    header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\xff\xff\xff\xff"),
    header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\x00\xd8\x00\x00"),
])
def test_a_member_that_is_no_plain_tensor_is_refused(tmp_path: Path, member: bytes) -> None:
    with pytest.raises((BadInput, DtypeUnsupported)) as caught:
        npz.load(zipped(tmp_path / "a.npz", x=member))
    assert "\n" not in caught.value.text


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1_000), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_gives_tensors_or_a_typed_error(tmp_path: Path, at: int, bit: int, cut: bool) -> None:
    tensors = {"x": np.arange(9.0), "s": np.array(["a\0", "b"], dtype=object)}
    npz.save(tmp_path / "a.npz", tensors, overwrite=True)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    at %= len(data)
    data = data[:at] if cut else data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    (tmp_path / "b.npz").write_bytes(data)
    try:
        npz.load(tmp_path / "b.npz")
    except CocoonError as error:
        assert error.exit_code in (BadInput.exit_code, DtypeUnsupported.exit_code, LimitExceeded.exit_code)


U8, U64 = np.uint8, np.uint64


@pytest.mark.parametrize(("blob", "offsets", "shape"), [
    (b"ab", [0, 1], [2]), (b"ab", [0, 1, 1], [2]), (b"ab", [0, 3, 2], [2]), (b"ab", [1, 1, 2], [2]),
    (b"ab", [0, 1, 9], [2]), (b"\xc3\xa9", [0, 1, 2], [2]), (b"\xff", [0, 1], [1]), (b"", [], [0]),
    (b"", [0], [1 << 40]), (b"", [0, 0], [1] * 40),
])
def test_a_string_tensor_with_wrong_offsets_is_refused(
    tmp_path: Path, blob: bytes, offsets: list[int], shape: list[int]
) -> None:
    savez(tmp_path / "a.npz", {
        "s.utf8": np.frombuffer(blob, dtype=U8), "s.offsets": np.array(offsets, dtype=U64),
        "s.shape": np.array(shape, dtype=U64),
    })
    with pytest.raises(BadInput, match="string tensor|shape"):
        npz.load(tmp_path / "a.npz")


def test_parts_of_a_string_tensor_alone_are_plain_tensors(tmp_path: Path) -> None:
    savez(tmp_path / "a.npz", {"s.utf8": np.zeros(2, dtype=U8), "s.shape": np.zeros(1, dtype=U64)})
    assert sorted(npz.load(tmp_path / "a.npz")) == ["s.shape", "s.utf8"]


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("not a zip")
    (tmp_path / "empty.npz").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name in ("a.npy", "text.npz", "empty.npz", "other.npz"):
        with pytest.raises(BadInput):
            npz.load(tmp_path / name)
    for path in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(NotFound):
            npz.load(path)


def test_twice_the_same_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", npy(np.zeros(1)))
        archive.writestr("x.npy", npy(np.ones(1)))
    with pytest.raises(BadInput, match="twice"):
        npz.load(tmp_path / "a.npz")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as member:
            for _ in range(limits.NPZ_BYTES // (1 << 20) + 1):
                member.write(bytes(1 << 20))
    with pytest.raises(LimitExceeded, match="MiB"):
        npz.load(tmp_path / "a.npz")


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    names = {f"x{index}": np.zeros(1, dtype=U8) for index in range(limits.TENSORS * 3 + 1)}
    savez(tmp_path / "a.npz", names)
    savez(tmp_path / "b.npz", dict(list(names.items())[: limits.TENSORS + 1]))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(LimitExceeded):
            npz.load(tmp_path / name)


def test_an_existing_file_is_replaced_only_when_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        npz.save(path, {"x": np.zeros(1)})
    assert path.read_text() == "precious" and os.listdir(tmp_path) == ["a.npz"]
    npz.save(path, {"x": np.zeros(1)}, overwrite=True)
    assert npz.load(path)["x"].tolist() == [0] and os.listdir(tmp_path) == ["a.npz"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    for target in (tmp_path / "no" / "a.npz", Path("/proc/a.npz")):
        with pytest.raises(UsageError, match="cannot be written"):
            npz.save(target, {"x": np.zeros(1)})
    with pytest.raises(DtypeUnsupported):
        npz.save(tmp_path / "a.npz", {"x": np.zeros(1, dtype=np.complex64)})
    with pytest.raises(UsageError, match="cannot stand"):
        npz.save(tmp_path / "a.npz", {"a\0b": np.zeros(1)})
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_a_typed_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel's own limit on file size stands in for the disk; /dev/full cannot hold a directory."""
    import errno

    from cocoon.sdk.files import write_whole

    def full(file: Any) -> None:
        file.write(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageFull):
        write_whole(tmp_path / "a.npz", full, overwrite=False)
    assert os.listdir(tmp_path) == []
