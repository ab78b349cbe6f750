"""One devnet for each module of tests."""

from __future__ import annotations

import pytest

from tests.adapters.devnet.devnet_process import running


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    with running(tmp_path_factory.mktemp("devnet") / "state") as running_devnet:
        yield running_devnet
