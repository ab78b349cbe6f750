"""A peer's money: its chain, its signer, its wallet's ledger, and the keys that follow from its words.

Purity: shell. Spec: docs/spec/wallet.md, docs/spec/lanes.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from cocoon.config.network import ChainFacts, NetworkFile
from cocoon.config.settings import Settings
from cocoon.core.clock import Clock
from cocoon.core.errors import ChainRefused, ChainUnreachable, wrong
from cocoon.core.limits import CHAIN_PATIENCE_NS, CHAIN_SILENCE_NS, ESCROWS_REMEMBERED, LANE_LIFE_S, LANE_LOOKS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value, field, replace
from cocoon.identity.keys import KeyPair, key_pair
from cocoon.ledger import escrow
from cocoon.ledger.chain import Chain, open_chain
from cocoon.ledger.escrow import EscrowBirth, EscrowState
from cocoon.ledger.lanes import LaneRules
from cocoon.ledger.onchain import Account, Transaction
from cocoon.ledger.service import Ledger, open_ledger
from cocoon.ledger.signer.service import Caps, open_signer
from cocoon.store.service import Journal
from cocoon.telemetry.log import hide
from cocoon.wire.cells import Cell

#: The one escrow of a wallet on a network; a second one would need a second index.
ESCROW_INDEX = 0
#: Levels of a dictionary of a few lanes, which fees are reckoned for.
_DEPTH = 3


class EscrowSeen(Value):
    """An escrow in proven state: ``state`` is None while it is not deployed."""

    state: EscrowState | None
    balance_nanoton: int
    at_s: int
    #: Masterchain block in which it is proven.
    seqno: int
    #: Logical time of the account's newest transaction.
    last_lt: int = 0
    #: Seen a little while ago; the chain is away. Nothing new may rest on it.
    remembered: bool = False

    @property
    def depth(self) -> int:
        """Levels of its dictionary of lanes: what gas goes by."""
        return 0 if self.state is None else self.state.depth

    @property
    def unlocked_nanoton(self) -> int:
        """What orders may still lock."""
        return 0 if self.state is None else escrow.unlocked_nanoton(self.state, self.balance_nanoton)


class Money(Value):
    """What a peer on a network with a ledger pays and is paid with."""

    ledger: Ledger
    chain: Chain
    facts: ChainFacts
    network_tag: int
    #: Signs vouchers and escrow orders.
    lane_key: KeyPair
    #: Named in lanes that pay us; signs closes.
    provider_key: KeyPair
    #: Our own escrow.
    birth: EscrowBirth
    clock: Clock
    #: Escrows as they were seen last, and when by the monotonic clock; the newest at the end.
    seen: dict[bytes, tuple[EscrowSeen, int]] = field(default_factory=dict)

    async def rules(self) -> LaneRules:
        """What lanes must be like at the network's present prices."""
        prices = await self.ledger.prices()
        return LaneRules(
            margin_s=self.facts.claim_margin_s, life_s=LANE_LIFE_S,
            open_fee_nanoton=escrow.cost_nanoton(prices, escrow.lanes_gas(1, _DEPTH)),
            claim_fee_nanoton=escrow.cost_nanoton(prices, escrow.claim_gas(_DEPTH)),
        )

    async def look(self, address: bytes) -> EscrowSeen:
        """The escrow at ``address``, recognised by what its address commits to.

        Raises:
            WrongField: ``wrong_escrow``: something else is deployed there.
        """
        seen = self._recognised(await self.ledger.account(address))
        if seen.state is not None:                      # else any stranger's address would push an escrow out
            self.seen.pop(address, None)
            self.seen[address] = (seen, self.clock.now_ns())
            while len(self.seen) > ESCROWS_REMEMBERED:
                del self.seen[next(iter(self.seen))]
        return seen

    async def look_soon(self, address: bytes) -> EscrowSeen:
        """As ``look``; while the chain is away, what was seen last, if no close can have ended since (LAN-31).

        Raises:
            ChainUnreachable: it was seen too long ago, or never.
        """
        with trio.move_on_after(CHAIN_PATIENCE_NS / SECOND_NS):
            try:
                return await self.look(address)
            except ChainUnreachable:
                pass
        seen, at_ns = self.seen.get(address, (None, 0))
        age_s = (self.clock.now_ns() - at_ns) // SECOND_NS
        if seen is None or age_s > self.facts.close_delay_s // LANE_LOOKS:
            raise ChainUnreachable("the chain does not answer, and this escrow was not seen lately")
        return replace(seen, at_s=seen.at_s + age_s, remembered=True)

    def _recognised(self, account: Account) -> EscrowSeen:
        address = account.address
        if account.data is None or account.code_hash is None:
            return EscrowSeen(None, account.balance_nanoton, account.at_s, account.seqno, account.last_lt)
        birth = escrow.read_state(account.data).birth
        if (birth.network_tag, birth.close_delay_s) != (self.network_tag, self.facts.close_delay_s):
            raise wrong("escrow", f"the escrow {address.hex()[:16]} was born for another network")
        state = escrow.recognise(address, birth, account.code_hash, account.data)
        return EscrowSeen(state, account.balance_nanoton, account.at_s, account.seqno, account.last_lt)

    async def next_look(self, address: bytes, seqno: int) -> EscrowSeen:
        """The escrow as it is in a block after number ``seqno``.

        Raises:
            ChainUnreachable: there is no such block for too long.
        """
        await self._next_block(seqno)
        return await self.look(address)

    async def _next_block(self, seqno: int) -> None:
        with trio.move_on_after(CHAIN_SILENCE_NS / SECOND_NS):
            await self.chain.wait_block(seqno)
            return
        raise ChainUnreachable(f"no block followed number {seqno} within {CHAIN_SILENCE_NS // SECOND_NS} s")


    async def executed(self, address: bytes, after_lt: int, body: Cell, until_s: int) -> Transaction:
        """Wait until the contract at ``address`` took a message with ``body``, sent at logical time ``after_lt``.

        Whoever carries it, it is done; but a stranger's copy that failed says nothing of ours.

        Raises:
            ChainRefused: the contract refused ours; the text has its exit code.
            ChainUnreachable: not executed before chain time ``until_s``.
        """
        while True:
            account = await self.ledger.account(address)
            for transaction in await self.ledger.transactions(address, after_lt):
                if transaction.in_body != body:
                    continue
                if transaction.success:
                    return transaction
                if transaction.in_source == self.ledger.address:
                    raise ChainRefused(f"the contract refused it with exit code {transaction.exit_code}")
            if account.at_s >= until_s:
                raise ChainUnreachable(f"the message was not executed before chain time {until_s}")
            await self._next_block(account.seqno)


@asynccontextmanager
async def open_money(
    home: Path, network: NetworkFile, settings: Settings, journal: Journal, clock: Clock
) -> AsyncIterator[Money]:
    """Follow the chain of ``network`` and hold the wallet of ``home`` until the block ends.

    Raises:
        SignerLost, LaxPermissions, BadWords: the wallet cannot be used.
    """
    facts = network.chain
    assert facts is not None                            # the caller looked at ``network.ledger``
    caps = Caps(settings.wallet_hour_nanoton, settings.wallet_day_nanoton)
    async with (
        open_chain(facts, network.liteservers, clock) as chain,
        open_signer(home, caps) as signer,
        open_ledger(facts, chain, signer, journal, clock) as ledger,
    ):
        lane, provider = key_pair(await ledger.lane_seed(ESCROW_INDEX)), key_pair(await ledger.provider_seed())
        hide(lane.seed)
        hide(provider.seed)
        birth = EscrowBirth(ledger.address, lane.key, network.network_tag, ESCROW_INDEX, facts.close_delay_s)
        yield Money(ledger, chain, facts, network.network_tag, lane, provider, birth, clock)
