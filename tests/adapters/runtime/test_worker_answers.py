"""RUN-9 to RUN-13: honest models give the bits of a plain ONNX Runtime run, and the truth is told."""

import numpy as np
import pytest
import trio

from bench.plain import plain
from cocoon.core.errors import (
    InputsMismatch,
    LimitExceeded,
    Malformed,
    RunFailed,
    UsageError,
)
from cocoon.core.limits import ALIGNMENT_BYTES, BATCH_RUNS, PAYLOAD_BYTES
from cocoon.core.values import replace
from cocoon.runtime.service import probe_device
from cocoon.wire.layout import largest_raw
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests import models
from tests.adapters.runtime.conftest import LIMITS, run_tensors


async def test_five_user_models_give_the_bits_of_a_plain_run(start, model_file):
    for user in models.five_models():
        async with await start() as worker:
            await worker.load(model_file(user.model))
            report = await worker.run(encode_tensors(user.inputs))
            assert report.outputs == encode_tensors(*plain(user.model, [user.inputs], threads=2)), user.name


async def test_bits_do_not_depend_on_where_the_inputs_lie_in_their_message(start, model_file):
    rng = np.random.default_rng(7)
    user = models.five_models()[0]
    image = rng.standard_normal((1, 3, 33, 41), dtype="f4")
    async with await start() as worker:
        await worker.load(model_file(user.model))
        first = await run_tensors(worker, {"image": image})
        again = await run_tensors(worker, {"image": np.ascontiguousarray(image[..., ::-1])[..., ::-1]})
    assert first["score"].tobytes() == again["score"].tobytes()


async def test_trailing_nuls_of_strings_survive_both_ways(start, model_file):
    user = models.five_models()[4]
    async with await start() as worker:
        await worker.load(model_file(user.model))
        outputs = await run_tensors(worker, user.inputs)
    assert outputs["echo"].tolist() == user.inputs["word"].tolist()
    assert outputs["code"].tolist() == [2, -1, 3, -1, -1, -1, 1]


async def test_a_load_reports_what_the_model_takes_and_gives(start, model_file):
    async with await start() as worker:
        report = await worker.load(model_file(models.affine_model()))
    assert [str(spec) for spec in report.inputs] == ["x float32 (n, 4)", "b float32 (3,)"]
    assert [str(spec) for spec in report.outputs] == ["y float32 (n, 3)"]
    assert report.provider == worker.device.provider and report.load_us > 0


async def test_a_function_of_the_model_runs(start, model_file):
    async with await start() as worker:
        await worker.load(model_file(models.local_function_model()))
        outputs = await run_tensors(worker, {"x": np.arange(4, dtype="f4")})
    assert outputs["y"].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    "change",
    [
        {"b": None},
        {"c": np.ones(1, "f4")},
        {"x": np.ones((2, 4), "f8")},
        {"x": np.ones((2, 5), "f4")},
        {"x": np.ones(4, "f4")},
        {"x": np.array(["text"], dtype=object)},
    ],
    ids=["missing", "unknown", "dtype", "axis", "rank", "string"],
)
async def test_wrong_inputs_are_refused_and_the_worker_lives_on(start, model_file, change):
    good = models.affine_inputs()
    bad = {name: array for name, array in (good | change).items() if array is not None}
    async with await start() as worker:
        await worker.load(model_file(models.affine_model()))
        with pytest.raises(InputsMismatch, match=r"the model takes x float32 \(n, 4\), b float32 \(3,\)"):
            await run_tensors(worker, bad)
        assert (await run_tensors(worker, good))["y"].shape == (2, 3)


async def test_values_that_an_operator_rejects_are_the_inputs_fault(start, model_file):
    x = np.ones(3, "f4")
    async with await start() as worker:
        await worker.load(model_file(models.failing_model()))
        with pytest.raises(RunFailed, match="the model failed on these inputs"):
            await run_tensors(worker, {"x": x, "i": np.array([99])})
        assert (await run_tensors(worker, {"x": x, "i": np.array([2])}))["y"].tolist() == [1]


async def test_bytes_that_are_no_tensors_are_refused_and_the_worker_lives_on(start, model_file):
    async with await start() as worker:
        await worker.load(model_file(models.adder_model()))
        with pytest.raises(Malformed):
            await worker.run(b"\x91\x00")
        assert (await run_tensors(worker, {"x": np.zeros(1, "f4")}))["y"].tolist() == [1]


async def test_inputs_and_outputs_above_the_payload_limit_are_refused(start, model_file):
    wide = models.wide_output_model(items=PAYLOAD_BYTES // 4 + 1)
    async with await start() as worker:
        await worker.load(model_file(wide))
        with pytest.raises(LimitExceeded, match="the inputs take"):
            await worker.run(bytes(PAYLOAD_BYTES + 1))
        with pytest.raises(LimitExceeded, match="the outputs take"):
            await run_tensors(worker, {"x": np.ones(1, "f4")})


async def test_a_worker_serves_one_model_and_only_after_its_load(start, model_file):
    path = model_file(models.adder_model())
    async with await start() as worker:
        with pytest.raises(UsageError):
            await worker.run(encode_tensors({}))
        await worker.load(path)
        with pytest.raises(UsageError):
            await worker.load(path)


async def test_the_device_report_is_what_a_real_session_said():
    report = await probe_device(LIMITS)
    assert report.engine.startswith("onnxruntime 1.")
    assert report.provider in ("CPUExecutionProvider", "CUDAExecutionProvider")
    assert report.device and report.memory_bytes > 0 and report.threads == LIMITS.threads
    assert "level=all" in report.optimisation and "-" in report.platform


async def test_large_tensors_lie_where_kernels_like_it_and_come_back_whole(start, model_file):
    x = (np.arange(100_000) % 7 - 3).astype("f4")                     # sums are exact
    payload = encode_tensors({"x": x})
    async with await start() as worker:
        await worker.load(model_file(models.four_outputs_model()))
        report = await worker.run(payload)
        outputs = decode_tensors(report.outputs)
        span, room = worker.room(len(payload), largest_raw(payload))
        assert np.frombuffer(room[largest_raw(payload) :], np.uint8).ctypes.data % ALIGNMENT_BYTES == 0
    assert outputs["b"].ctypes.data % ALIGNMENT_BYTES == 0
    assert (outputs["a"], outputs["b"].tolist(), outputs["c"].tolist()) == (x.sum(), (-x).tolist(), (x > 0).tolist())
    assert outputs["d"].tolist() == x.astype("i2").tolist()
    assert bytes(report.outputs) == encode_tensors(outputs)


@pytest.mark.parametrize("axis", ["m", "n"])
async def test_a_model_may_give_another_shape_than_it_says(start, model_file, axis):
    x = np.arange(40_000, dtype="f4")
    async with await start() as worker:
        await worker.load(model_file(models.mirror_model(axis)))
        for items in (40_000, 3, 40_000):
            outputs = await run_tensors(worker, {"x": x[:items]})
            assert outputs["y"].tolist() == [*range(items)] * 2


async def test_inputs_of_many_forms_are_told_apart(start, model_file):
    async with await start() as worker:
        await worker.load(model_file(models.adder_model()))
        for items in [*range(1, 70), 3, 1, 20_000, 3]:
            outputs = await run_tensors(worker, {"x": np.full(items, items, "f4")})
            assert outputs["y"].tolist() == [items + 1] * items


async def test_runs_that_are_asked_at_once_wait_for_each_other(start, model_file):
    async with await start() as worker:
        await worker.load(model_file(models.adder_model()))
        found = {}

        async def ask(number):
            report = await worker.run(encode_tensors({"x": np.full(3, number, "f4")}))
            found[number] = decode_tensors(bytes(report.outputs))["y"].tolist()

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
    assert found == {number: [number + 1] * 3 for number in range(20)}


async def test_runs_of_one_order_are_answered_each_and_in_order(start, model_file):
    payloads = [encode_tensors({"x": np.full(3, number, "f4")}) for number in range(BATCH_RUNS)]
    payloads[1] = encode_tensors({"y": np.zeros(3, "f4")})
    async with await start() as worker:
        await worker.load(model_file(models.adder_model()))
        reports = await worker.run_all(payloads)
        assert isinstance(reports[1], InputsMismatch) and len(reports) == BATCH_RUNS
        answers = [decode_tensors(report.outputs)["y"][0] for number, report in enumerate(reports) if number != 1]
        with pytest.raises(LimitExceeded):
            await worker.run_all([*payloads, payloads[0]])
    assert answers == [number + 1 for number in range(BATCH_RUNS) if number != 1]


async def test_an_order_whose_outputs_find_no_room_ends_before_the_first_of_them(start, model_file):
    large = encode_tensors({"x": np.zeros(PAYLOAD_BYTES // 4 - 64, "f4")})
    small = encode_tensors({"x": np.zeros(3, "f4")})
    async with await start(replace(LIMITS, memory_bytes=1 << 30)) as worker:
        await worker.load(model_file(models.mirror_model()))
        half = encode_tensors({"x": np.zeros(PAYLOAD_BYTES // 8 - 64, "f4")})
        assert len(await worker.run_all([small, half, small])) == 3
        assert len(await worker.run_all([small, small])) == 2
        with pytest.raises(LimitExceeded, match="the inputs of one order take"):
            await worker.run_all([large, half])
        wide = encode_tensors({"x": np.zeros(PAYLOAD_BYTES // 16, "f4")})
        assert len(await worker.run_all([wide, wide, wide, small])) == 2, "two of them fill the outputs"
