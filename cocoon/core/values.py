"""Values: named fields that never change, equal if their fields are.

A frozen dataclass is compiled anew at every start, a thousandth of a second each,
and sets its fields one by one through a guard. There are hundreds of them here, and
a peer makes thousands a second, so these are msgspec's, which are made in C.

Purity: pure. Spec: docs/adr/0011-values-are-structs.md.
"""

from __future__ import annotations

from typing import dataclass_transform

from msgspec import Struct
from msgspec import field as field
from msgspec.structs import asdict as asdict
from msgspec.structs import astuple as astuple
from msgspec.structs import replace as replace


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Value(Struct, frozen=True):
    """Base of every value. Its fields are the arguments, in order; ``replace`` makes a changed one."""
