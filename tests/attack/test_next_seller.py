"""A seller that is preferred and sells nothing costs a requester no more than the next seller.

The hostile provider comes first in the ranking, because both are free and its
peer id is the lower one. Whatever it answers to the lease, the honest provider
beside it runs the task, and nothing is recorded that should not be.
"""

from __future__ import annotations

import pytest

from cocoon.node import records
from cocoon.wire.messages import LeaseClose, ModelOffer, ModelWant, Refusal
from cocoon.wire.schema import Message
from tests.attack.conftest import Choice, gained, tally
from tests.attack.hostile_provider import Talk, says

ANSWERS = ["corrupt", "audit_failed", "insufficient_funds", "no_such_code", "wrong_network", "released", "run_failed"]


@pytest.mark.parametrize("code", ANSWERS)
def test_a_refusal_of_a_lease_leads_to_the_next_seller(choice: Choice, code: str) -> None:
    before = tally(choice.requester.home)
    choice.hostile.greet = says(Refusal(code=code, text="your disk is broken"))
    choice.run()
    assert gained(choice.requester.home, before) == {
        records.LEASE_BOUGHT: 1, records.UNIT_ACCEPTED: 1, records.RECEIPT_ACCEPTED: 1,
    }


def test_a_seller_that_hangs_up_leads_to_the_next_one(choice: Choice) -> None:
    choice.hostile.greet = says()
    choice.run()


@pytest.mark.parametrize("word", [
    Refusal(code="corrupt", text="x"), LeaseClose(code="signer_lost"), ModelWant(file=0, first=0, count=9),
], ids=str)
def test_a_lease_that_is_agreed_on_and_comes_to_nothing_leads_to_the_next_seller(choice: Choice, word: Message) -> None:
    async def end(talk: Talk, offer: ModelOffer) -> None:
        await talk.link.send(word)

    choice.hostile.greet, choice.hostile.turns = None, {ModelOffer: end}
    choice.run()
