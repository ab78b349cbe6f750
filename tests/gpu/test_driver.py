"""RUN-38 with a real driver: a card tells its memory, and tells our worker from others."""

import os

import pytest

from cocoon.core.units import GIB
from cocoon.runtime.cards import find_card
from cocoon.runtime.processors import tree
from tests import models


@pytest.fixture
def driver(card):
    """The card as its driver tells of it."""
    found = find_card()
    assert found is not None and found.name == card.device
    return found


def test_memory_is_what_the_worker_says_and_some_of_it_is_free(driver):
    assert driver.memory_bytes > GIB
    assert 0 < driver.free_bytes() <= driver.memory_bytes


async def test_a_worker_of_ours_is_known_and_is_no_other(driver, start, model_file):
    worker = await start()
    await worker.load(model_file(models.adder_model()))
    told = driver.others_ppm(tree(os.getpid()))
    if told is None:
        pytest.skip("LOUD SKIP: this driver numbers processes in another way, as for a container")
    assert 0 <= told <= 1_000_000
