"""The chain itself: what it holds, whether it takes a message, and the next block.

Drawing up a block changes nothing. The caller makes the draft durable, then
adopts it; so what anybody can see of the chain is on disk.

Purity: shell (native code, disk). Spec: docs/spec/devnet.md, rules DEV-13 to DEV-18 and DEV-23.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cocoon.core.errors import ChainRefused, Corrupt, LimitExceeded, Malformed, UsageError
from cocoon.core.limits import (
    DEVNET_BLOCK_GAS,
    DEVNET_BLOCK_MESSAGES,
    DEVNET_MESSAGE_BYTES,
    DEVNET_MESSAGE_CELLS,
    DEVNET_MESSAGE_DEPTH,
    DEVNET_PENDING,
    DEVNET_STATE_CELLS,
    DEVNET_STATES,
)
from cocoon.core.values import Value
from cocoon.devnet import blocks
from cocoon.devnet.blocks import BASE, MASTER, WORKCHAINS, Change, Flow, Header, Made, State
from cocoon.devnet.cells import Cell, pack, unpack
from cocoon.devnet.configuration import CONFIG_ADDRESS_PARAMETER, parameter
from cocoon.devnet.executor import Executor, Refused
from cocoon.devnet.formats import (
    NOBODY,
    Executed,
    Holder,
    Inbound,
    ShardAccount,
    read_account,
    read_message,
    read_shard_account,
)
from cocoon.devnet.hashmap import ACCOUNTS, Trie
from cocoon.devnet.store import Commit, Store, StoredBlock, StoredTransaction

#: Logical time of one block is a multiple of this behind the block before.
_LT_STEP = 1_000_000
_CONFIG, _SUPPLY, _BORN, _ZERO = "config", "supply_nanoton", "born_s", "zerostate:{}"
_FEES = "fees_nanoton:{}"
#: What reading damaged bytes ends with: no bag of cells, no number, no such parameter, a native refusal.
_DAMAGE = (Malformed, UsageError, ValueError, TypeError, LookupError, OverflowError, RuntimeError)


class Tip(Value):
    """One block of each workchain, made together, and what the chain is after them."""

    made: dict[int, Made]

    @property
    def master(self) -> Header:
        """Header of the masterchain's block."""
        return self.made[MASTER].header

    @property
    def seqno(self) -> int:
        """Number of both blocks."""
        return self.master.id.seqno

    @property
    def at_s(self) -> int:
        """Chain time, seconds since 1970."""
        return self.master.at_s

    def account(self, holder: Holder) -> ShardAccount:
        """State of an account; ``NOBODY`` if it has none."""
        made = self.made.get(holder[0])
        value = made.state.accounts.get(int.from_bytes(holder[1], "big")) if made else None
        return NOBODY if value is None else read_shard_account(value)


class Waiting(Value):
    """A durable message that waits for a block."""

    number: int
    inbound: Inbound


class Draft(Value):
    """A block drawn up and not yet durable."""

    tip: Tip
    commit: Commit
    left: tuple[Inbound, ...]
    dropped: int

    @property
    def transactions(self) -> int:
        """How many messages it executed."""
        return len(self.commit.transactions)


@dataclass(slots=True)
class _Books:
    """What one workchain's block adds up while it is drawn up, in nanoton."""

    imported: int = 0
    exported: int = 0
    fees: int = 0


class _Queued(Value):
    """A message on its way: its number on disk, or the workchain that made it in this block."""

    inbound: Inbound
    number: int | None = None
    origin: int | None = None


@dataclass(slots=True)
class _Work:
    """A block under way: what waited before it comes first, then what these messages caused."""

    at_s: int
    lt: int
    seed: bytes
    waiting: Iterator[_Queued]
    caused: deque[_Queued] = field(default_factory=deque)
    gas: int = 0
    changed: dict[Holder, ShardAccount] = field(default_factory=dict)
    executed: dict[Holder, list[Executed]] = field(default_factory=dict)
    books: dict[int, _Books] = field(default_factory=lambda: {workchain: _Books() for workchain in WORKCHAINS})
    taken: list[int] = field(default_factory=list)
    dropped: int = 0

    def next(self) -> _Queued | None:
        """Take the first message that is left; None if there is none."""
        queued = next(self.waiting, None)
        return self.caused.popleft() if queued is None and self.caused else queued


class Chain:
    """An open chain. All methods run in one thread.

    ``check`` and ``draft`` take milliseconds; with contracts that burn all the gas they may, 0.1 s and 0.8 s.
    """

    def __init__(self, store: Store) -> None:
        """Load what ``found`` wrote.

        Raises:
            Corrupt: the file holds no whole chain.
        """
        self._store = store
        self._pending: deque[Waiting] = deque()
        self._states: OrderedDict[int, Tip] = OrderedDict()
        with _corrupt_if_damaged():
            self.config = unpack(store.needed(_CONFIG), DEVNET_STATE_CELLS)
            self.supply_nanoton = store.number(_SUPPLY)
            self.zero = {workchain: _zero(store, workchain) for workchain in WORKCHAINS}
            self._address = parameter(self.config, CONFIG_ADDRESS_PARAMETER).read().blob(32)
            self._executor = Executor(self.config)
            self.tip = self._load()
            for message in store.messages():
                self.add(message.number, _read(message.data, DEVNET_STATE_CELLS))
        self._remember(self.tip)

    # --- looking -----------------------------------------------------------

    @property
    def genesis(self) -> bytes:
        """Root hash of the masterchain's zerostate: what names this network."""
        return self.zero[MASTER].id.root_hash

    @property
    def pending(self) -> int:
        """Messages that wait for a block."""
        return len(self._pending)

    def tip_at(self, seqno: int) -> Tip | None:
        """The state after one of the newest ``DEVNET_STATES`` blocks."""
        return self._states.get(seqno)

    @property
    def executor(self) -> Executor:
        """The virtual machine, for get-methods."""
        return self._executor

    # --- messages ----------------------------------------------------------

    def check(self, data: bytes, now_s: int, coming: int = 0) -> Inbound:
        """Whether the chain would take an external message now.

        Args:
            data: The message as a bag of cells.
            now_s: Wall time, for contracts that look at it.
            coming: Messages that were taken and do not wait here yet.

        Raises:
            Malformed: it is no external message to one of our workchains.
            LimitExceeded: too much waits already.
            ChainRefused: the account's contract does not accept it.
        """
        if len(data) > DEVNET_MESSAGE_BYTES:
            raise Malformed(f"a message of {len(data)} bytes; at most {DEVNET_MESSAGE_BYTES} are taken")
        inbound = _read(data, DEVNET_MESSAGE_CELLS)
        if not inbound.external:
            raise Malformed("only external messages are taken from outside")
        if inbound.cell.depth > DEVNET_MESSAGE_DEPTH:
            raise Malformed(f"a message {inbound.cell.depth} cells deep; at most {DEVNET_MESSAGE_DEPTH} are taken")
        if len(self._pending) + coming >= DEVNET_PENDING:
            raise LimitExceeded(f"{len(self._pending) + coming} messages wait for a block already; try again")
        at_s, seed = max(self.tip.at_s, now_s), self._seed()
        ran = self._executor.run(self.tip.account(inbound.holder), inbound.cell, at_s, self._next_lt(), seed)
        if isinstance(ran, Refused):
            raise ChainRefused(_refusal(inbound.holder, ran))
        return inbound

    def add(self, number: int, inbound: Inbound) -> None:
        """Queue a message that is durable under ``number``."""
        self._pending.append(Waiting(number, inbound))

    # --- blocks ------------------------------------------------------------

    def draft(self, now_s: int) -> Draft:
        """Draw up the next block out of what waits; nothing changes yet.

        Raises:
            Corrupt: the machine failed on a message of the chain, or coins did not add up.
        """
        work = _Work(
            at_s=max(self.tip.at_s, now_s), lt=self._next_lt(), seed=self._seed(),
            waiting=(_Queued(waiting.inbound, waiting.number) for waiting in self._pending),
        )
        start_lt = work.lt
        for _ in range(DEVNET_BLOCK_MESSAGES):
            queued = work.next() if work.gas < DEVNET_BLOCK_GAS else None
            if queued is None:
                break
            self._step(work, queued)
        return self._seal(work, start_lt, tuple(queued.inbound for queued in work.caused))

    def adopt(self, draft: Draft, numbers: Iterable[int]) -> None:
        """Make a durable draft the newest block.

        Args:
            numbers: Of the messages that it left, as the store gave them.
        """
        for number in draft.commit.taken:
            taken = self._pending.popleft()
            assert taken.number == number, "a block takes what waits from the front"
        self._pending.extend(Waiting(*pair) for pair in zip(numbers, draft.left, strict=True))
        self.tip = draft.tip
        self._remember(draft.tip)

    def _step(self, work: _Work, queued: _Queued) -> None:
        """Execute one message."""
        inbound = queued.inbound
        if queued.number is not None:
            work.taken.append(queued.number)
        outcome = self._executor.run(self._account(work, inbound.holder), inbound.cell, work.at_s, work.lt, work.seed)
        if isinstance(outcome, Refused):
            if not inbound.external:
                raise Corrupt(f"the virtual machine cannot execute the message {inbound.cell.hash.hex()}")
            work.dropped += 1  # it was acceptable when it came; another message was faster
            return
        _book(work, queued, outcome.executed)
        work.changed[inbound.holder] = outcome.account
        work.executed.setdefault(inbound.holder, []).append(outcome.executed)
        work.lt = outcome.executed.end_lt
        work.gas += outcome.executed.gas
        work.caused.extend(_Queued(out, origin=inbound.holder[0]) for out in outcome.executed.outs)

    def _account(self, work: _Work, holder: Holder) -> ShardAccount:
        return work.changed.get(holder) or self.tip.account(holder)

    def _seal(self, work: _Work, start_lt: int, left: tuple[Inbound, ...]) -> Draft:
        """Blocks and rows out of what was executed."""
        made: dict[int, Made] = {}
        facts: list[tuple[str, bytes]] = []
        for workchain in (BASE, MASTER):
            made[workchain] = self._made(workchain, work, start_lt, made.get(BASE))
            facts.append((_FEES.format(workchain), str(made[workchain].state.fees_nanoton).encode()))
        tip = Tip(made)
        transactions = [
            StoredTransaction(holder, one.lt, one.cell.hash, tip.seqno, pack(one.cell))
            for holder, several in work.executed.items()
            for one in several
        ]
        commit = Commit(
            blocks=[StoredBlock(made[workchain].header, made[workchain].data) for workchain in WORKCHAINS],
            facts=facts,
            transactions=transactions,
            accounts=[(holder, _row(account)) for holder, account in work.changed.items()],
            taken=work.taken,
            left=[(inbound.cell.hash, pack(inbound.cell)) for inbound in left],
        )
        return Draft(tip, commit, left, work.dropped)

    def _made(self, workchain: int, work: _Work, start_lt: int, base: Made | None) -> Made:
        before = self.tip.made[workchain]
        mine = {holder[1]: account for holder, account in work.changed.items() if holder[0] == workchain}
        accounts = before.state.accounts
        for account, new in mine.items():
            accounts = _with(accounts, account, new)
        books = work.books[workchain]
        flow = Flow(before.state.accounts.amount, accounts.amount, books.imported, books.exported, books.fees)
        if not flow.balanced:
            raise Corrupt(f"coins of block {self.tip.seqno + 1} of workchain {workchain} do not add up: {flow}")
        fees = before.state.fees_nanoton + books.fees
        state = self._state(workchain, self.tip.seqno + 1, work.at_s, work.lt, accounts, fees, base)
        changes = [
            Change(account, self.tip.account((workchain, account)).account.hash, new.account.hash,
                   tuple(work.executed[workchain, account]))
            for account, new in mine.items()
        ]
        return blocks.make(
            state, before.header, before.state.cell, self.tip.master, flow, changes, work.seed, start_lt, work.lt,
            work.at_s,
        )

    def _state(
        self, workchain: int, seqno: int, at_s: int, lt: int, accounts: Trie, fees: int, base: Made | None
    ) -> State:
        if workchain == BASE:
            return blocks.base_state(seqno, at_s, lt, accounts, fees)
        assert base is not None, "the masterchain's block names the basechain's"
        return blocks.master_state(
            seqno, at_s, lt, accounts, fees, base.header, self.config, self._address, self.supply_nanoton
        )

    def _next_lt(self) -> int:
        return (self.tip.master.end_lt // _LT_STEP + 1) * _LT_STEP

    def _seed(self) -> bytes:
        """What contracts of the next block draw from: known to all, and another in every block."""
        return hashlib.sha256(b"cocoon devnet seed" + self.tip.master.id.root_hash).digest()

    def _remember(self, tip: Tip) -> None:
        self._states[tip.seqno] = tip
        while len(self._states) > DEVNET_STATES:
            self._states.popitem(last=False)

    # --- loading -----------------------------------------------------------

    def _load(self) -> Tip:
        """The newest block, with its state made again out of the accounts."""
        made: dict[int, Made] = {}
        for workchain in (BASE, MASTER):
            accounts = Trie(ACCOUNTS)
            for account, data in self._store.accounts(workchain):
                accounts = _with(accounts, account, read_shard_account(unpack(data, DEVNET_STATE_CELLS)))
            fees = self._store.number(_FEES.format(workchain), absent=0)
            made[workchain] = self._loaded(workchain, accounts, fees, made.get(BASE))
        return Tip(made)

    def _loaded(self, workchain: int, accounts: Trie, fees: int, base: Made | None) -> Made:
        stored = self._store.newest(workchain)
        header = self.zero[workchain] if stored is None else stored.header
        lt = header.end_lt
        state = self._state(workchain, header.id.seqno, header.at_s, lt, accounts, fees, base)
        if state.cell.hash != header.state_hash:
            raise Corrupt(f"the accounts of workchain {workchain} are not those of block {header.id.seqno}")
        if stored is None:
            return Made(header, state, state.cell, pack(state.cell))
        return Made(header, state, unpack(stored.data, DEVNET_STATE_CELLS), stored.data)


def found(
    store: Store, config: Cell, accounts: dict[Holder, tuple[Cell, int]], at_s: int,
    more: Iterable[tuple[str, bytes]] = (),
) -> None:
    """Write a zerostate.

    Args:
        config: Dictionary of all parameters, with the network's nonce.
        accounts: Account cell and balance of everybody who holds coins at the start.
        at_s: Birth, seconds since 1970.
        more: Facts of the caller, written with the chain or not at all.
    """
    tries = {workchain: Trie(ACCOUNTS) for workchain in WORKCHAINS}
    for (workchain, account), (cell, _) in accounts.items():
        tries[workchain] = _with(tries[workchain], account, ShardAccount(cell, bytes(32), 0))
    supply = sum(balance for _, balance in accounts.values())
    base = blocks.base_state(0, at_s, blocks.ZERO_LT, tries[BASE], 0)
    base_data = pack(base.cell)
    base_zero = blocks.zero(BASE, base.cell, base_data, at_s)
    address = parameter(config, CONFIG_ADDRESS_PARAMETER).read().blob(32)
    master = blocks.master_state(
        0, at_s, blocks.ZERO_LT, tries[MASTER], 0, base_zero, config, address, supply
    )
    facts = [(_CONFIG, pack(config)), (_SUPPLY, str(supply).encode()), (_BORN, str(at_s).encode())]
    facts += [(_ZERO.format(BASE), base_data), (_ZERO.format(MASTER), pack(master.cell))]
    rows = [(holder, pack(ShardAccount(cell, bytes(32), 0).cell())) for holder, (cell, _) in accounts.items()]
    store.begin_chain([*facts, *more], rows)


def is_founded(store: Store) -> bool:
    """Whether a zerostate was written."""
    return store.fact(_CONFIG) is not None


def zerostate(store: Store, workchain: int) -> bytes:
    """A zerostate as a bag of cells."""
    return store.needed(_ZERO.format(workchain))


def _zero(store: Store, workchain: int) -> Header:
    """A zerostate's id, in the place of a block before the first."""
    data = zerostate(store, workchain)
    return blocks.zero(workchain, unpack(data, DEVNET_STATE_CELLS), data, store.number(_BORN))


@contextmanager
def _corrupt_if_damaged() -> Iterator[None]:
    """Our own file is to blame for whatever cannot be read from it."""
    try:
        yield
    except _DAMAGE as error:
        raise Corrupt(f"the chain's file is damaged: {error}") from error


def _read(data: bytes, max_cells: int) -> Inbound:
    inbound = read_message(unpack(data, max_cells))
    if inbound is None or inbound.holder[0] not in WORKCHAINS or inbound.cell.level:
        raise Malformed("the message goes to no account of this chain")
    return inbound


def _refusal(holder: Holder, refused: Refused) -> str:
    who = f"the account {holder[0]}:{holder[1].hex()}"
    if refused.exit_code is None:
        return f"{who} has no code for this message, or the message has no lawful form"
    return f"{who} does not accept this external message: exitcode={refused.exit_code}"


def _with(accounts: Trie, account: bytes, new: ShardAccount) -> Trie:
    """A state with one account changed; an account that is no more is left out."""
    key = int.from_bytes(account, "big")
    content = read_account(new.account)
    return accounts.drop(key) if content is None else accounts.put(key, new.cell(), content.balance_nanoton)


def _row(account: ShardAccount) -> bytes | None:
    return None if read_account(account.account) is None else pack(account.cell())


def _book(work: _Work, queued: _Queued, executed: Executed) -> None:
    """Write down what a transaction moved: fees, and messages that cross a block or a workchain.

    A message is exported where it is made and imported where it is consumed,
    unless both happen in one block of one workchain.
    """
    inbound = queued.inbound
    books = work.books[inbound.holder[0]]
    books.fees += executed.fees_nanoton + inbound.forward_nanoton
    books.exported += sum(out.carried_nanoton for out in executed.outs)
    if queued.origin == inbound.holder[0]:
        books.exported -= inbound.carried_nanoton
    else:
        books.imported += inbound.carried_nanoton
