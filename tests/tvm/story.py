"""One story with every kind of transaction and every refusal, recorded for the comparison of two TVMs."""

from __future__ import annotations

import dataclasses
import hashlib

from cocoon.devnet.faucet_code import faucet_code
from cocoon.ledger import anchor, escrow
from cocoon.wire import merkle, orders
from cocoon.wire.cells import Cell, CellBuilder, state_init
from tests.tvm.chain import TON, Chain, Step
from tests.tvm.parties import CAP, CARRIER, DAY_S, EMPTY, NETWORK, OWNER, Escrow, address, key, payout, provider, public

FAUCET_TAG = 0x0C0CFA01
BIRTH = anchor.AnchorBirth(payout(0), public(key("peer")), NETWORK)


def tell() -> list[Step]:
    """All steps, in order; the same bytes every time."""
    chain = Chain()
    one = Escrow(chain)
    one.deploy()
    _lanes(one)
    _claims(one)
    _orders(one)
    _closes(one)
    _owner(one)
    _time(one)
    _anchors(chain)
    _faucet(chain)
    chain.check_supply()
    return chain.steps


def _lanes(one: Escrow) -> None:
    one.deposit(20 * TON)
    one.deposit(TON, CellBuilder().uint(0, 32).blob(b"hi", 2).end())
    one.deposit(TON, escrow.top_up_body(1))
    one.open(one.new([1]))
    one.open(one.new(range(2, 10)))
    one.top_up(0, 2 * CAP)
    for lanes in (
        one.new([0]), one.new([200]), one.new([10], CAP // 10), one.new([10], life_s=0), one.new([10], 100 * TON),
        one.new([10], life_s=401 * DAY_S), one.new(range(10, 66), escrow.LANE_FLOOR_NANOTON),
    ):
        one.open(lanes, value=TON, label="refused: open")
    one.top_up(0, CAP, label="refused: top up")
    one.top_up(99, CAP, label="refused: top up")
    one.open(one.new([10]), value=5_600_000, label="refused: value")
    one.open(one.new([10]), value=3_000_000, label="refused: gas")


def _claims(one: Escrow) -> None:
    one.claim(0, 10**7)
    one.claim(0, 2 * 10**7, source=CARRIER)
    one.claim(5, 10**7)
    one.external_claim(5, 6 * 10**7)
    more = 3 * 10**7
    for lane, total, how in (
        (0, 2 * 10**7, {}), (0, 10**7, {}), (99, 1, {}), (0, 3 * CAP, {}), (0, more, {"escrow": OWNER}),
        (0, more, {"network_tag": 1}), (0, more, {"signer": key("x")}), (0, more, {"value": 4_000_000}),
    ):
        one.claim(lane, total, label="refused: claim", **how)
    voucher = one.voucher(1, 6 * 10**7)
    body = one.external_body(voucher)
    signed, signature = body.refs
    wide = Cell(signature.value << 511, signature.bits + 511)
    for bad in (
        one.external_body(voucher, key("x")), one.external_body(voucher, None, key("x")),
        one.external_body(one.voucher(1, 10**6)), Cell(body.value, body.bits, (*body.refs, EMPTY)),
        Cell(body.value << 479, body.bits + 479, (signed, wide)),
    ):
        assert not one.chain.external(one.address, bad, label="refused: external claim").accepted


def _orders(one: Escrow) -> None:
    one.expire([2])
    one.expire([3, 4, 5])
    one.withdraw(TON)
    one.withdraw(TON, Cell(5, 500))
    order = orders.cancel_order(one.head())
    one.send(order, label="cancel")
    now = one.chain.now_s
    heads = (
        {"number": 99}, {"valid_until_s": now}, {"valid_until_s": now + 86_401}, {"network_tag": 1}, {"escrow": OWNER},
    )
    for fields in heads:
        one.send(orders.cancel_order(one.head(**fields)), label="refused: order")
    one.send(order, label="refused: order")
    one.send(orders.cancel_order(one.head()), signer=key("x"), label="refused: order")
    one.withdraw(100 * TON, label="refused: withdraw")
    one.expire([99], label="refused: expire")


def _closes(one: Escrow) -> None:
    one.close(6, 9 * 10**7)
    one.close(7, 0)
    one.close(0, 10**7, label="refused: close")
    one.close(8, 2 * CAP, label="refused: close")
    one.close(8, 0, provider_key=None, label="refused: close")
    one.close(8, 0, provider_key=provider(1), label="refused: close")
    one.prune([2], label="refused: prune")


def _owner(one: Escrow) -> None:
    one.owner(escrow.owner_withdraw_body(1, TON))
    one.owner(escrow.owner_withdraw_body(1), source=CARRIER, label="refused: owner")
    one.owner(CellBuilder().uint(0x0C0C1009, 32).uint(1, 64).end(), label="refused: operation")
    one.owner(escrow.expire_all_body(1), value=TON)


def _time(one: Escrow) -> None:
    one.chain.now_s += DAY_S
    one.claim(1, 3 * 10**7, label="refused: claim")
    one.prune([1, 2, 3])
    one.prune([99], label="refused: prune")
    one.prune(sorted(one.state.lanes))
    one.owner(escrow.owner_withdraw_body(1))
    one.owner(escrow.owner_withdraw_body(1), label="refused: owner")
    one.chain.now_s += 3_652 * DAY_S
    one.deposit(TON, label="refused: the account was frozen by years of unpaid storage")


def receipts(seq: int) -> list[bytes]:
    """The digests of a batch."""
    return [hashlib.sha256(b"receipt %d of batch %d" % (number, seq)).digest() for number in range(seq + 2)]


def _anchors(chain: Chain) -> None:
    place, owner = BIRTH.address(), BIRTH.owner

    def say(body: Cell, value: int = TON // 50, source: bytes = owner, label: str = "anchor") -> None:
        init = BIRTH.state_init() if chain.status(place) == "none" else None
        chain.internal(place, value, body, source=source, state_init=init, label=label)

    for seq in range(1, 18):
        say(anchor.anchor_body(seq, seq, merkle.root(receipts(seq)), len(receipts(seq))))
        chain.now_s += 600
    leaves = receipts(17)
    for seq, leaf, index in ((17, leaves[3], 3), (17, leaves[18], 18), (17, leaves[3], 4), (1, leaves[3], 3)):
        path = merkle.path(leaves, index)
        label = "prove" if leaf == leaves[index] and seq == 17 else "refused: prove"
        say(anchor.prove_body(9, seq, leaf, index, len(leaves), path), source=CARRIER, label=label)
    say(anchor.anchor_body(1, 18, bytes(32), 1), source=CARRIER, label="refused: anchor")
    say(anchor.anchor_body(1, 20, bytes(32), 1), label="refused: anchor")
    say(anchor.anchor_body(1, 18, bytes(32), 0), label="refused: anchor")


def faucet_body(dest: bytes, amount: int) -> Cell:
    """Ask the faucet."""
    return CellBuilder().uint(FAUCET_TAG, 32).uint(7, 64).address(dest).coins(amount).end()


def _faucet(chain: Chain) -> None:
    init = state_init(faucet_code(), EMPTY)
    chain.internal(init.hash(), 5_000 * TON, EMPTY, state_init=init, label="faucet")
    chain.external(init.hash(), faucet_body(address("newcomer"), 1_000 * TON), label="faucet")
    for amount in (0, 1_000 * TON + 1):
        chain.external(init.hash(), faucet_body(address("newcomer"), amount), label="refused: faucet")


def summary(steps: list[Step]) -> list[dict[str, object]]:
    """What is committed of each step."""
    return [
        {
            "label": step.label, "exit_code": step.exit_code, "transaction": step.transaction,
            "account": step.account_after,
        }
        for step in steps
    ]


def as_input(config: str, steps: list[Step]) -> dict[str, object]:
    """What ``contracts/replay.mjs`` reads."""
    return {"config": config, "steps": [dataclasses.asdict(step) for step in steps]}
