"""RUN-12, RUN-13 and RUN-14 on a card, through the real worker; skipped without one."""

import numpy as np
import pytest

from bench.gpu import LIMITS, PROFILE, farthest, inputs_of, noise, through_worker
from bench.packaged import packaged
from bench.plain import CUDA, plain
from cocoon.core.errors import MemoryExceeded
from cocoon.core.units import MIB
from cocoon.core.values import replace
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests import models

#: They have kernels on a card for every operator; the others may run wholly on the processor.
ON_CARD = ("magika", "minilm_int8", "transformer")
#: One run's memory above the limit of the card's arena below.
_LARGE_ITEMS = 64 * MIB // 4


@pytest.fixture(params=ON_CARD)
def on_card(request, card):
    """A model that must run on the card."""
    return next(model for model in packaged() if model.name == request.param)


async def test_a_session_runs_wholly_on_the_card(on_card):
    assert (await through_worker(on_card, inputs_of(on_card)[:2], gpu=True)).provider == CUDA


async def test_a_worker_gives_the_bits_of_a_plain_session_on_the_card_without_tf32(on_card):
    feeds = inputs_of(on_card)
    there = plain(on_card.read(), feeds, on_card.carried, provider=CUDA, settings=PROFILE)
    here = (await through_worker(on_card, feeds, gpu=True)).outputs
    assert [encode_tensors(outputs) for outputs in here] == [encode_tensors(outputs) for outputs in there]


async def test_two_sessions_on_one_card_give_the_same_bits(card, model):
    assert (await noise(model)).again == 0


async def test_the_card_answers_as_the_processor_does_but_for_rounding(card, model):
    found = await noise(model)
    assert found.card <= 1e-2, found


def test_buffers_on_the_card_change_no_bit(on_card):
    feeds = inputs_of(on_card)
    ways = [
        plain(on_card.read(), feeds, on_card.carried, provider=CUDA, settings=PROFILE, bound_on=device)
        for device in ("", "cuda")
    ]
    assert farthest(*ways) == 0


async def test_large_outputs_of_the_card_arrive_in_shared_memory(card, start, model_file):
    x = (np.arange(1_000_000) % 7 - 3).astype("f4")
    async with await start() as worker:
        assert (await worker.load(model_file(models.adder_model()))).provider == CUDA
        for _ in range(2):
            report = await worker.run(encode_tensors({"x": x}))
            assert decode_tensors(bytes(report.outputs))["y"].tobytes() == (x + 1).tobytes()


async def test_a_run_that_wants_more_of_the_card_than_its_limit_is_refused_and_the_worker_lives_on(
    card, start, model_file
):
    async with await start(replace(LIMITS, memory_bytes=32 * MIB)) as worker:
        assert (await worker.load(model_file(models.memory_bomb_by_input()))).provider == CUDA
        with pytest.raises(MemoryExceeded):
            await worker.run(encode_tensors(models.bomb_inputs(_LARGE_ITEMS)))
        report = await worker.run(encode_tensors(models.bomb_inputs(1_000)))
        assert decode_tensors(bytes(report.outputs))["y"] == 1_000


async def test_two_models_share_one_card_and_each_answers_as_if_alone(card, start, model_file):
    chosen = [model for model in packaged() if model.name in ("magika", "transformer")]
    alone = [(await through_worker(model, inputs_of(model)[:4], gpu=True)).outputs for model in chosen]
    workers = [await start() for _ in chosen]
    for worker, model in zip(workers, chosen, strict=True):
        assert (await worker.load(model_file(model.read(), f"{model.name}.onnx"))).provider == CUDA
    for turn in range(4):
        for worker, model, wanted in zip(workers, chosen, alone, strict=True):
            report = await worker.run(encode_tensors(inputs_of(model)[turn]))
            assert bytes(report.outputs) == encode_tensors(wanted[turn]), model.name


async def test_a_model_that_the_card_cannot_run_runs_on_the_processor_and_says_so(card, start, model_file):
    user = models.five_models()[4]
    async with await start() as worker:
        assert (await worker.load(model_file(user.model))).provider != CUDA
        assert (await worker.run(encode_tensors(user.inputs))).ran_us >= 0
