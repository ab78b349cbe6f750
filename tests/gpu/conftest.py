"""A card, or a skip that says in one line why there is none."""

import pytest
import trio

from bench.gpu import LIMITS, missing_card
from bench.packaged import packaged
from tests.workers import starting, writing

#: A card's first session compiles kernels.
PATIENCE_S = 600


@pytest.fixture(scope="session")
def found():
    """What a real worker with a real session says of this machine, and why it is no card."""
    return trio.run(missing_card)


@pytest.fixture
def card(found):
    """The report of a machine with a card; without one the test is skipped."""
    report, why = found
    if why:
        pytest.skip(f"LOUD SKIP: {why}")
    return report


@pytest.fixture(params=[model.name for model in packaged()])
def model(request):
    """One of the models; it is missing where `make` has not fetched it."""
    chosen = next(model for model in packaged() if model.name == request.param)
    try:
        chosen.read()
    except FileNotFoundError:
        pytest.skip(f"LOUD SKIP: no {chosen.name} below build; `make test` puts it there")
    return chosen


@pytest.fixture
async def start(tmp_path):
    """A function that starts one worker that uses the card; killed after the test."""
    async with starting(tmp_path, LIMITS, PATIENCE_S) as start:
        yield start


@pytest.fixture
def model_file(tmp_path):
    """A function that writes a model and returns its path."""
    return writing(tmp_path)
