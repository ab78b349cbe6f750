"""The faucet: the account that holds all coins of a new devnet and gives them to anybody.

Purity: pure. Spec: docs/spec/devnet.md, rules DEV-9 and DEV-20; contracts/faucet.tolk.
"""

from __future__ import annotations

from cocoon.core.units import NANOTON_PER_TON
from cocoon.devnet.blocks import BASE
from cocoon.devnet.cells import Builder, Cell, unpack
from cocoon.devnet.faucet_code import FAUCET_CODE_BOC
from cocoon.devnet.formats import Holder, active_account

#: All coins of a devnet.
SUPPLY_NANOTON = 5_000_000 * NANOTON_PER_TON

_CELLS = 64


def faucet(at_s: int) -> tuple[Holder, Cell]:
    """Address and account of the faucet in a zerostate made at ``at_s``.

    The address is the hash of code and empty data, so every devnet of one version has the same.
    """
    code, data = unpack(FAUCET_CODE_BOC, _CELLS), Builder().end()
    state = Builder().uint(0, 2).maybe(code).maybe(data).uint(0, 1).end()
    holder = (BASE, state.hash)
    return holder, active_account(holder, SUPPLY_NANOTON, code, data, at_s)
