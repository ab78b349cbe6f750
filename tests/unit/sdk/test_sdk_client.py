"""The verbs of the client against a peer that behaves."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core import limits
from cocoon.core.errors import (
    BadInput,
    DtypeUnsupported,
    InputsMismatch,
    Malformed,
    NoProvider,
    NotFound,
    UsageError,
)
from cocoon.core.ids import PACKAGE_FILE, peer_id
from cocoon.sdk import Failure, Result, connect
from tests.control_server import (
    HINDSIGHT,
    LEASE,
    PROVIDER,
    SOLD,
    SUMS,
    Talk,
    receipt_hash,
    result_of,
    run_task,
    serving,
)

INPUTS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


def many(count: int) -> list[dict[str, Any]]:
    """Small inputs that differ."""
    return [{"x": np.full((3,), index, dtype=np.int64)} for index in range(count)]


def numbers(results: list[Result]) -> list[int]:
    """What the inputs of ``many`` were, read from the outputs."""
    return [int(result.outputs["out_x"][0]) for result in results]


def test_a_single_run_returns_outputs_price_provider_and_receipt(home: Path, model: Path) -> None:
    with serving(home) as server:
        result = connect(home).run(model, INPUTS, max_price_nanoton=5, deadline_s=2.5)
    output = result.outputs["out_x"]
    assert np.array_equal(output, INPUTS["x"]) and output.dtype == np.float32
    assert (result.provider, result.lease, result.number) == (peer_id(PROVIDER), LEASE.hex(), 0)
    assert result.receipt == receipt_hash(0).hex()
    assert server.requests == [
        ("run", {"model": str(model), "units": 1, "max_price_nanoton": 5, "deadline_ms": 2_500})
    ]


def test_how_far_a_task_may_be_spread_reaches_the_peer(home: Path, model: Path) -> None:
    with serving(home) as server:
        connect(home).run(model, INPUTS, spread=8)
        list(connect(home).map(model, [INPUTS], spread=1))
    assert [args["spread"] for _, args in server.requests] == [8, 1]


def test_a_list_comes_back_in_order_with_every_receipt(home: Path, model: Path) -> None:
    with serving(home):
        results = connect(home).run(model, many(23))
    assert numbers(results) == list(range(23))
    assert [result.receipt for result in results[:6]] == [receipt_hash(0).hex()] * 6
    assert all(result.receipt for result in results)


@pytest.mark.parametrize("credit", [1, 2, 7, 64, 200])
def test_results_in_any_order_are_handed_on_in_order(home: Path, model: Path, credit: int) -> None:
    def backwards(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        run_task(talk, args, credit=min(credit, limits.CLIENT_WINDOW_UNITS), reverse=True)

    with serving(home, backwards):
        assert numbers(connect(home).run(model, many(150))) == list(range(150))


def test_an_iterable_without_length_is_streamed_in_bounded_pieces(home: Path, model: Path) -> None:
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        while True:
            yield {"x": np.full((3,), taken, dtype=np.int64)}
            taken += 1

    with serving(home) as server:
        stream = connect(home).map(model, endless())
        results = [next(stream) for _ in range(limits.MAP_BATCH_UNITS + 1)]
        stream.close()
    assert numbers(results) == list(range(limits.MAP_BATCH_UNITS + 1))
    assert [result.unit for result in results] == list(range(limits.MAP_BATCH_UNITS + 1))
    assert taken <= 2 * limits.MAP_BATCH_UNITS
    assert [args["units"] for _, args in server.requests] == [limits.MAP_BATCH_UNITS] * 2


def test_a_slow_reader_holds_no_more_than_a_window(home: Path, model: Path) -> None:
    """However much credit the peer grants, inputs are taken only as results are."""
    taken: list[int] = []

    class Source:
        def __len__(self) -> int:
            return 1_000

        def __iter__(self) -> Iterator[dict[str, Any]]:
            for index in range(1_000):
                taken.append(index)
                yield {"x": np.full((3,), index, dtype=np.int64)}

    def generous(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1_000_000)
        while (message := talk.unit()) is not None:
            talk.send(result_of(message["unit"], message["inputs"], number=message["unit"]))

    with serving(home, generous):
        stream = connect(home).map(model, Source())
        for _ in range(10):
            next(stream)
        assert len(taken) <= 10 + limits.CLIENT_WINDOW_UNITS
        stream.close()


def test_large_payloads_flow_both_ways_at_once(home: Path, model: Path) -> None:
    """The peer answers each unit before it reads the next: neither side may wait for the other."""
    inputs = [{"x": np.full(1 << 20, index, dtype=np.float32)} for index in range(6)]
    with serving(home):
        results = connect(home).run(model, inputs)
    assert all(np.array_equal(r.outputs["out_x"], i["x"]) for r, i in zip(results, inputs, strict=True))


def test_text_with_nul_and_every_shape_and_dtype_survives(home: Path, model: Path) -> None:
    tensors: dict[str, Any] = {
        "text": np.array([["a\0", ""], ["\0", "né"]], dtype=object),
        "wide": np.array(["ab", "c"]),
        "bytes": np.array([b"ab", b"c\xc3\xa9"]),
        "scalar": np.float64(1.5),
        "empty": np.zeros((0, 3), dtype=np.uint8),
        "big": np.arange(4, dtype=">i4"),
        "turned": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "bool": np.array([True, False]),
        "nan": np.frombuffer(b"\x01\x00\xc0\x7f", dtype="<f4"),
    }
    with serving(home):
        outputs = connect(home).run(model, tensors).outputs
    assert outputs["out_text"].tolist() == [["a\0", ""], ["\0", "né"]]
    assert outputs["out_wide"].tolist() == ["ab", "c"] and outputs["out_bytes"].tolist() == ["ab", "cé"]
    assert outputs["out_scalar"].shape == () and outputs["out_empty"].shape == (0, 3)
    assert outputs["out_big"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(outputs["out_turned"], tensors["turned"])
    assert outputs["out_nan"].tobytes() == b"\x01\x00\xc0\x7f"


@pytest.mark.parametrize(("inputs", "error"), [
    ({"x": [1, 2]}, UsageError),
    ({"x": 1.5}, UsageError),
    ({3: np.zeros(1)}, UsageError),
    ({"x": np.zeros(1, dtype=np.complex64)}, DtypeUnsupported),
    ({"x": np.zeros(1, dtype="datetime64[s]")}, DtypeUnsupported),
    ({"x": np.zeros(1, dtype="V2")}, DtypeUnsupported),
    ({"x": np.zeros(1, dtype=[("a", "f4")])}, DtypeUnsupported),
    ({"x": np.zeros(1, dtype=np.longdouble)}, DtypeUnsupported),
    ({"x": np.array([b"\xff"])}, BadInput),
    ({"x": np.array(["\ud800"], dtype=object)}, BadInput),
    ({"x": np.array([None])}, BadInput),
    ({"": np.zeros(1)}, UsageError),
])
def test_inputs_that_are_no_tensors_are_refused(home: Path, model: Path, inputs: Any, error: type) -> None:
    with serving(home), pytest.raises(error):
        connect(home).run(model, inputs)


def test_a_failed_unit_raises_its_error_or_is_a_value(home: Path, model: Path) -> None:
    def second_fails(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=3)
        for _ in range(3):
            if (message := talk.unit()) is None:
                return  # the client gave up after the failure
            if message["unit"] == 1:
                talk.event("failed", unit=1, code="inputs_mismatch", text="x should be float32")
            else:
                talk.send(result_of(message["unit"], message["inputs"], number=message["unit"]))
        talk.send({"done": {"task": b"t", "units": 3, "failed": 1, "receipts": []}})

    with serving(home, second_fails):
        client = connect(home)
        with pytest.raises(InputsMismatch, match="float32"):
            client.run(model, many(3))
        outcomes = list(client.map(model, many(3), keep_going=True))
    assert [type(outcome) for outcome in outcomes] == [Result, Failure, Result]
    assert [outcome.unit for outcome in outcomes] == [0, 1, 2]


def test_an_error_of_the_peer_is_typed(home: Path, model: Path) -> None:
    with serving(home, lambda talk, verb, args: talk.error("no_provider", "nobody sells")):
        client = connect(home)
        for ask in (client.status, lambda: client.run(model, INPUTS)):
            with pytest.raises(NoProvider, match="nobody sells"):
                ask()


def test_an_error_before_the_inputs_were_read_is_not_lost(home: Path, model: Path) -> None:
    """The peer refuses and hangs up while megabytes wait to be written to it."""

    def refuse(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=2)
        talk.error("inputs_mismatch", "wrong name")

    big = {"x": np.zeros(8 << 20, dtype=np.uint8)}
    with serving(home, refuse), pytest.raises(InputsMismatch, match="wrong name"):
        connect(home).run(model, [big, big])


def test_events_are_told_without_payloads_and_with_readable_ids(home: Path, model: Path) -> None:
    events: list[dict[str, Any]] = []
    with serving(home):
        connect(home).run(model, many(2), on_event=events.append)
    names = [event["event"] for event in events]
    assert names[:5] == ["discovering", "bids", "lease", "model", "ready"] and names[-1] == "done"
    lease = next(event for event in events if event["event"] == "lease")
    assert lease == {"event": "lease", "provider": peer_id(PROVIDER), "lease": LEASE.hex()}
    result = next(event for event in events if event["event"] == "result")
    assert "outputs" not in result and "salt" not in result and len(result["output_hash"]) == 64


def test_a_receipt_may_overtake_its_results(home: Path, model: Path) -> None:
    def early(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=2)
        first, second = talk.unit(), talk.unit()
        assert first is not None and second is not None
        talk.event("receipt", hash=receipt_hash(7), seq=1, lease=LEASE, runs=2, first_number=7, verified=True)
        talk.send(result_of(0, first["inputs"], number=7))
        talk.send(result_of(1, second["inputs"], number=8))
        talk.send({"done": {"receipts": [receipt_hash(7)]}})

    with serving(home, early):
        assert [r.receipt for r in connect(home).run(model, many(2))] == [receipt_hash(7).hex()] * 2


def test_an_unverified_receipt_is_none(home: Path, model: Path) -> None:
    def unsure(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1)
        message = talk.unit()
        assert message is not None
        talk.send(result_of(0, message["inputs"], number=1))
        unsigned = {"hash": receipt_hash(1), "seq": 1, "lease": LEASE, "runs": 1, "first_number": 1}
        talk.event("receipt", **unsigned, verified=False)
        talk.send({"done": {}})

    with serving(home, unsure):
        assert connect(home).run(model, INPUTS).receipt is None


def test_a_result_that_was_dropped_is_not_kept_for_its_receipt(home: Path, model: Path) -> None:
    with serving(home):
        stream = connect(home).map(model, many(8))
        dropped = weakref.ref(next(stream))
        next(stream)  # the suspended generators hold the newest one
        gc.collect()
        assert dropped() is None
        stream.close()


def test_inputs_shorter_than_their_length_are_the_callers_fault(home: Path, model: Path) -> None:
    class Liar:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter(many(2))

    with serving(home), pytest.raises(UsageError, match="ended after 2"):
        list(connect(home).map(model, Liar()))


def test_an_exception_of_the_callback_is_the_callers(home: Path, model: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        raise KeyError("mine")

    with serving(home), pytest.raises(KeyError, match="mine"):
        connect(home).run(model, INPUTS, on_event=stop)


def test_no_inputs_ask_nobody(home: Path, model: Path) -> None:
    with serving(home) as server:
        assert connect(home).run(model, []) == []
    assert server.requests == []


@pytest.mark.parametrize("arguments", [
    {"max_price_nanoton": -1}, {"max_price_nanoton": 1 << 64}, {"max_price_nanoton": True},
    {"max_price_nanoton": 1.5}, {"deadline_s": 0}, {"deadline_s": -1}, {"deadline_s": float("nan")},
    {"deadline_s": float("inf")}, {"deadline_s": "9"}, {"spread": 0}, {"spread": 9}, {"spread": True}, {"spread": 2.0},
])
def test_impossible_arguments_are_refused_before_anything_is_asked(
    home: Path, model: Path, arguments: dict[str, Any]
) -> None:
    with serving(home) as server, pytest.raises(UsageError):
        connect(home).run(model, INPUTS, **arguments)
    assert server.requests == []


def test_a_model_is_a_file_or_an_id(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    with serving(home) as server:
        client = connect(home)
        client.run("model.onnx", INPUTS)
        client.run("ab" * 32, INPUTS)
        for missing in ("nothing.onnx", str(model.parent), "a\0b", "", "AB" * 32):
            with pytest.raises(UsageError):
                client.run(missing, INPUTS)
        with pytest.raises(NotFound):
            client.add_model("nothing.onnx")
    assert [args["model"] for _, args in server.requests] == [str(model), "ab" * 32]


def test_a_package_is_a_model_and_a_name_is_asked_for_unless_a_file_has_it(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    (model.parent / "both").write_bytes(b"a file")
    package = model.parent / "package"
    package.mkdir()
    with serving(home) as server:
        client = connect(home)
        with pytest.raises(NotFound, match=PACKAGE_FILE):
            client.run("./package", INPUTS)
        (package / PACKAGE_FILE).touch()
        for named in ("package", "mine", "both"):
            client.run(named, INPUTS)
    assert [args["model"] for _, args in server.requests] == [str(package), "mine", str(model.parent / "both")]


def test_the_verbs_of_models_send_ids_and_names_and_nothing_else(home: Path) -> None:
    heard: list[dict[str, Any]] = []
    with serving(home) as server:
        client = connect(home)
        assert client.inspect_model("mine")["files"][0]["root"] == "00" * 32
        assert client.pull_model("ab" * 32, heard.append)["size_bytes"] == 5
        assert client.remove_model("mine")["removed"] is True
        client.alias_model("mine", "ab" * 32)
        client.alias_model("mine", None)
        assert client.aliases() == {"mine": "00" * 32}
        for wrong in ("a/b", "", "Name", "../mine"):
            for verb in (client.pull_model, client.remove_model):
                with pytest.raises(UsageError):
                    verb(wrong)
        with pytest.raises(UsageError):
            client.alias_model("mine", "other")
    assert heard == [{"event": "pulled", "here_bytes": 3, "total_bytes": 5, "holders": 2}]
    assert server.requests[1:] == [
        ("models_pull", {"model": "ab" * 32}), ("models_rm", {"model": "mine"}),
        ("models_alias", {"name": "mine", "model": "ab" * 32}), ("models_alias", {"name": "mine"}),
        ("models_alias", {}),
    ]


def test_the_other_verbs_give_maps_with_readable_ids(home: Path, model: Path) -> None:
    with serving(home):
        client = connect(home)
        assert client.status()["peer"] == peer_id(PROVIDER)
        assert client.offers()[0]["provider"] == peer_id(PROVIDER)
        assert client.models() == []
        assert len(client.add_model(model, public=True)["model"]) == 64
        assert client.receipts() == [{"hash": receipt_hash(0).hex(), "runs": 1}]
        with pytest.raises(NotFound):
            client.receipt("00" * 32)
        with pytest.raises(UsageError):
            client.receipt("short")
        assert client.stop() == {"stopping": True}


def test_a_long_list_comes_in_pages(home: Path) -> None:
    def paged(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("page", items=[{"hash": receipt_hash(1)}])
        talk.event("page", items=[{"hash": receipt_hash(2)}])
        talk.send({"done": {"receipts": [{"hash": receipt_hash(3)}]} if verb == "receipts_ls" else {}})

    with serving(home, paged):
        client = connect(home)
        assert [item["hash"] for item in client.receipts()] == [receipt_hash(n).hex() for n in (1, 2, 3)]
        assert len(client.models()) == 2


def test_the_market_comes_in_parts(home: Path) -> None:
    def paged(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        for part in ("calls", "auctions", "calls", "of another version"):
            talk.event("page", part=part, items=[{"model": LEASE, "part": part}])
        talk.send({"done": {"sums": SUMS}})

    with serving(home, paged):
        found = connect(home).market()
    assert found == {
        "offers": [], "calls": 2 * [{"model": LEASE.hex(), "part": "calls"}],
        "auctions": [{"model": LEASE.hex(), "part": "auctions"}], "sums": SUMS,
    }


@pytest.mark.parametrize("page", [{}, {"part": 1, "items": []}, {"part": "calls", "items": [1]}, {"part": "calls"}])
def test_a_page_in_another_form_is_a_typed_error(home: Path, page: dict[str, Any]) -> None:
    with serving(home, lambda talk, verb, args: talk.event("page", **page)), pytest.raises(Malformed):
        connect(home).market()


def test_earnings_take_a_division_and_an_ask(home: Path) -> None:
    with serving(home) as server:
        client = connect(home)
        assert "groups" not in client.earnings() and client.earnings("day")["groups"] == [{"day": "x", **SOLD}]
        assert client.earnings(ask_nanoton=0)["what_if"] == {**HINDSIGHT, "ask_nanoton": 0}
        asked = len(server.requests)
        for wrong in ({"by": "buyer"}, {"ask_nanoton": -1}, {"ask_nanoton": True}, {"ask_nanoton": 1 << 64}):
            with pytest.raises(UsageError):
                client.earnings(**wrong)  # type: ignore[arg-type]
        assert len(server.requests) == asked


def test_a_peer_that_ends_before_it_answers_has_stopped(home: Path) -> None:
    def ends(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        (home / "control.json").unlink()

    with serving(home, ends):
        assert connect(home).stop() == {"stopping": True}


def test_the_package_has_the_same_verbs(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOON_HOME", str(home))
    with serving(home):
        assert np.array_equal(cocoon.run(model, INPUTS).outputs["out_x"], INPUTS["x"])
        assert numbers(list(cocoon.map(model, many(3)))) == [0, 1, 2]
        assert len(cocoon.offers()) == 1
        assert cocoon.connect().home == cocoon.Client(home).home
