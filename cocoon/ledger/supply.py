"""The whole chain added up: what was there at genesis is still somewhere.

Every coin of the genesis is on an account, was collected as a fee, or travels
in a message that was made and not yet taken. Who has seen every transaction and
every balance can check that, and need trust nobody's books.

Purity: pure. Spec: docs/spec/devnet.md, rule DEV-19.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cocoon.core.errors import LimitExceeded
from cocoon.core.limits import SUPPLY_TRANSACTIONS
from cocoon.core.values import Value


class Carried(Value):
    """An internal message: its hash, and the coins in it, of which ``fee_nanoton`` goes to whoever takes it in."""

    hash: bytes
    value_nanoton: int
    fee_nanoton: int


class Moves(Value):
    """What one transaction did to the sums. ``taken`` is None if no internal message caused it."""

    fees_nanoton: int
    taken: Carried | None
    made: tuple[Carried, ...]


class Supply(Value):
    """A chain added up after one block, in nanoton.

    Attributes:
        fees_nanoton: Of all transactions, and of taking in their messages.
        declared_nanoton: Fees that the blocks themselves say they collected.
        under_way_nanoton: In messages that were made and not taken.
        unmade: Messages that were taken though no transaction made them, or taken twice.
        seqno: The block.
    """

    genesis_nanoton: int
    balances_nanoton: int
    fees_nanoton: int
    declared_nanoton: int
    under_way_nanoton: int
    unmade: int
    blocks: int
    transactions: int
    accounts: int
    seqno: int

    @property
    def quiet(self) -> bool:
        """Whether no message is under way."""
        return not self.under_way_nanoton

    @property
    def conserved(self) -> bool:
        """Whether nothing was made or lost, and transactions and blocks agree on the fees."""
        found_nanoton = self.balances_nanoton + self.fees_nanoton + self.under_way_nanoton
        return self.genesis_nanoton == found_nanoton and self.fees_nanoton == self.declared_nanoton and not self.unmade


@dataclass(slots=True)
class Books:
    """Sums over blocks, which may come in any order, each once."""

    fees_nanoton: int = 0
    declared_nanoton: int = 0
    blocks: int = 0
    transactions: int = 0
    unmade: int = 0
    _made: dict[bytes, Carried] = field(default_factory=dict)
    _taken: dict[bytes, Carried] = field(default_factory=dict)

    def add(self, transactions: Sequence[Moves], declared_nanoton: int) -> None:
        """Add one block; ``declared_nanoton`` are the fees that it says it collected.

        Raises:
            LimitExceeded: more transactions than are counted.
        """
        self.blocks += 1
        self.transactions += len(transactions)
        if self.transactions > SUPPLY_TRANSACTIONS:
            raise LimitExceeded(f"the chain has more than {SUPPLY_TRANSACTIONS} transactions; it is not added up")
        self.declared_nanoton += declared_nanoton
        for moves in transactions:
            self.fees_nanoton += moves.fees_nanoton
            self._made.update((message.hash, message) for message in moves.made)
            if (taken := moves.taken) is not None:
                self.fees_nanoton += taken.fee_nanoton
                self.unmade += taken.hash in self._taken
                self._taken[taken.hash] = taken

    def close(self, genesis_nanoton: int, balances: Sequence[int], seqno: int) -> Supply:
        """The sums after block ``seqno``, when all blocks up to it were added; ``balances`` are all that there are."""
        under_way = sum(
            message.value_nanoton + message.fee_nanoton
            for name, message in self._made.items() if name not in self._taken
        )
        unmade = self.unmade + sum(name not in self._made for name in self._taken)
        return Supply(
            genesis_nanoton=genesis_nanoton, balances_nanoton=sum(balances), fees_nanoton=self.fees_nanoton,
            declared_nanoton=self.declared_nanoton, under_way_nanoton=under_way, unmade=unmade, blocks=self.blocks,
            transactions=self.transactions, accounts=len(balances), seqno=seqno,
        )
