"""The outbox, rule by rule (OUT-1 to OUT-8), and in any weather."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cocoon.core.errors import Corrupt, LimitExceeded
from cocoon.core.limits import (
    OUTBOX_ITEMS,
    OUTBOX_RESEND_NS,
    SIGNATURE_DEFAULT_S,
    SIGNER_CELLS,
    SIGNER_FRAME_BYTES,
    WALLET_RESERVE_NANOTON,
)
from cocoon.core.values import replace
from cocoon.ledger.onchain import OutMessage, Transaction
from cocoon.ledger.outbox import (
    EndPlace,
    MessageQueued,
    MessageSigned,
    Outbox,
    SendExternal,
    SigningLost,
    SigningRefused,
    SignMessage,
    WalletSeen,
)
from cocoon.ledger.rows import EndedRow, Failure, NameRow, QueuedRow, Sent, SignedRow
from cocoon.ledger.wallet import Outgoing, signed_body, unsigned_transfer
from cocoon.wire.cells import Cell
from cocoon.wire.codec import encode

RICH = 10**15
NOW = 1_800_000_000
DEST = bytes(range(32))


def queued(place: int, value: int = 5, body: Cell | None = None) -> QueuedRow:
    return QueuedRow(place, b"key %d" % place, Outgoing(DEST, value, body))


def seen(
    seqno: int = 0, at_s: int = NOW, balance: int = RICH, last_lt: int = 0, transactions: tuple[Transaction, ...] = ()
) -> WalletSeen:
    return WalletSeen(seqno, balance, last_lt, at_s, transactions)


def sign(order: SignMessage) -> SignedRow:
    unsigned = unsigned_transfer(-3, order.seqno, order.valid_until_s, [order.message])
    body = signed_body(unsigned, order.attempt.to_bytes(64, "big"))
    return SignedRow(order.place, order.attempt, order.seqno, order.valid_until_s, order.after_lt, body)


def executed(row: SignedRow, message: Outgoing | None, lt: int = 7) -> Transaction:
    """The wallet's transaction; ``message`` None if its balance did not cover it."""
    outs = () if message is None else (
        OutMessage(message.dest, message.value_nanoton, 1, message.body or Cell(0, 0), False),
    )
    return Transaction(
        bytes(32), lt, lt.to_bytes(32, "big"), NOW, 3, None, 0, bytes(32), row.body, False, outs, 0, True
    )


def under_way(message: QueuedRow | None = None) -> tuple[Outbox, SignedRow]:
    outbox = Outbox()
    outbox.handle(0, MessageQueued(message or queued(1)))
    [order] = outbox.handle(0, seen())
    row = sign(order)
    [sending] = outbox.handle(0, MessageSigned(row))
    assert sending == SendExternal(row.body, deploy=True)
    return outbox, row


def test_an_idle_outbox_orders_nothing():
    outbox = Outbox()
    assert not outbox.busy and not outbox.under_way
    assert outbox.handle(0, seen()) == []
    assert outbox.deadline_ns() is None


def test_nothing_is_sent_before_its_signature_is_in_the_journal():
    outbox = Outbox()
    assert outbox.handle(0, MessageQueued(queued(1))) == []
    [order] = outbox.handle(0, seen(seqno=4, last_lt=99))
    assert order == SignMessage(1, 0, 4, NOW + SIGNATURE_DEFAULT_S, 99, queued(1).message)
    assert outbox.handle(0, seen(seqno=4)) == []  # not twice either
    row = sign(order)
    assert outbox.handle(0, MessageSigned(row)) == [SendExternal(row.body, deploy=False)]
    assert SendExternal.durable and EndPlace.durable


def test_a_message_that_left_in_the_wallets_transaction_is_sent():
    outbox, row = under_way()
    transaction = executed(row, queued(1).message)
    [end] = outbox.handle(0, seen(seqno=1, transactions=(transaction,)))
    assert end == EndPlace(EndedRow(1, b"key 1", Sent(transaction.hash, 7, NOW)))
    assert not outbox.busy


def test_a_transaction_of_the_wallet_without_the_message_is_a_failure():
    """The contract must skip what the balance does not cover; its sequence number is used all the same."""
    outbox, row = under_way()
    [end] = outbox.handle(0, seen(seqno=1, transactions=(executed(row, None),)))
    assert isinstance(end.row.outcome, Failure) and end.row.outcome.code == "insufficient_funds"


@pytest.mark.parametrize(
    "other", [Outgoing(DEST, 6), Outgoing(DEST[::-1], 5), Outgoing(DEST, 5, Cell(1, 1))]
)
def test_another_message_in_the_transaction_is_not_taken_for_ours(other):
    outbox, row = under_way()
    [end] = outbox.handle(0, seen(seqno=1, transactions=(executed(row, other),)))
    assert isinstance(end.row.outcome, Failure)


def test_a_stranger_who_sends_our_body_as_an_internal_message_proves_nothing():
    outbox, row = under_way()
    forged = replace(executed(row, queued(1).message), in_source=DEST)
    assert outbox.handle(1, seen(transactions=(forged,))) == []
    assert outbox.under_way


def test_the_same_bytes_are_sent_again_but_not_at_once():
    outbox, row = under_way()
    assert outbox.handle(OUTBOX_RESEND_NS - 1, seen()) == []
    assert outbox.handle(OUTBOX_RESEND_NS, seen()) == [SendExternal(row.body, deploy=True)]
    assert outbox.handle(2 * OUTBOX_RESEND_NS - 1, seen()) == []


def test_a_number_that_another_message_used_leads_to_the_next_one():
    outbox, row = under_way()
    [order] = outbox.handle(0, seen(seqno=1, last_lt=20))
    assert (order.seqno, order.attempt, order.after_lt) == (1, 1, 20)


def test_a_signature_lives_until_the_chains_time_is_past_its_valid_until():
    outbox, row = under_way()
    late = seen(at_s=row.valid_until_s)
    assert not any(isinstance(e, SignMessage) for e in outbox.handle(OUTBOX_RESEND_NS, late))
    [order] = outbox.handle(OUTBOX_RESEND_NS, seen(at_s=row.valid_until_s + 1))
    assert (order.seqno, order.attempt) == (0, 1)
    assert order.valid_until_s == row.valid_until_s + 1 + SIGNATURE_DEFAULT_S


def test_messages_leave_in_their_order_one_at_a_time():
    outbox = Outbox()
    for place in (1, 2):
        outbox.handle(0, MessageQueued(queued(place)))
    [order] = outbox.handle(0, seen())
    assert order.place == 1
    row = sign(order)
    outbox.handle(0, MessageSigned(row))
    [end] = outbox.handle(0, seen(seqno=1, transactions=(executed(row, order.message),)))
    assert end.row.place == 1
    [order] = outbox.handle(0, seen(seqno=1, last_lt=7))
    assert (order.place, order.attempt, order.seqno) == (2, 0, 1)


def test_a_wallet_that_is_short_gives_the_message_up_and_takes_the_next():
    outbox = Outbox()
    outbox.handle(0, MessageQueued(queued(1, value=100)))
    outbox.handle(0, MessageQueued(queued(2, value=5)))
    effects = outbox.handle(0, seen(balance=WALLET_RESERVE_NANOTON + 99))
    [end, order] = effects
    assert end.row.place == 1 and end.row.outcome.code == "insufficient_funds"
    assert "0.000000099 TON" not in end.row.outcome.text and "0.0000001 TON" in end.row.outcome.text
    assert order.place == 2


def test_a_wallet_without_coins_gives_up_all_that_may_wait():
    outbox = Outbox()
    for place in range(1, OUTBOX_ITEMS + 1):
        outbox.handle(0, MessageQueued(queued(place)))
    effects = outbox.handle(0, seen(balance=0))
    assert [end.row.place for end in effects] == list(range(1, OUTBOX_ITEMS + 1))
    assert {end.row.outcome.code for end in effects} == {"insufficient_funds"}
    assert not outbox.busy


def test_what_the_signer_refuses_is_given_up():
    outbox = Outbox()
    outbox.handle(0, MessageQueued(queued(1)))
    outbox.handle(0, seen())
    [end] = outbox.handle(0, SigningRefused(1, Failure("cap_exceeded", "no")))
    assert end.row.outcome == Failure("cap_exceeded", "no")
    assert not outbox.busy


def test_a_signature_that_was_not_recorded_is_made_again():
    outbox = Outbox()
    outbox.handle(0, MessageQueued(queued(1)))
    outbox.handle(0, seen())
    assert outbox.handle(0, SigningLost(1)) == []
    [order] = outbox.handle(0, seen())
    assert order.attempt == 0


def test_facts_about_another_place_change_nothing():
    outbox, row = under_way()
    for event in (SigningRefused(2, Failure("a", "b")), SigningLost(1), MessageSigned(replace(row, place=2))):
        assert outbox.handle(0, event) == []
    assert outbox.under_way


def test_a_restored_outbox_sends_the_recorded_bytes_again_and_signs_nothing():
    _, row = under_way()
    outbox = Outbox.restored([queued(1)], row)
    assert outbox.after_lt == row.after_lt
    assert outbox.handle(0, seen()) == [SendExternal(row.body, deploy=True)]


def test_a_restored_outbox_finds_what_was_executed_meanwhile():
    _, row = under_way()
    outbox = Outbox.restored([queued(1), queued(2)], row)
    [end] = outbox.handle(0, seen(seqno=1, transactions=(executed(row, queued(1).message),)))
    assert isinstance(end.row.outcome, Sent)


def test_a_signature_without_its_message_is_corrupt():
    _, row = under_way()
    for rows in ([], [queued(2)]):
        with pytest.raises(Corrupt):
            Outbox.restored(rows, row)


def test_the_outbox_is_bounded():
    outbox = Outbox()
    for place in range(OUTBOX_ITEMS):
        outbox.handle(0, MessageQueued(queued(place)))
    with pytest.raises(LimitExceeded):
        outbox.handle(0, MessageQueued(queued(OUTBOX_ITEMS)))


def test_rows_read_back():
    _, row = under_way()
    body, state = Cell(5, 9, (Cell(1, 2),)), Cell(7, 3)
    for message in (Outgoing(DEST, 2**63, body, state, False), Outgoing(DEST, 0)):
        found = QueuedRow(3, b"x", message)
        assert QueuedRow.unpack(found.pack()) == found
    assert SignedRow.unpack(row.pack()) == row
    assert NameRow.unpack(NameRow(2, 9).pack()) == NameRow(2, 9)
    for outcome in (Sent(bytes(32), 4, NOW), Failure("cap_exceeded", "text")):
        assert EndedRow.unpack(EndedRow(1, b"k", outcome).pack()) == EndedRow(1, b"k", outcome)


def chained(cells: int, bits: int) -> Cell:
    """So many different cells, each under the one before it."""
    cell = Cell(0, bits)
    for number in range(1, cells):
        cell = Cell(number, bits, (cell,))
    return cell


def test_a_message_that_would_not_read_back_has_no_row():
    many, long, half = chained(SIGNER_CELLS + 1, 32), chained(SIGNER_CELLS, 1_023), chained(SIGNER_CELLS // 2, 1_023)
    assert QueuedRow(1, b"k", Outgoing(DEST, 5, half)).pack()
    for body, state in ((many, None), (None, many), (long, None), (half, half)):
        with pytest.raises(LimitExceeded, match="larger"):
            QueuedRow(1, b"k", Outgoing(DEST, 5, body, state)).pack()


ROW_TYPES = [NameRow, QueuedRow, SignedRow, EndedRow]


def packed(row_type) -> bytes:
    """A lawful body of each kind of row."""
    _, signed = under_way()
    lawful = {
        NameRow: NameRow(0, 1), QueuedRow: queued(1, body=Cell(1, 2)), SignedRow: signed,
        EndedRow: EndedRow(1, b"k", Sent(bytes(32), 4, NOW)),
    }
    return lawful[row_type].pack()


@pytest.mark.parametrize("row_type", ROW_TYPES)
@pytest.mark.parametrize(
    "value", [5, "text", [], [1], ["a", "b"], [1, 2, 3], [1, b"k", []], [1, b"k", [b""] * 5], [1, 0, 0, 0, 0, b"bag"],
              [True, 1], {}, b"x" * (2 * SIGNER_FRAME_BYTES)],
)
def test_a_row_of_another_form_is_corrupt_and_nobody_elses_fault(row_type, value):
    with pytest.raises(Corrupt):
        row_type.unpack(encode(value))


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_a_row_that_ends_early_or_late_is_corrupt(row_type):
    body = packed(row_type)
    for torn in [body[:at] for at in range(len(body))] + [body + b"\x00"]:
        with pytest.raises(Corrupt):
            row_type.unpack(torn)


@pytest.mark.parametrize("row_type", ROW_TYPES)
@given(data=st.data())
def test_a_row_with_a_damaged_byte_reads_as_a_row_or_is_corrupt(row_type, data):
    body = bytearray(packed(row_type))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        assert isinstance(row_type.unpack(bytes(body)), row_type)
    except Corrupt:
        pass


class OutboxInAnyWeather(RuleBasedStateMachine):
    """A wallet that executes what is delivered; deliveries are lost, late, twice; peers die; strangers sign too."""

    @initialize()
    def begin(self):
        self.now_ns = 0
        self.at_s, self.seqno, self.balance, self.lt = NOW, 0, 10**9, 0
        self.transactions: list[Transaction] = []
        self.executions: dict[bytes, int] = {}
        self.network: list[Cell] = []
        self.journal: list[QueuedRow | SignedRow | EndedRow] = []
        self.meaning: dict[bytes, tuple[QueuedRow, SignedRow]] = {}
        self.outbox, self.place = Outbox(), 0

    def take(self, event, dies_after=99):
        """Feed the machine; the peer may die after any number of durable steps."""
        todo = self.outbox.handle(self.now_ns, event)
        steps = 0
        while todo:
            effect = todo.pop(0)
            if steps >= dies_after:
                self.restart()
                return
            steps += 1
            if isinstance(effect, SignMessage):
                row = sign(effect)
                self.journal.append(row)
                self.meaning[row.body.hash()] = (self.row(effect.place), row)
                if steps >= dies_after:  # between row and send
                    self.restart()
                    return
                todo += self.outbox.handle(self.now_ns, MessageSigned(row))
            elif isinstance(effect, SendExternal):
                assert any(isinstance(r, SignedRow) and r.body == effect.body for r in self.journal)
                self.network.append(effect.body)
            elif isinstance(effect, EndPlace):
                self.journal.append(effect.row)

    def row(self, place):
        return next(r for r in self.journal if isinstance(r, QueuedRow) and r.place == place)

    @rule(value=st.integers(1, 10**8))
    def queue(self, value):
        self.place += 1
        row = queued(self.place, value, Cell(self.place, 32))
        self.journal.append(row)
        self.take(MessageQueued(row))

    @rule(dies_after=st.integers(0, 4))
    def look(self, dies_after):
        after = self.outbox.after_lt
        found = tuple(t for t in self.transactions if after is not None and t.lt > after)
        state = WalletSeen(self.seqno, self.balance, self.lt, self.at_s, found)
        self.take(state, dies_after if dies_after < 4 else 99)

    @rule(data=st.data())
    def deliver(self, data):
        """The wallet contract's own rules: the right number, not too late, once."""
        if not self.network:
            return
        body = data.draw(st.sampled_from(self.network))
        message, row = self.meaning[body.hash()]
        if row.seqno != self.seqno or self.at_s >= row.valid_until_s:
            return
        self.seqno, self.lt = self.seqno + 1, self.lt + 1
        covered = self.balance >= message.message.value_nanoton
        if covered:
            self.balance -= message.message.value_nanoton
            self.executions[message.key] = self.executions.get(message.key, 0) + 1
        self.transactions.append(executed(row, message.message if covered else None, self.lt))

    @rule()
    def another_device_uses_the_number(self):
        self.seqno, self.lt = self.seqno + 1, self.lt + 1

    @rule(amount=st.integers(-(10**9), 10**9))
    def the_owner_moves_coins(self, amount):
        self.balance = max(0, self.balance + amount)

    @rule(step_s=st.integers(1, 2 * SIGNATURE_DEFAULT_S))
    def time_passes(self, step_s):
        self.at_s += step_s
        self.now_ns += step_s * 10**9

    @rule()
    def restart(self):
        ended = {r.place for r in self.journal if isinstance(r, EndedRow)}
        open_rows = [r for r in self.journal if isinstance(r, QueuedRow) and r.place not in ended]
        signed = [
            r for r in self.journal
            if isinstance(r, SignedRow) and open_rows and r.place == open_rows[0].place
        ]
        self.outbox = Outbox.restored(open_rows, max(signed, key=lambda r: r.attempt, default=None))

    @invariant()
    def nothing_is_executed_twice_or_after_it_was_given_up(self):
        assert all(count == 1 for count in self.executions.values())
        for row in self.journal:
            if isinstance(row, EndedRow):
                assert self.executions.get(row.key, 0) == isinstance(row.outcome, Sent)

    def teardown(self):
        """In fair weather everything ends."""
        self.balance = 10**15
        for _ in range(4 * self.place + 4):
            self.look(99)
            for body in list(self.network):
                self.network = [body]
                message, row = self.meaning[body.hash()]
                if row.seqno == self.seqno and self.at_s < row.valid_until_s:
                    self.balance -= message.message.value_nanoton
                    self.seqno, self.lt = self.seqno + 1, self.lt + 1
                    self.executions[message.key] = self.executions.get(message.key, 0) + 1
                    self.transactions.append(executed(row, message.message, self.lt))
            self.network = []
            self.time_passes(OUTBOX_RESEND_NS // 10**9)     # a signature in its last second is dead in the next
        assert not self.outbox.busy
        self.nothing_is_executed_twice_or_after_it_was_given_up()


TestOutboxInAnyWeather = OutboxInAnyWeather.TestCase
TestOutboxInAnyWeather.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
