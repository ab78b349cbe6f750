"""A provider's counter (SCH-4) and its key of the day."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cocoon.core.limits import OFFER_REFRESH_NS
from cocoon.identity.keys import Identity, public_key
from cocoon.node.counter import OfferCounter
from cocoon.node.stock import Terms
from cocoon.privacy.hpke import public_bytes
from cocoon.scheduler.verification import verify_offer
from cocoon.wire.messages import OfferRequest
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


def counter(clock: Clock) -> tuple[OfferCounter, KeyFile]:
    seed = os.urandom(32)
    keys = KeyFile(Identity(public_key(seed), seed, os.urandom(96), 1))
    return OfferCounter(keys.read, NETWORK, bytes(8), Terms(), PROFILE, clock), keys


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
