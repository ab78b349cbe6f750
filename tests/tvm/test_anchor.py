"""The anchor and the faucet on the real TVM: who may, in which order, and what a proof shows."""

from __future__ import annotations

import pytest

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.limits import ANCHOR_RING
from cocoon.core.values import replace
from cocoon.devnet.faucet_code import faucet_code
from cocoon.ledger import anchor
from cocoon.wire import merkle
from cocoon.wire.cells import Cell, CellBuilder, state_init
from tests.tvm.chain import TON, Chain, Result
from tests.tvm.parties import CARRIER, EMPTY, NETWORK, OWNER, address, key, public
from tests.tvm.refusals import refused_outside
from tests.tvm.story import faucet_body, receipts

NOT_OWNER, SEQ, COUNT, NO_ROOT, PROOF, UNKNOWN = 101, 102, 103, 104, 105, 0xFFFF
OUT_OF_GAS = -14
#: Of the faucet; the last two are the compiler's own, for another operation and for a longer body.
PLACE, AMOUNT, OPERATION, LENGTH = 100, 101, 63, 9
BIRTH = anchor.AnchorBirth(OWNER, public(key("peer")), NETWORK)


@pytest.fixture
def chain() -> Chain:
    return Chain()


def say(chain: Chain, body: Cell, value: int = TON // 50, source: bytes = OWNER) -> Result:
    init = BIRTH.state_init() if chain.status(BIRTH.address()) == "none" else None
    result = chain.internal(BIRTH.address(), value, body, source=source, state_init=init)
    chain.check_supply()
    return result


def put(chain: Chain, seq: int, leaves: list[bytes]) -> Result:
    return say(chain, anchor.anchor_body(1, seq, merkle.root(leaves), len(leaves)))


def state(chain: Chain) -> anchor.AnchorState:
    return anchor.read_anchor(chain.data(BIRTH.address()))


def test_an_anchor_keeps_its_last_16_roots_and_a_chain_over_all(chain: Chain) -> None:
    links, expected = bytes(32), []
    for seq in range(1, 41):
        assert put(chain, seq, receipts(seq)).ok
        links = anchor.chained(links, seq, merkle.root(receipts(seq)), len(receipts(seq)))
        expected.append(anchor.AnchoredRoot(seq, merkle.root(receipts(seq)), len(receipts(seq)), chain.now_s))
        assert state(chain) == anchor.AnchorState(BIRTH, seq, links, tuple(expected[-ANCHOR_RING:]))
        chain.now_s += 600
    assert state(chain).owner == OWNER


def test_a_repeated_or_skipped_number_is_refused_so_that_a_crash_may_send_again(chain: Chain) -> None:
    assert put(chain, 1, receipts(1)).ok
    before = state(chain)
    for seq in (0, 1, 3):
        assert put(chain, seq, receipts(1)).exit_code == SEQ
    assert state(chain) == before
    assert put(chain, 2, receipts(2)).ok


def test_only_the_owner_anchors(chain: Chain) -> None:
    put(chain, 1, receipts(1))
    assert say(chain, anchor.anchor_body(1, 2, bytes(32), 1), source=CARRIER).exit_code == NOT_OWNER


def test_a_root_over_nothing_or_a_longer_message_is_refused(chain: Chain) -> None:
    put(chain, 1, receipts(1))
    assert say(chain, anchor.anchor_body(1, 2, bytes(32), 0)).exit_code == COUNT
    body = anchor.anchor_body(1, 2, bytes(32), 1)
    assert say(chain, Cell(body.value << 1, body.bits + 1)).exit_code == 9
    other = Cell(body.value ^ 1 << (body.bits - 32) << 4, body.bits)
    assert say(chain, other).exit_code == UNKNOWN


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 64, 100])
def test_every_receipt_of_a_batch_is_proven_and_nothing_else(chain: Chain, count: int) -> None:
    leaves = receipts(count)[:count] if count > 1 else receipts(0)[:1]
    assert put(chain, 1, leaves).ok
    for index in range(min(count, 20)):
        path = merkle.path(leaves, index)
        result = say(chain, anchor.prove_body(7, 1, leaves[index], index, count, path), source=CARRIER)
        (answer,) = result.outs
        assert (answer.dest, answer.body) == (CARRIER, anchor.proven_body(7, 1, leaves[index]))
        assert answer.value > TON // 50 - 10**7
        other = address("no receipt")
        assert say(chain, anchor.prove_body(7, 1, other, index, count, path)).exit_code == PROOF
        if path:
            wrong = [*path[:-1], other]
            assert say(chain, anchor.prove_body(7, 1, leaves[index], index, count, wrong)).exit_code == PROOF
    inner = merkle.node_hash(merkle.leaf_hash(leaves[0]), merkle.leaf_hash(leaves[-1]))
    assert say(chain, anchor.prove_body(7, 1, inner, 0, 1, [])).exit_code == PROOF


def test_a_root_that_left_the_ring_or_never_was_proves_nothing(chain: Chain) -> None:
    for seq in range(1, ANCHOR_RING + 2):
        put(chain, seq, receipts(seq))
    leaves = receipts(1)
    path = merkle.path(leaves, 0)
    for seq in (1, 0, 99):
        assert say(chain, anchor.prove_body(7, seq, leaves[0], 0, len(leaves), path)).exit_code == NO_ROOT
    leaves = receipts(2)
    assert say(chain, anchor.prove_body(7, 2, leaves[0], 0, len(leaves), merkle.path(leaves, 0))).ok


def test_a_path_of_another_length_than_its_index_implies_is_never_sent() -> None:
    with pytest.raises(UsageError, match="path"):
        anchor.prove_body(1, 1, bytes(32), 0, 4, [bytes(32)])


def test_what_an_anchor_does_not_need_returns(chain: Chain) -> None:
    assert put(chain, 1, receipts(1)).outs == ()
    assert say(chain, EMPTY, 5 * TON).outs == ()
    (back,) = put(chain, 2, receipts(2)).outs
    assert back.dest == OWNER and back.value > 5 * TON - 10**7
    assert chain.balance(BIRTH.address()) == anchor.RESERVE_NANOTON
    assert put(chain, 3, receipts(3)).outs == ()


def test_a_proof_is_paid_by_whoever_asks(chain: Chain) -> None:
    leaves = receipts(9)
    put(chain, 1, leaves)
    body = anchor.prove_body(7, 1, leaves[0], 0, len(leaves), merkle.path(leaves, 0))
    poor = say(chain, body, 10**6, CARRIER)
    assert (poor.exit_code, poor.delta, poor.outs) == (OUT_OF_GAS, 0, ())
    costs = set()
    for value in (3 * 10**6, 4 * 10**6, TON):
        result = say(chain, body, value, CARRIER)
        (answer,) = result.outs
        assert (result.exit_code, result.delta) == (0, 0)
        assert (answer.dest, answer.body) == (CARRIER, anchor.proven_body(7, 1, leaves[0]))
        costs.add(value - answer.value)
    assert len(costs) == 1, "whatever is not used returns"


def test_data_that_are_no_anchors_are_malformed(chain: Chain) -> None:
    put(chain, 1, receipts(1))
    data = chain.data(BIRTH.address())
    # Without its ring, and with another number of the newest root.
    for wrong in (Cell(data.value, data.bits), Cell(data.value ^ 1 << 257, data.bits, data.refs)):
        with pytest.raises(Malformed):
            anchor.read_anchor(wrong)
    for other in ({"owner": CARRIER}, {"peer": bytes(32)}, {"network_tag": 1}):
        assert replace(BIRTH, **other).address() != BIRTH.address()


# --- the faucet of a devnet ------------------------------------------------


def test_the_faucet_gives_to_anybody_up_to_a_thousand(chain: Chain) -> None:
    init = state_init(faucet_code(), EMPTY)
    faucet = init.hash()
    chain.internal(faucet, 5_000 * TON, EMPTY, state_init=init)
    for amount in (1, 1_000 * TON, 1_000 * TON, 1_000 * TON, 1_000 * TON):
        result = chain.external(faucet, faucet_body(OWNER, amount))
        assert [(sent.dest, sent.value) for sent in result.outs] == [(OWNER, amount)]
    for amount in (0, 1_000 * TON + 1):
        refused_outside(chain.external(faucet, faucet_body(OWNER, amount)), AMOUNT)
    assert 999 * TON < chain.balance(faucet) < 1_000 * TON  # of which it keeps one coin for itself
    refused_outside(chain.external(faucet, faucet_body(OWNER, 999 * TON)), AMOUNT)
    assert chain.external(faucet, faucet_body(OWNER, 998 * TON)).ok
    chain.check_supply()


def test_the_faucet_refuses_other_messages_and_places(chain: Chain) -> None:
    init = state_init(faucet_code(), EMPTY)
    chain.internal(init.hash(), 5_000 * TON, EMPTY, state_init=init)
    good = faucet_body(OWNER, TON)
    masterchain = CellBuilder().uint(0x0C0CFA01, 32).uint(1, 64).uint(0b100, 3).uint(0xFF, 8).blob(OWNER, 32).coins(TON)
    longer, other = Cell(good.value << 1, good.bits + 1), Cell(good.value ^ 1 << good.bits - 1, good.bits)
    for body, code in (
        (EMPTY, OPERATION), (longer, LENGTH), (other, OPERATION), (masterchain.end(), PLACE),
    ):
        refused_outside(chain.external(init.hash(), body), code)
