"""A provider's counter (SCH-4) and its key of the day."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest

from cocoon.core.errors import ProviderBusy, WrongField
from cocoon.core.limits import OFFER_REFRESH_NS
from cocoon.core.values import replace
from cocoon.identity.keys import Identity, public_key
from cocoon.node.counter import OfferCounter
from cocoon.node.stock import Terms
from cocoon.privacy.hpke import public_bytes
from cocoon.scheduler.pace import Pace
from cocoon.scheduler.verification import verify_offer
from cocoon.wire.messages import OfferRequest, WarmModels
from cocoon.wire.schema import pack
from tests.unit.scheduler.builders import NETWORK, PROFILE


@dataclass
class Clock:
    """Stands still until a test moves it."""

    time_ns: int = 0

    def now_ns(self) -> int:
        return self.time_ns


@dataclass
class KeyFile:
    """An identity whose HPKE key a test can replace, as the first start of a new day does."""

    identity: Identity

    def read(self) -> Identity:
        return self.identity

    def next_day(self) -> None:
        old = self.identity
        self.identity = Identity(old.key, old.seed, os.urandom(96), old.hpke_day + 1)


def counter(clock: Clock, **more: Any) -> tuple[OfferCounter, KeyFile]:
    seed = os.urandom(32)
    keys = KeyFile(Identity(public_key(seed), seed, os.urandom(96), 1))
    return OfferCounter(keys.read, NETWORK, bytes(8), Terms(), PROFILE, clock, **more), keys


def ask(at: OfferCounter, keys: KeyFile) -> tuple[bytes, bytes]:
    """Digest of the offer and the sealing key, as a buyer verifies them."""
    reply = at._reply(OfferRequest(network=NETWORK, kind="infer"))
    quote = verify_offer(reply, NETWORK, keys.identity.key)
    return quote.digest, quote.sealing_key


def test_an_offer_carries_the_key_of_the_day_and_the_one_before_still_opens_boxes() -> None:
    clock = Clock()
    at, keys = counter(clock)
    yesterday, first_key = ask(at, keys)
    assert first_key == public_bytes(keys.identity.hpke)
    first_seed = keys.identity.hpke
    keys.next_day()
    assert ask(at, keys) == (yesterday, first_key), "an offer that is still fresh is not replaced"
    clock.time_ns += OFFER_REFRESH_NS
    today, second_key = ask(at, keys)
    assert today != yesterday and second_key == public_bytes(keys.identity.hpke)
    assert at.sealing_seeds == (keys.identity.hpke, first_seed)


def test_an_offer_tells_of_the_public_models_that_were_measured_and_the_list_must_fit() -> None:
    clock, pace, public = Clock(), Pace(), [b"b" * 32, b"a" * 32]
    at, keys = counter(clock, warm_models=lambda: pace.measured(public))
    asked = OfferRequest(network=NETWORK, kind="infer")
    first = at._reply(asked)
    assert first.warm == b"" and verify_offer(first, NETWORK, keys.identity.key).warm_models == ()
    for model, run_us in ((b"a" * 32, 3_500), (b"private" * 4 + b"...." , 9_000)):
        pace.ran(model, run_us)
    assert at._reply(asked) == first, "an offer that is still fresh is not replaced"
    clock.time_ns += OFFER_REFRESH_NS
    second = at._reply(asked)
    assert verify_offer(second, NETWORK, keys.identity.key).warm_models == ((b"a" * 32, 1, 3_500),)
    with pytest.raises(WrongField) as caught:
        verify_offer(replace(second, warm=pack(WarmModels(models=((b"a" * 32, 1, 1),)))), NETWORK, keys.identity.key)
    assert caught.value.code == "wrong_warm"


def test_an_owner_who_pauses_or_does_not_sell_at_this_hour_gives_no_offer() -> None:
    at, keys = counter(Clock())
    capacity = at.capacity
    assert at.standing() is not None and capacity.closed() is None
    capacity.paused = True
    for _ in range(2):
        assert at.standing() is None and isinstance(capacity.closed(), ProviderBusy)
        with pytest.raises(ProviderBusy):
            ask(at, keys)
        capacity.paused, capacity.in_hours = False, lambda: False
    capacity.in_hours = lambda: True
    assert ask(at, keys)
