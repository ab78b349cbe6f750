"""The figures of a card: everything up to the first call of CUDA runs on any machine."""

import json

import pytest

from bench.gpu import PROFILE, Noise, farthest, inputs_of, noise, rows, through_worker, tolerance, write
from bench.packaged import packaged
from bench.plain import CPU, CUDA, plain
from cocoon.runtime.service import DeviceReport

SMALL = pytest.mark.parametrize("model", ["silero_vad", "int8_gates", "transformer"], indirect=True)


@pytest.mark.parametrize(
    ("measured", "allowed"),
    [(0, 0), (1e-6, 5e-6), (3.3e-6, 1e-5), (3.4e-6, 2e-5), (0.0001, 0.0005), (0.0143, 0.05), (0.1, 0.5), (0.3, 1)],
)
def test_a_tolerance_is_at_least_three_times_what_was_measured_and_a_round_number(measured, allowed):
    assert tolerance(measured) == allowed


@SMALL
async def test_the_figures_of_a_processor_against_itself_are_zero(model):
    found = await noise(model, gpu=False)
    assert (found.provider, found.card, found.again, found.tf32, found.tolerance) == (CPU, 0, 0, None, 0)


@SMALL
async def test_a_difference_is_found_wherever_it_hides(model):
    feeds = inputs_of(model)[:3]
    answers = (await through_worker(model, feeds, gpu=False)).outputs
    for name, array in answers[-1].items():
        changed = array.copy()
        changed.flat[-1] += 0.5
        assert farthest(answers, [*answers[:-1], {**answers[-1], name: changed}]) == pytest.approx(0.5)


@SMALL
def test_buffers_that_are_bound_change_no_bit(model):
    feeds = inputs_of(model)[:4]
    ways = [plain(model.read(), feeds, model.carried, bound_on=device) for device in ("", "cpu")]
    assert farthest(*ways) == 0


def test_a_session_that_fell_back_to_the_processor_is_no_figure_of_a_card(found):
    if not found[1]:
        pytest.skip("LOUD SKIP: this machine has a card")
    model = next(model for model in packaged() if model.name == "transformer")
    with pytest.raises(RuntimeError, match="plain ONNX Runtime failed"):
        plain(model.read(), model.inputs(1), provider=CUDA, settings=PROFILE)


def test_the_figures_are_written_with_the_cards_name(tmp_path):
    report = DeviceReport("onnxruntime 1.31.1", CUDA, "A Card (80 GB)", 1, "level=all", 1, "linux-x86_64", ())
    noises = [Noise("magika", CUDA, 2e-6, 0.0, 1e-3, 1e-5, 4200.0, 900.0), Noise("strings", CPU, 0, 0, None, 0, 1, 1)]
    path = write(report, noises, tmp_path)
    assert path.name == "a-card--80-gb.json"
    told = json.loads(path.read_text())
    assert told["device"] == report.device
    assert [(one["model"], one["tolerance"], one["tf32"]) for one in told["models"]] == [
        ("magika", 1e-5, 1e-3), ("strings", 0, None),
    ]
    assert [row.value for row in rows(noises)] == [
        "2.0e-06", "0.0e+00", "1.0e-03", "4200, 900 us", "0.0e+00", "0.0e+00", "none", "1, 1 us",
    ]
