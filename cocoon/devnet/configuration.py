"""The network's configuration: TON's own, at prices that a caller chooses.

The data is ``slimConfig`` of ``@ton/sandbox`` 0.41.0: main network block 52956904
without its validators. Masterchain prices keep their ratio to those of the
basechain. Storage prices stay, because 1 nanoton per bit and 2^16 seconds
cannot be made smaller.

Purity: pure. Spec: docs/spec/devnet.md, rule DEV-12.
"""

from __future__ import annotations

import base64

from cocoon.devnet.cells import Builder, Cell, unpack
from cocoon.devnet.hashmap import load_map, store_map

#: Nanoton per gas in the data below; forward prices belong to it.
GAS_PRICE_NANOTON = 400
#: Holds the random bytes that make every network another one; TON leaves unknown parameters alone.
NONCE_PARAMETER = 0x0C0C
NONCE_BYTES = 16
CONFIG_ADDRESS_PARAMETER = 0
#: Not taken over: its black hole destroys coins; a devnet's supply is constant (DEV-19).
BURNING_PARAMETER = 5

_KEY_BITS = 32
_CELLS = 1_024
_GAS_PARAMETERS = (20, 21)
_FORWARD_PARAMETERS = (24, 25)
_DATA = (
    "te6cckECfQEABeQAAgPNwAFKAgEgAhYCASADCwIBIAQJAgEgBQcBASAGAEBVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVQEB"
    "IAgAQDMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzAQFICgBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACASAM"
    "EQIBIA0PAQEgDgBA5WdU+DQm9psJJnvYdqyXxEghNFt+JmvZVqe/v7mN81wBASAQAFMB////////////////////////////////////"
    "//////+AAAAAgAAAAUABAVgSAQHAEwIBIBQVABW+AAADvLNnDcFVUAAVv////7y9GpSiABACASAXPgIBIBglAgEgGRsBASAaABrEAAAA"
    "DAAAAAAAAAHuAQEgHAIDzUAdJAIBICoeAgEgHyICASAgIQIBIDA1AgEgMDACASAjNgIBSDIyAAOooAIBICY6AQEgJwIBICg3AgLZKTMC"
    "ASAqMQIBICssAgHUMjICASAtLwIBIC41AAFYAgEgNTACASAyMgIBzjIyAAEgAgFiNDYCASA1NQABSAAB1AIJt///8GA4OQAB/AAB3AEB"
    "IDsCApE8PQAqNgIGAgUAD0JAAJiWgAAAAAEAAAH0ACo2BAcDBQBMS0ABMS0AAAAAAgAAA+gCASA/RQIBIEBDAQEgQQEBwEIA29BTrudO"
    "zwAAAnAAKtiftocOhhpk4QsHt8jHSWwV/O7nxvFyZKUf75zoqiN3Bfb/JZk7D9mvTw7EDHU5BlaNBz2ml2s54kRzl0iBoQAAAAAP////"
    "+AAAAAAAAAAAAAAAMgAAADIAAAAPAAAB9AJAAQEgRAATGkO5rKABASAfSAIBIEZIAQEgRwAUa0ZVPxAEO5rKAAEBIEkAIAABAAAAAIAA"
    "AAAgAAAAgAACASBLYgIBIExXAgEgTVICASBOUAEBIE8ADAGQAGQASwEBIFEAN3ARDZMW7AAHI4byb8EAAIAQp0GkYngAAAAwAAgCASBT"
    "VQEBIFQATdBmAAAAAAAAAAAAAAAAgAAAAAAAAPoAAAAAAAAB9AAAAAAAA9CQQAEBIFYACP///xECASBYXQIBIFlbAQEgWgCU0QAAAAAA"
    "AABkAAAAAAAPQkDeAAAAACcQAAAAAAAAAA9CQAAAAAAELB2AAAAAAAAAJxAAAAAAACYloAAAAAAF9eEAAAAAADuaygABASBcAJTRAAAA"
    "AAAAAGQAAAAAAACcQN4AAAAAAZAAAAAAAAAAD0JAAAAAAAAPQkAAAAAAAAAnEAAAAAAAmJaAAAAAAAX14QAAAAAAO5rKAAIBIF5gAQEg"
    "XwBQXcMAAgAAAAgAAAAQAADDAAMNQAAPQkAAJiWgwwAAA+gAABOIAAAnEAEBIGEAUF3DAAQAAAAQAAAAIAAAwwAehIAAmJaAATEtAMMA"
    "AAPoAAATiAAAJxACASBjaAIBSGRmAQEgZQBC6gAAAAAAmJaAAAAAACcQAAAAAAAPQkAAAAABgABVVVVVAQEgZwBC6gAAAAAABhqAAAAA"
    "AAGQAAAAAAAAnEAAAAABgABVVVVVAgEgaW4CASBqbAEBIGsAJMIBAAAA+gAAAPoAAAPoAAAAFwEBIG0AStkBAwAAB9AAAD6AAAAAAwAA"
    "AAgAAAAEACAAAAAgAAAABQAAJxABAVhvAQHAcAIBIHF6AgEgcnkCASBzdgIBSHR1AAPfcABBvvXr/85ThwN08RVEkXrXOpCNTrUaVASn"
    "RwrD2wNe3bMUAgFYd3gAQb7ZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZnABBvtzd/oVqmcXLgHhBmcB3C+ox8o4Nczj3N4RI"
    "De9EzZAUAEK/jVwCELNdrdqiGfrEWdug/e+x+uTpeg0Hl3Of4FDWlMoCAVh7fABBv3pJiUPlcR8W4KaidrmNi0Y3iJZU5blpsYBnFeHh"
    "pv2LAEG/Va+0cTe8Yvi/ZQsA+coPdVpjhr/KppZ4gw8L0gPsmNH3xO90"
)


def configuration(nonce: bytes, gas_price_nanoton: int = GAS_PRICE_NANOTON) -> Cell:
    """The dictionary of all parameters (``Hashmap 32 ^Cell``), without ``BURNING_PARAMETER``.

    Args:
        nonce: ``NONCE_BYTES`` random bytes.
        gas_price_nanoton: Per gas on the basechain, > 0; forward prices follow in proportion.
    """
    found = {key: reader.ref() for key, reader in load_map(unpack(base64.b64decode(_DATA), _CELLS), _KEY_BITS).items()}
    del found[BURNING_PARAMETER]
    for key in _GAS_PARAMETERS:
        found[key] = _gas_prices(found[key], gas_price_nanoton)
    for key in _FORWARD_PARAMETERS:
        found[key] = _forward_prices(found[key], gas_price_nanoton)
    found[NONCE_PARAMETER] = Builder().blob(nonce).end()
    root = store_map({key: Builder().ref(cell).end() for key, cell in found.items()}, _KEY_BITS)
    assert root is not None
    return root


def parameter(config: Cell, key: int) -> Cell:
    """One parameter of a dictionary that has it."""
    return load_map(config, _KEY_BITS)[key].ref()


def _gas_prices(cell: Cell, price: int) -> Cell:
    """``gas_flat_pfx`` over ``gas_prices_ext``: flat price and price per gas (16.16) change."""
    reader = cell.read()
    builder = Builder().uint(reader.uint(8), 8).uint(reader.uint(64), 64)
    builder.uint(_scaled(reader.uint(64), price), 64).uint(reader.uint(8), 8)
    builder.uint(_scaled(reader.uint(64), price), 64)
    return builder.uint(reader.uint(reader.bits), cell.bits - builder.bits).end()


def _forward_prices(cell: Cell, price: int) -> Cell:
    """``msg_forward_prices``: lump, bit and cell price change."""
    reader = cell.read()
    builder = Builder().uint(reader.uint(8), 8)
    for _ in range(3):
        builder.uint(_scaled(reader.uint(64), price), 64)
    return builder.uint(reader.uint(reader.bits), cell.bits - builder.bits).end()


def _scaled(amount: int, price: int) -> int:
    return amount * price // GAS_PRICE_NANOTON
