"""Gas and fees of every operation, measured: the table of docs/spec/escrow.md and docs/spec/anchor.md.

``python -m tests.tvm.gas`` prints both tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.ledger import anchor, escrow
from cocoon.wire import merkle, orders
from cocoon.wire.cells import Cell
from cocoon.wire.orders import TopUp
from tests.tvm.chain import TON, Chain, Result
from tests.tvm.parties import CAP, CARRIER, DAY_S, Escrow
from tests.tvm.story import BIRTH, receipts


@dataclass(frozen=True)
class Row:
    """One operation: what it took, and what the product reckons with."""

    what: str
    result: Result
    bound: int

    @property
    def text(self) -> str:
        """A line of the table; fees in million nanoton, at 400 nanoton per gas."""
        fee = self.result.burnt - self.result.storage
        return f"| {self.what} | {self.result.gas:,} | {self.bound:,} | {fee / 10**6:.2f} |"


HEADER = ("| operation | gas | bound | fee |", "|---|---|---|---|")


def escrow_rows() -> list[Row]:
    """With 1, 10 and 64 lanes."""
    one = Escrow(Chain())
    rows: list[Row] = []

    def row(what: str, result: Result, bound: int) -> None:
        assert result.ok, (what, result)
        rows.append(Row(what, result, bound))

    row("deploy, deposit and first lane in one message", one.deploy(), escrow.lanes_gas(1, 0))
    row("claim, first", one.claim(0, 10**7), escrow.claim_gas(0))
    row("claim, carried by another than the payout", one.claim(0, 2 * 10**7, source=CARRIER), escrow.claim_gas(0))
    row("external claim", one.external_claim(0, 6 * 10**7), _external_gas(0))
    row("top up", one.top_up(0, 2 * CAP), escrow.lanes_gas(1, 0))
    row("open one lane beside another", one.open(one.new([1])), escrow.lanes_gas(1, 1))
    one.deposit(20 * TON)
    row("open eight lanes", one.open(one.new(range(2, 10))), escrow.lanes_gas(8, 5))
    depth = one.state.depth
    row("claim among 10 lanes", one.claim(5, 10**7), escrow.claim_gas(depth))
    row("external claim among 10 lanes", one.external_claim(5, 6 * 10**7), _external_gas(depth))
    row("expire one of 10 lanes", one.expire([5]), escrow.lanes_gas(1, depth))
    row("open 54 lanes, 64 then", one.open(one.new(range(10, 64)), value=TON), escrow.lanes_gas(54, depth + 6))
    depth = one.state.depth
    row("claim among 64 lanes", one.claim(40, 10**7), escrow.claim_gas(depth))
    row("external claim among 64 lanes", one.external_claim(40, 6 * 10**7), _external_gas(depth))
    row("cooperative close among 64 lanes", one.close(40, 95 * 10**6), escrow.close_gas(depth))
    until = one.chain.now_s + 31 * DAY_S
    ups: list[orders.NewLane | TopUp] = [TopUp(i, 3 * CAP, until) for i in range(64) if i != 40]
    row("top up 63 lanes", one.open(ups, value=TON), escrow.lanes_gas(63, depth))
    row("expire 19 of 63 lanes", one.expire(list(range(19))), escrow.lanes_gas(19, depth))
    row("withdraw by order, with payload", one.withdraw(TON, Cell(5, orders.PAYLOAD_BITS)), escrow.GAS_WITHDRAW)
    row("cancel", one.send(orders.cancel_order(one.head())), escrow.lanes_gas(0, 0))
    row("expire all of 63 lanes", one.owner(escrow.expire_all_body(1), TON), escrow.lanes_gas(63, depth))
    row("withdraw by the owner", one.owner(escrow.owner_withdraw_body(1)), escrow.GAS_WITHDRAW)
    one.chain.now_s += DAY_S
    live = sorted(one.state.lanes)
    row("prune one of 63 lanes", one.prune(live[:1]), escrow.lanes_gas(1, depth))
    row("prune 28 of 62 lanes", one.prune(live[1:29]), escrow.lanes_gas(28, depth))
    one.prune(live[29:57])
    one.prune(live[57:-1])
    row("prune the last lane", one.prune(live[-1:]), escrow.lanes_gas(1, 0))
    alone = Escrow(Chain())
    alone.deploy()
    row("cooperative close of the only lane", alone.close(0, 10**7), escrow.close_gas(0))
    return rows


def _external_gas(depth: int) -> int:
    return escrow.GAS_EXTERNAL + escrow.GAS_LEVEL * depth


def anchor_rows() -> list[Row]:
    """First, in the steady state, and a proof among 10,000 receipts."""
    chain, rows = Chain(), []
    leaves = [bytes([number & 255, number >> 8]) * 16 for number in range(10_000)]

    def say(what: str, body: Cell, bound: int, value: int = TON // 50) -> None:
        init = BIRTH.state_init() if chain.status(BIRTH.address()) == "none" else None
        result = chain.internal(BIRTH.address(), value, body, source=BIRTH.owner, state_init=init)
        assert result.ok, (what, result)
        rows.append(Row(what, result, bound))

    for seq in range(1, 18):
        root, count = merkle.root(receipts(seq)), len(receipts(seq))
        if seq == 17:
            root, count = merkle.root(leaves), len(leaves)
        value = TON // 50 if seq < 3 else 4 * 10**6
        say(f"anchor, number {seq}", anchor.anchor_body(1, seq, root, count), anchor.GAS_ANCHOR, value)
    path = merkle.path(leaves, 9_999)
    body = anchor.prove_body(1, 17, leaves[9_999], 9_999, len(leaves), path)
    say(f"prove, {len(path)} steps", body, anchor.GAS_PROVE + anchor.GAS_PROVE_STEP * len(path))
    path = merkle.path(leaves, 0)
    body = anchor.prove_body(1, 17, leaves[0], 0, len(leaves), path)
    say(f"prove, {len(path)} steps", body, anchor.GAS_PROVE + anchor.GAS_PROVE_STEP * len(path))
    return [rows[0], rows[2], *rows[16:]]


def table(rows: list[Row]) -> str:
    """As the page has it."""
    return "\n".join((*HEADER, *(row.text for row in rows))) + "\n"


if __name__ == "__main__":
    print(table(escrow_rows()))
    print(table(anchor_rows()))
