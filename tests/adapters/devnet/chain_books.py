"""What a chain says of its money, read from outside over the liteserver protocol alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytoniq import LiteClient
from pytoniq_core import Address

from tests.adapters.devnet.devnet_process import blocks


@dataclass
class Books:
    """Sums over all blocks of both workchains up to one block, in nanoton."""

    fees_of_transactions: int = 0
    fees_of_blocks: int = 0
    balances: int = 0
    transactions: int = 0
    made: set[bytes] = field(default_factory=set)
    taken: list[bytes] = field(default_factory=list)
    accounts: set[tuple[int, bytes]] = field(default_factory=set)
    bounced: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """What must be the supply once no message is under way."""
        return self.balances + self.fees_of_transactions

    @property
    def under_way(self) -> set[bytes]:
        """Internal messages that were made and not yet consumed."""
        return self.made - set(self.taken)


async def read_books(client: LiteClient, faucet: Address) -> Books:
    """Add up every transaction and every balance; each answer is proven (trust level 1)."""
    books = Books()
    books.accounts.add((0, faucet.hash_part))
    last = client.last_mc_block
    for workchain in (-1, 0):
        for block in await blocks(client, workchain):
            if block.seqno > last.seqno:
                break
            whole = await client.raw_get_block(block)
            books.fees_of_blocks += whole.value_flow.fees_collected.grams
            for one in await client.raw_get_block_transactions_ext(block):
                _add(books, workchain, one)
    for workchain, account in books.accounts:
        state, _ = await client.raw_get_account_state(Address((workchain, account)), last)
        books.balances += state.storage.balance.grams if state else 0
    return books


def _add(books: Books, workchain: int, one) -> None:
    books.transactions += 1
    books.accounts.add((workchain, one.account_addr))
    books.fees_of_transactions += one.total_fees.grams
    books.failed += bool(getattr(one.description, "aborted", False))
    for out in one.out_msgs:
        if out.is_internal:
            books.made.add(out.serialize().hash)
            books.bounced += bool(out.info.bounced)
    if one.in_msg.is_internal:
        books.taken.append(one.in_msg.serialize().hash)
        books.fees_of_transactions += one.in_msg.info.fwd_fee
