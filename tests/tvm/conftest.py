"""What the tests on the real TVM share."""

from __future__ import annotations

import pytest

from tests.tvm.chain import Chain
from tests.tvm.parties import Escrow


@pytest.fixture
def one() -> Escrow:
    """An escrow with one lane of a tenth of a TON."""
    made = Escrow(Chain())
    made.deploy()
    return made
