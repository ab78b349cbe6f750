"""What both sides of a lease on a decoder hold to: its kind, its price by the token, and what it may still cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cocoon.config.settings import resolve
from cocoon.core.errors import CocoonError, KindRefused
from cocoon.core.ids import LeaseId, ModelId
from cocoon.core.machine import Event
from cocoon.core.values import replace
from cocoon.ledger.tab import Head
from cocoon.node.delivery import Delivery
from cocoon.node.models import HeldModel
from cocoon.node.peer import strategy_of
from cocoon.node.peer import terms_of as stock_of
from cocoon.node.purchase import Purchase
from cocoon.node.stock import Terms
from cocoon.scheduler.purchase import LeaseAgreed, ModelReady, Run, RunsOrdered
from cocoon.scheduler.selection import Measure
from cocoon.wire.commitment import commit
from cocoon.wire.generation import Ask, ask_tensors, said_tensors
from cocoon.wire.judged import Statement
from cocoon.wire.manifest import implicit, model_id
from cocoon.wire.messages import RunRequest, RunResult
from cocoon.wire.signing import sign
from cocoon.wire.tensors import encode_tensors
from tests.unit.ledger import parties
from tests.unit.scheduler import builders

SALT = bytes(16)
#: Billed as two tokens for its prompt, and at most eight for its answer.
ASKED = encode_tensors(ask_tensors(Ask(tuple(range(8)), 8)))
SAID = encode_tensors(said_tensors((1, 2, 3), bytes(32), "length", 3))
TEN = Measure(unit=5, most=10)


def bought(**changes: Any) -> Purchase:
    """A ready lease of 100 nanoton a token."""
    lease = sign(
        replace(parties.lease(paid=True).message, kind="generate", prices=((5, 100_000),), **changes), parties.REQUESTER
    )
    purse = SimpleNamespace(clock=SimpleNamespace(now_ns=lambda: 0), lease_idle_ns=1, treasury=None)
    link = SimpleNamespace(post=lambda said: None)
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    made = Purchase(
        cast(Any, purse), lease, Head(), cast(Any, None), cast(Any, link), model, 1 << 20, cast(Any, None)
    )
    for event in (LeaseAgreed(), ModelReady(load_us=1)):
        made._machine.handle(0, event)
    return made


def result(lease: Purchase, **changes: Any) -> RunResult:
    """What an honest provider answers to ``ASKED``: five units."""
    given, made = commit(SALT, ASKED), commit(SALT, SAID)
    statement = Statement(
        lease=lease.id, number=1, input_alg=given.alg, input=given.hash, output_alg=made.alg, output=made.hash,
        units=5, price_nanoton=lease.tally.tab.price_nanoton(5), queued_us=0, ran_us=1,
    )
    return RunResult(number=1, outputs=SAID, statement=replace(statement, **changes).pack())


def test_a_requester_counts_the_tokens_itself() -> None:
    lease = bought()
    lease._sent[1] = RunRequest(number=1, salt=SALT, inputs=ASKED)
    assert lease._verify(result(lease)).statement.units == 5


@pytest.mark.parametrize(("changes", "code"), [
    ({"units": 6, "price_nanoton": 600}, "wrong_units"), ({"price_nanoton": 600}, "wrong_price"),
    ({"units": 4, "price_nanoton": 400}, "wrong_units"),
])
def test_a_provider_that_counts_otherwise_is_not_believed(changes: dict[str, int], code: str) -> None:
    lease = bought()
    lease._sent[1] = RunRequest(number=1, salt=SALT, inputs=ASKED)
    with pytest.raises(CocoonError) as refused:
        lease._verify(result(lease, **changes))
    assert refused.value.code == code


def test_a_warm_lease_is_asked_for_no_more_than_its_ceiling_leaves() -> None:
    lease = bought(ceiling_nanoton=3_000, setup_nanoton=0, max_runs=100)
    assert lease.covers(3, TEN, None) and not lease.covers(4, TEN, None)
    lease._sent[1] = RunRequest(number=1, salt=SALT, inputs=ASKED)
    assert lease.covers(2, TEN, None) and not lease.covers(3, TEN, None), "a run that is out may come to ten tokens"
    task = cast(Any, bytes(16))
    lease._machine.handle(0, RunsOrdered((Run(task, 1, 1),)))
    lease._inputs[task, 1] = ASKED
    assert lease.covers(1, TEN, None) and not lease.covers(2, TEN, None), "and so may one that waits"


def test_a_warm_lease_is_within_what_the_task_may_cost() -> None:
    lease = bought(ceiling_nanoton=1_000_000, max_runs=100)
    setup = lease.tally.tab.terms.setup_nanoton
    assert lease.covers(3, TEN, 3_000 + setup) and not lease.covers(3, TEN, 2_999 + setup)
    assert lease.price(TEN).cost_nanoton(3) == setup + 3_000


# --- the provider ---------------------------------------------------------------


@pytest.mark.parametrize(("sold", "kind"), [("infer", "generate"), ("generate", "infer"), ("infer", "embed")])
async def test_a_model_is_run_only_on_a_lease_of_its_kind(sold: str, kind: str) -> None:
    manifest = replace(implicit(1, [bytes(32)]), kind=kind)
    lease = builders.lease(model=model_id(manifest), kind=sold)
    shop, named = SimpleNamespace(bids=SimpleNamespace(licence_refusal=lambda manifest: None), terms=Terms()), []

    async def post(event: Event) -> None:
        named.append(event)

    delivery = Delivery(cast(Any, shop), lease, LeaseId(bytes(32)), post, *[cast(Any, None)] * 2)
    with pytest.raises(KindRefused):
        await delivery.name(manifest)
    assert not named


@pytest.mark.parametrize(("run", "text", "token", "kinds", "prices"), [
    (0, 0, 0, ("embed", "generate", "infer"), ((1, 0), (3, 0), (5, 0))),
    (7, 2, 3, ("embed", "generate", "infer"), ((1, 7), (3, 2), (5, 3))),
    (0, 0, 3, ("embed", "generate", "infer"), ((1, 0), (3, 0), (5, 3))),
    (7, 2, 0, ("embed", "infer"), ((1, 7), (3, 2))),
    (7, 0, 3, ("generate", "infer"), ((1, 7), (5, 3))),
    (7, 0, 0, ("infer",), ((1, 7),)),
])
def test_tokens_are_never_given_away_because_only_runs_have_a_price(
    run: int, text: int, token: int, kinds: tuple[str, ...], prices: tuple[tuple[int, int], ...]
) -> None:
    flags = {
        "price_run_nanoton": str(run), "price_embed_token_nanoton": str(text), "price_token_nanoton": str(token),
    }
    settings = resolve(flags={"home": "/nowhere", **flags}).settings
    assert (stock_of(settings).kinds, stock_of(settings).prices) == (kinds, prices)
    assert (strategy_of(settings).kinds, strategy_of(settings).asks) == (kinds, prices)
