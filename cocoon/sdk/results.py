"""What a caller gets for each unit: a result, or a failure that says why.

Purity: pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cocoon.core.errors import CocoonError

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(slots=True, weakref_slot=True, eq=False)
class Result:
    """One unit, run and checked.

    Attributes:
        unit: Index of the input, from 0.
        outputs: Output names to arrays, as the model computed them; text as object arrays of str.
        provider: Peer id of the provider.
        lease: Lease id, hex.
        number: Run number within the lease.
        units: What it is billed for: 1, or the tokens of a text that was embedded, or those of a decoder's answer and
            a quarter of its prompt's.
        price_nanoton: What this run costs.
        input_hash, output_hash: Salted commitments that the provider signs, hex.
        ran_us: Microseconds that the model ran, as the provider states.
        receipt: Hash of the signed receipt, hex; None until it arrived, at the latest
            with the last result of the task.
    """

    unit: int
    outputs: dict[str, npt.NDArray[Any]]
    provider: str
    lease: str
    number: int
    units: int
    price_nanoton: int
    input_hash: str
    output_hash: str
    ran_us: int
    receipt: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """One unit that has no result, and why."""

    unit: int
    error: CocoonError


Outcome = Result | Failure
