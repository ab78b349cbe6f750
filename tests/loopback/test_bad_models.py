"""Bad models and bad inputs, given to the real command: a typed error for the buyer, nothing for the peers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx import helper as h

import cocoon
from cocoon.core.errors import (
    BadInput,
    CocoonError,
    DtypeUnsupported,
    InputsMismatch,
    LimitExceeded,
    MemoryExceeded,
    ModelRefused,
    NotFound,
    RunFailed,
    RunTimeout,
    UsageError,
)
from cocoon.core.units import MIB
from cocoon.sdk.npz import save
from tests import models
from tests.loopback.conftest import Settled
from tests.loopback.town import town
from tests.loopback.verdict import all_up, good_task_runs, refused, run

ONE = {"x": np.ones(1, "f4")}
FOUR = {"x": np.ones(4, "f4")}
X, B = np.ones((2, 4), "f4"), np.ones(3, "f4")
TAKES = "the model takes x float32 (n, 4), b float32 (3,)"


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    """A town whose provider gives a model 64 MiB, a run one second and the outputs 1 MiB."""
    with town(tmp_path_factory.mktemp("town")) as place:
        yield Settled(
            place, place.bootstrap(),
            place.provider(memory_limit_bytes=str(64 * MIB), run_limit_ms="1000", payload_limit_bytes=str(MIB)),
            place.requester(),
        )


@pytest.fixture(autouse=True)
def unharmed(settled: Settled, tmp_path: Path) -> Iterator[None]:
    """Whatever a test here does, its peers stay up and the next good task succeeds."""
    yield
    good_task_runs(settled.requester, tmp_path)
    all_up(settled.town)


REFUSED: list[tuple[str, bytes, models.Feeds, type[CocoonError], str]] = [
    ("a text file", models.not_onnx(), FOUR, ModelRefused, "no ONNX model"),
    ("an empty file", b"", FOUR, ModelRefused, "is empty"),
    ("a truncated model", models.truncated_model(), FOUR, ModelRefused, "truncated"),
    ("external data", models.external_data_model("/etc/passwd"), FOUR, ModelRefused, "in another file"),
    ("a custom operator", models.custom_domain_model(), FOUR, ModelRefused, "com.example.custom:Frobnicate"),
    ("a recursive function", models.recursive_function_model(), FOUR, ModelRefused, "function"),
    ("an exploding function", models.exploding_function_model(), FOUR, LimitExceeded, "above 1000000"),
    ("bfloat16", models.narrow_float_model("bfloat16"), FOUR, DtypeUnsupported, "bfloat16"),
    ("float8", models.narrow_float_model("float8e4m3fn"), FOUR, DtypeUnsupported, "float8"),
    ("memory at load", models.memory_bomb_at_load(), models.endless_inputs(), MemoryExceeded, "to be loaded"),
    ("memory by folding", models.memory_bomb_by_folding(), models.endless_inputs(), MemoryExceeded, "limit"),
    ("memory at run", models.memory_bomb(), models.endless_inputs(), MemoryExceeded, "the run needs more"),
    ("memory by input", models.memory_bomb_by_input(), models.bomb_inputs(), MemoryExceeded, "the run needs more"),
    ("endless", models.endless_model(), models.endless_inputs(), RunTimeout, "1 s of running the model"),
    ("endless constants", models.endless_at_load_model(), models.endless_inputs(), RunTimeout, "1 s of running"),
    ("a wide answer", models.wide_output_model(MIB), ONE, LimitExceeded, str(MIB)),
    ("too much input", models.adder_model(), {"x": np.zeros(MIB, "f4")}, LimitExceeded, str(MIB)),
    ("a bad index", models.failing_model(), {**FOUR, "i": np.array([9])}, RunFailed, "out of data bounds"),
    ("a wrong name", models.affine_model(), {"x": X, "c": B}, InputsMismatch, f"no input 'c'; {TAKES}"),
    ("a missing input", models.affine_model(), {"x": X}, InputsMismatch, f"'b' is missing; {TAKES}"),
    ("one input too many", models.affine_model(), {"x": X, "b": B, "z": B}, InputsMismatch, "no input 'z'"),
    ("a wrong shape", models.affine_model(), {"x": np.ones((2, 5), "f4"), "b": B}, InputsMismatch, "float32 (2, 5)"),
    ("a wrong rank", models.affine_model(), {"x": np.ones(4, "f4"), "b": B}, InputsMismatch, "float32 (4,)"),
    ("a wrong dtype", models.affine_model(), {"x": X.astype("f8"), "b": B}, InputsMismatch, "float64 (2, 4)"),
    ("text for numbers", models.affine_model(), {"x": np.full((2, 4), "a"), "b": B}, InputsMismatch, "string (2, 4)"),
]


@pytest.mark.parametrize(("model", "inputs", "error", "words"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_a_bad_model_or_input_costs_its_owner_a_typed_error(
    settled: Settled, tmp_path: Path, model: bytes, inputs: models.Feeds, error: type[CocoonError], words: str
) -> None:
    refused(run(settled.town, settled.requester, tmp_path, model, inputs), error, words)


def slow_to_load_model(layers: int = 20, side: int = 1_024) -> bytes:
    """Convolutions of constants that the optimiser computes while the session is created: minutes, in 64 MiB."""
    shape = h.make_tensor("s", TensorProto.INT64, [4], [1, 1, side, side])
    nodes = [
        h.make_node("Constant", [], ["s"], value=shape),
        h.make_node("ConstantOfShape", ["s"], ["t0"], value=h.make_tensor("v", TensorProto.FLOAT, [1], [1e-6])),
    ]
    pads = [side // 2, side // 2, side // 2 - 1, side // 2 - 1]
    nodes += [h.make_node("Conv", [f"t{i}", f"t{i}"], [f"t{i + 1}"], pads=pads) for i in range(layers)]
    nodes += [h.make_node("ReduceSum", [f"t{layers}"], ["e"], keepdims=0), h.make_node("Add", ["e", "x"], ["y"])]
    one = [h.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = h.make_graph(nodes, "slow", one[:1], one[1:])
    made: bytes = h.make_model(
        graph, opset_imports=[h.make_opsetid("", models.OPSET)], ir_version=models.IR_VERSION
    ).SerializeToString()
    return made


# --- files that are no inputs ------------------------------------------------


def write_bad_npz(folder: Path) -> dict[str, tuple[Path, type[CocoonError], str]]:
    """Input files that must never reach a provider: path, error, a word of its cause."""
    pickled, narrow, tiny = folder / "pickled.npz", folder / "bfloat16.npz", folder / "float8.npz"
    np.savez(pickled, x=np.array([{"run": "me"}], dtype=object))
    np.savez(narrow, x=np.zeros(4, ml_dtypes.bfloat16))
    np.savez(tiny, x=np.zeros(4, ml_dtypes.float8_e4m3fn))
    complex_, text, cut = folder / "complex.npz", folder / "text.npz", folder / "cut.npz"
    np.savez(complex_, x=np.zeros(4, "c8"))
    text.write_text("no archive\n")
    np.savez(cut, x=np.zeros(1_000, "f4"))
    cut.write_bytes(cut.read_bytes()[:500])
    return {
        "pickled": (pickled, BadInput, "pickled objects, which are never loaded"),
        "bfloat16": (narrow, DtypeUnsupported, "'x'"),
        "float8": (tiny, DtypeUnsupported, "'x'"),
        "complex": (complex_, DtypeUnsupported, "complex64"),
        "text": (text, BadInput, "is no npz file"),
        "cut off": (cut, BadInput, "is no npz file"),
        "missing": (folder / "missing.npz", NotFound, "missing.npz"),
        "a directory": (folder, NotFound, "no regular file"),
    }


@pytest.mark.parametrize(
    "name", ["pickled", "bfloat16", "float8", "complex", "text", "cut off", "missing", "a directory"]
)
def test_a_bad_npz_is_refused_before_anything_is_sent(settled: Settled, tmp_path: Path, name: str) -> None:
    path, error, words = write_bad_npz(tmp_path)[name]
    (tmp_path / "model.onnx").write_bytes(models.adder_model())
    done = settled.town.cocoon(
        settled.requester, "run", str(tmp_path / "model.onnx"), "--input", str(path), "--json"
    )
    refused(done, error, words)


def test_a_bad_input_among_good_ones_does_not_take_them_along(settled: Settled, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(models.affine_model())
    given: dict[str, models.Feeds] = {"first": {"x": X, "b": B}, "wrong": {"x": X}, "last": {"x": 2 * X, "b": B}}
    names: list[str] = []
    for name, inputs in given.items():
        save(tmp_path / f"{name}.npz", inputs)
        names += ["--input", str(tmp_path / f"{name}.npz")]
    done = settled.town.cocoon(
        settled.requester, "run", str(tmp_path / "model.onnx"), *names, "--output", str(tmp_path / "out"), "--json"
    )
    refused(done, InputsMismatch, "'b' is missing")
    assert [item["unit"] for item in done.objects[:-1]] == [0, 1, 2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first.npz", "last.npz"]
    assert done.objects[-1]["summary"]["failed"] == 1


# --- model files that are not there, or not the same -------------------------


def test_an_unknown_model_id_is_not_found(settled: Settled, tmp_path: Path) -> None:
    save(tmp_path / "in.npz", FOUR)
    done = settled.town.cocoon(
        settled.requester, "run", "ab" * 32, "--input", str(tmp_path / "in.npz"), "--json"
    )
    refused(done, NotFound, "ab" * 32)


@pytest.mark.parametrize("name", ["nowhere.onnx", "", "ab" * 31, "."])
def test_a_model_that_is_no_file_is_named(settled: Settled, tmp_path: Path, name: str) -> None:
    save(tmp_path / "in.npz", FOUR)
    done = settled.town.cocoon(settled.requester, "run", name, "--input", str(tmp_path / "in.npz"), "--json")
    refused(done, UsageError if name == "" else NotFound)


def test_a_model_that_changes_between_runs_is_another_model_and_one_that_vanishes_is_missing(
    settled: Settled, tmp_path: Path
) -> None:
    first = run(settled.town, settled.requester, tmp_path, models.affine_model(), models.affine_inputs())
    second = run(settled.town, settled.requester, tmp_path, models.adder_model(), FOUR)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert first.objects[0]["lease"] != second.objects[0]["lease"]
    (tmp_path / "model.onnx").unlink()
    done = settled.town.cocoon(
        settled.requester, "run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "in.npz"), "--json"
    )
    refused(done, NotFound, "model.onnx")


def test_a_model_that_changes_behind_its_time_stamp_is_noticed_before_it_is_sent(
    settled: Settled, tmp_path: Path
) -> None:
    path, before = tmp_path / "model.onnx", models.custom_domain_model()
    refused(run(settled.town, settled.requester, tmp_path, before, FOUR), ModelRefused, "Frobnicate")
    status = path.stat()
    with path.open("r+b") as file:
        file.write(before.replace(b"Frobnicate", b"Frobnicats"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = settled.town.cocoon(
        settled.requester, "run", str(path), "--input", str(tmp_path / "in.npz"), "--json"
    )
    refused(done, ModelRefused, "changed while it was in use")


def large_file(folder: Path) -> Path:
    """Takes many frames to send."""
    path = folder / "large.onnx"
    path.write_bytes(np.random.default_rng(7).bytes(48 * MIB))
    return path


def test_a_model_that_vanishes_while_it_is_sent_ends_the_task(settled: Settled, tmp_path: Path) -> None:
    path = large_file(tmp_path)

    def remove(event: dict[str, object]) -> None:
        if event["event"] == "model":
            path.unlink(missing_ok=True)

    with pytest.raises(NotFound, match="cannot be read any more"):
        cocoon.connect(settled.requester.home).run(path, FOUR, on_event=remove)


def test_a_client_that_is_killed_while_its_model_is_sent_takes_nobody_along(settled: Settled, tmp_path: Path) -> None:
    path = large_file(tmp_path)

    def interrupt(event: dict[str, object]) -> None:
        if event["event"] == "model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cocoon.connect(settled.requester.home).run(path, FOUR, on_event=interrupt)
    command = settled.town.begin(settled.requester, "run", str(path), "--input", str(tmp_path / "in.npz"))
    command.process.send_signal(signal.SIGKILL)
    assert command.finish().code == -signal.SIGKILL


# --- outputs ------------------------------------------------------------------


def test_an_output_is_replaced_only_when_told_so(settled: Settled, tmp_path: Path) -> None:
    taken = tmp_path / "out.npz"
    taken.write_text("mine")
    given = (models.affine_model(), models.affine_inputs(), "--output")
    done = run(settled.town, settled.requester, tmp_path, *given, str(taken))
    refused(done, UsageError, "exists; add --force")
    assert taken.read_text() == "mine"
    done = run(settled.town, settled.requester, tmp_path, *given, str(tmp_path / "nowhere" / "out.npz"))
    refused(done, NotFound, "no directory")
    done = run(settled.town, settled.requester, tmp_path, *given, str(tmp_path / "out.txt"))
    refused(done, UsageError, "neither .npz nor a directory")
    assert run(settled.town, settled.requester, tmp_path, *given, str(taken), "--force").code == 0
    assert taken.read_bytes()[:2] == b"PK"


@pytest.mark.long
def test_a_model_that_never_loads_is_given_up(settled: Settled, tmp_path: Path) -> None:
    onnx.checker.check_model(slow_to_load_model())
    (tmp_path / "slow.onnx").write_bytes(slow_to_load_model())
    save(tmp_path / "in.npz", ONE)
    names = ("run", str(tmp_path / "slow.onnx"), "--input", str(tmp_path / "in.npz"), "--json")
    # Beyond the time that a provider gives to loading; the test asserts nothing about how long it took.
    refused(settled.town.cocoon(settled.requester, *names, patience_s=150), RunTimeout, "loading the model")
