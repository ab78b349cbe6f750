"""A requester that brings its lane's end forward in mid lease gets no more runs than it pays for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.core import limits
from cocoon.core.errors import CocoonError, LaneClosing
from tests.loopback.paid import inputs, market, paid_for, until

#: Above the client's window: half of the units are still here when the lane's end is brought forward.
UNITS = 2 * limits.CLIENT_WINDOW_UNITS


def test_a_lane_whose_end_is_brought_forward_takes_no_more_runs_and_is_claimed(tmp_path: Path) -> None:
    # Set-up is dear, so that what is due is worth a claim.
    with market(tmp_path, price_run_nanoton="100000000", price_setup_nanoton="50000000") as here:
        answered = 0
        with pytest.raises(CocoonError) as caught:
            for _ in here.buyer.map(here.model(), inputs(UNITS)):
                if not answered:
                    # The owner's own message: every lane ends after the close delay.
                    here.buyer.recover()
                    until(lambda: LaneClosing.code in here.provider.log(), "the end of the lease")
                answered += 1
        assert caught.value.code == LaneClosing.code
        assert 0 < answered < UNITS
        until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the settled lease")
        paid_for(here)
        here.seller.settle()
        earned = here.seller.earnings()
        assert earned["claimed_nanoton"] == earned["earned_nanoton"] >= 50_000_000 + answered * 100_000, earned
        assert earned["lost_nanoton"] == 0
        assert here.buyer.audit()["clean"] and here.seller.audit()["clean"]
