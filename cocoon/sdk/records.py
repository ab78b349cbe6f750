"""Receipts as files, and their verification without any peer.

Purity: shell. Spec: docs/spec/receipts.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cocoon.core import limits
from cocoon.core.errors import LimitExceeded, NotFound, UsageError, wrong
from cocoon.core.ids import peer_id
from cocoon.core.units import KIB


def verify_record(record: bytes, expected: str | None = None) -> dict[str, Any]:
    """Check every signature and hash of a receipt record on this machine.

    Args:
        record: As ``Client.record`` returns it.
        expected: Hash (hex) of the receipt that it must be.

    Returns:
        What it proves, for people: receipt, lease, provider, requester, model, runs with
        their commitments, prices in nanoton and times in microseconds.

    Raises:
        Malformed, BadSignature, WrongField: what does not hold.
    """
    from cocoon.ledger.verify import verify_record as verify

    facts = verify(record)
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
    """Read a record file.

    Raises:
        NotFound: no such file. LimitExceeded: longer than any record.
    """
    try:
        if not os.path.isfile(path):
            raise NotFound(f"there is no regular file {os.fspath(path)!r}")
        with open(path, "rb") as file:
            data = file.read(limits.RECORD_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None
    if len(data) > limits.RECORD_BYTES:
        raise LimitExceeded(f"{os.fspath(path)!r} is longer than {limits.RECORD_BYTES // KIB} KiB")
    return data


def save_record(path: str | os.PathLike[str], record: bytes, *, overwrite: bool = False) -> None:
    """Write a record file, whole or not at all; see ``files.write_whole`` for errors."""
    from cocoon.sdk.files import write_whole

    write_whole(Path(path), lambda file: file.write(record), overwrite=overwrite)
