"""Receipts as files, and their verification without any peer.

Purity: shell. Spec: docs/spec/receipts.md; anchoring.md, rules BAT-18 to BAT-21.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoon.core.errors import LimitExceeded, NotFound, UsageError, wrong
from cocoon.core.ids import peer_id
from cocoon.core.limits import EXPORT_BYTES
from cocoon.core.units import KIB

if TYPE_CHECKING:
    from cocoon.ledger.verify import ReceiptFacts

_DIGEST = re.compile(r"[0-9a-f]{64}")


def verify_record(record: bytes, expected: str | None = None) -> dict[str, Any]:
    """Check every signature and hash of a receipt record on this machine.

    Args:
        record: As ``Client.record`` returns it.
        expected: Hash (hex) of the receipt that it must be.

    Returns:
        What it proves, for people: receipt, lease, provider, requester, model, runs with
        their commitments, prices in nanoton and times in microseconds. ``total_nanoton`` is
        what ``lane`` of ``escrow`` (an address of workchain 0) has cost so far, by all its
        leases; both are zero for a lease that costs nothing.

    Raises:
        Malformed, BadSignature, WrongField: what does not hold.
    """
    from cocoon.ledger.verify import verify_record as verify

    return _told(verify(record), expected)


def verify_export(data: bytes, root: str | None = None, expected: str | None = None) -> dict[str, Any]:
    """Check an export, or a plain record, on this machine; see ``verify_record``.

    Args:
        data: As ``Client.export`` returns it.
        root: Merkle root (hex) that the reader trusts, say read from the anchor's account.
        expected: Hash (hex) of the receipt that it must be.

    Returns:
        What ``verify_record`` says and, if the receipt is anchored, ``anchor`` (the account, workchain 0),
        ``anchor_number`` and ``root``: where the root can be looked up on chain.

    Raises:
        UsageError: ``root`` is no 32 bytes in hex.
        Malformed, BadSignature, WrongField: what does not hold; ``wrong_root`` if it is not under ``root``.
    """
    from cocoon.ledger.export import verify_export as verify

    if root is not None and not _DIGEST.fullmatch(root):
        raise UsageError(f"{root!r:.80} is no root of 64 lower-case hex digits")
    facts = verify(data, None if root is None else bytes.fromhex(root))
    found = _told(facts.receipt, expected)
    found["anchored"] = facts.anchor is not None
    if facts.anchor is not None:
        found |= {"anchor": facts.anchor.hex(), "anchor_number": facts.seq, "root": facts.root.hex()}
    return found


def _told(facts: ReceiptFacts, expected: str | None) -> dict[str, Any]:
    if expected is not None and facts.receipt.hex() != expected:
        raise wrong("receipt", f"the record is that of receipt {facts.receipt.hex()}, not of {expected}")
    return {
        "receipt": facts.receipt.hex(),
        "seq": facts.seq,
        "previous": facts.previous.hex(),
        "network": facts.network.hex(),
        "lease": facts.lease.hex(),
        "model": facts.model.hex(),
        "provider": peer_id(facts.provider),
        "requester": peer_id(facts.requester),
        "escrow": facts.escrow.hex(),
        "lane": facts.lane,
        "first_number": facts.first_number,
        "runs": facts.runs,
        "units": facts.units,
        "total_nanoton": facts.total_nanoton,
        "lines": [
            {
                "number": line.number,
                "input_hash": line.input.hex(),
                "output_hash": line.output.hex(),
                "units": line.units,
                "price_nanoton": line.price_nanoton,
                "queued_us": line.queued_us,
                "ran_us": line.ran_us,
            }
            for line in facts.statements
        ],
    }


def load_record(path: str | os.PathLike[str]) -> bytes:
    """Read a file that holds a record or an export.

    Raises:
        NotFound: no such file. LimitExceeded: longer than any of them.
    """
    try:
        if not os.path.isfile(path):
            raise NotFound(f"there is no regular file {os.fspath(path)!r}")
        with open(path, "rb") as file:
            data = file.read(EXPORT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None
    if len(data) > EXPORT_BYTES:
        raise LimitExceeded(f"{os.fspath(path)!r} is longer than {EXPORT_BYTES // KIB} KiB")
    return data


def save_record(path: str | os.PathLike[str], record: bytes, *, overwrite: bool = False) -> None:
    """Write a record file, whole or not at all; see ``files.write_whole`` for errors."""
    from cocoon.sdk.files import write_whole

    write_whole(Path(path), lambda file: file.write(record), overwrite=overwrite)
