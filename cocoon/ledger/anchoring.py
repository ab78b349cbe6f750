"""Anchoring: countersigned receipts, batched into Merkle roots on chain.

The batcher keeps the digests of the lane's settled receipts in journal order. An
order to anchor names a range of them, so that a restart makes the same root; the
contract's sequence number tells whether it was executed.

Invariants
    A receipt is in one batch; batches follow one another without gap.
    A number of the anchor stands for one root, also after a crash.

Purity: pure. Spec: docs/spec/anchoring.md, rules BAT-1 to BAT-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cocoon.core.errors import NotFound
from cocoon.core.ids import ReceiptHash
from cocoon.core.limits import ANCHOR_NS, ANCHOR_RECEIPTS
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.values import Value
from cocoon.ledger.anchor import AnchorState
from cocoon.ledger.facts import FactBook
from cocoon.wire import merkle


class ReceiptKept(Event):
    """A countersigned receipt is in the journal."""

    digest: ReceiptHash


class AnchorAsked(Event):
    """The peer shuts down, or its user wants the anchor now."""


class AnchorOrdered(Event):
    """Receipts ``first`` to ``first + count - 1`` go under ``root`` as number ``seq``. A fact of record."""

    seq: int
    root: bytes
    first: int
    count: int


class AnchorSeen(Event):
    """The contract's proven state; None while it is not deployed."""

    state: AnchorState | None


class AnchorLapsed(Event):
    """The message that carried number ``seq`` will never be executed."""

    seq: int


ANCHOR_FACTS = FactBook(AnchorOrdered)


class LookAtAnchor(Effect):
    """Read the contract's proven state and tell ``AnchorSeen``."""


class SendAnchor(Effect):
    """Record ``ordered``, then queue the message. Idempotent by (seq, root)."""

    ordered: AnchorOrdered
    durable: ClassVar[bool] = True


class ReportAnchored(Effect):
    """Batch ``seq`` is on chain."""

    ordered: AnchorOrdered


class AnchorProof(Value):
    """That a receipt is under an anchored root."""

    seq: int
    root: bytes
    count: int
    index: int
    path: tuple[bytes, ...]

    def holds(self, digest: bytes) -> bool:
        """Whether ``digest`` is number ``index`` under ``root``."""
        return merkle.verify(self.root, digest, self.index, self.count, self.path)


AnchorEvent = ReceiptKept | AnchorAsked | AnchorSeen | AnchorLapsed


@dataclass(slots=True)
class AnchorBatcher:
    """One peer's anchor."""

    receipts: list[ReceiptHash] = field(default_factory=list)
    #: Every batch ordered, by number; the last may not be on chain yet.
    batches: list[AnchorOrdered] = field(default_factory=list)
    _known: dict[ReceiptHash, int] = field(default_factory=dict)
    _landed: int = 0
    _wanted: bool = False
    _looking: bool = False
    _deadline_ns: int | None = None

    @property
    def pending(self) -> int:
        """Receipts that no batch holds yet."""
        return len(self.receipts) - self._batched

    @property
    def settled(self) -> bool:
        """Whether every receipt is under a root that is on chain."""
        return not self.pending and self.outstanding is None

    @property
    def asked(self) -> bool:
        """Whether a batch is under way or about to be ordered: what comes later is in none until it is asked again."""
        return self._wanted or self._looking or self.outstanding is not None

    @property
    def outstanding(self) -> AnchorOrdered | None:
        """The batch that was ordered and not seen on chain."""
        return self.batches[-1] if len(self.batches) > self._landed else None

    @property
    def _batched(self) -> int:
        return self.batches[-1].first + self.batches[-1].count if self.batches else 0

    def restore(self, now_ns: int, receipts: Sequence[ReceiptHash], batches: Sequence[AnchorOrdered]) -> list[Effect]:
        """Begin again from the journal: receipts and the batches that were ordered, both in its order."""
        for digest in receipts:
            self._keep(digest)
        for batch in batches:
            # One that lost its number to another copy of the wallet is followed by one that begins where it did.
            while self.batches and self.batches[-1].first >= batch.first:
                self.batches.pop()
            self.batches.append(batch)
        self._landed = max(0, len(self.batches) - 1)
        if self.outstanding is None:
            return self._due(now_ns)
        self._looking = True
        return [LookAtAnchor()]

    def handle(self, now_ns: int, event: AnchorEvent | DeadlinePassed) -> list[Effect]:
        """Take one fact."""
        match event:
            case ReceiptKept(digest):
                return self._due(now_ns) if self._keep(digest) else []
            case AnchorAsked():
                self._wanted = self.pending > 0
                return self._due(now_ns)
            case AnchorSeen(state):
                self._looking = False
                return self._seen(now_ns, state)
            case AnchorLapsed(seq) if self.outstanding is not None and self.outstanding.seq == seq:
                return self._look()
            case DeadlinePassed() if self._deadline_ns is not None and now_ns >= self._deadline_ns:
                self._wanted, self._deadline_ns = True, None
                return self._due(now_ns)
        return []

    def deadline_ns(self) -> int | None:
        """When pending receipts are anchored however few they are."""
        return self._deadline_ns

    def proof(self, digest: ReceiptHash) -> AnchorProof:
        """The proof for a receipt in a batch that is on chain.

        Raises:
            NotFound: the receipt is unknown, or not anchored yet.
        """
        at = self._known.get(digest)
        for batch in self.batches[: self._landed]:
            if at is not None and batch.first <= at < batch.first + batch.count:
                leaves = self.receipts[batch.first : batch.first + batch.count]
                path = merkle.path(leaves, at - batch.first)
                return AnchorProof(batch.seq, batch.root, batch.count, at - batch.first, tuple(path))
        raise NotFound(f"receipt {digest.hex()[:16]} is not anchored")

    def _keep(self, digest: ReceiptHash) -> bool:
        if digest in self._known:
            return False
        self._known[digest] = len(self.receipts)
        self.receipts.append(digest)
        return True

    def _due(self, now_ns: int) -> list[Effect]:
        if self.outstanding is not None or not self.pending:
            return []
        if self._deadline_ns is None:
            self._deadline_ns = now_ns + ANCHOR_NS
        return self._look() if self._wanted or self.pending >= ANCHOR_RECEIPTS else []

    def _look(self) -> list[Effect]:
        if self._looking:
            return []
        self._looking = True
        return [LookAtAnchor()]

    def _seen(self, now_ns: int, state: AnchorState | None) -> list[Effect]:
        out = self.outstanding
        seq = state.seq if state is not None else 0
        if out is None:
            return self._order(seq + 1)
        if state is None or seq < out.seq:
            return [SendAnchor(out)]                    # not executed: the same message again
        if not any(root.seq == out.seq and root.root != out.root for root in state.ring):
            self._landed = len(self.batches)
            return [ReportAnchored(out), *self._due(now_ns)]
        # Another copy of this wallet anchored under our number: the batch gets the next one.
        self.batches.pop()
        return self._order(seq + 1)

    def _order(self, seq: int) -> list[Effect]:
        if not self.pending:
            return []
        first = self._batched
        leaves = self.receipts[first:]
        ordered = AnchorOrdered(seq, merkle.root(leaves), first, len(leaves))
        self.batches.append(ordered)
        self._wanted, self._deadline_ns = False, None
        return [SendAnchor(ordered)]
