"""Wallet V5R1: its address, its first state, and the messages it carries.

The wallet is the ordinary one that wallet applications use, so that the words
alone give the coins back to their owner in any of them.

Purity: pure; the signature is the signer's. Spec: docs/spec/wallet.md, rules WAL-1, WAL-2, WAL-5 and WAL-6.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.limits import WALLET_MESSAGES
from cocoon.core.values import Value
from cocoon.ledger.onchain import Prices
from cocoon.wire.boc import tree_size, unpack
from cocoon.wire.cells import Cell, CellBuilder, state_init
from cocoon.wire.widths import SIGNATURE_BYTES

#: Hash of the code, by which everybody knows this wallet.
CODE_HASH = bytes.fromhex("20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f")
_CODE = (
    "te6ccgECFAEAAoEAART/APSkE/S88sgLAQIBIAINAgFIAwQC3NAg10nBIJFbj2Mg1wsfIIIQZXh0br0hghBzaW50vbCSXwPgghBleHRu"
    "uo60gCDXIQHQdNch+kAw+kT4KPpEMFi9kVvg7UTQgQFB1yH0BYMH9A5voTGRMOGAQNchcH/bPOAxINdJgQKAuZEw4HDiEA8CASAFDAIB"
    "IAYJAgFuBwgAGa3OdqJoQCDrkOuF/8AAGa8d9qJoQBDrkOuFj8ACAUgKCwAXsyX7UTQcdch1wsfgABGyYvtRNDXCgCAAGb5fD2omhAgK"
    "DrkPoCwBAvIOAR4g1wsfghBzaWduuvLgin8PAeaO8O2i7fshgwjXIgKDCNcjIIAg1yHTH9Mf0x/tRNDSANMfINMf0//XCgAK+QFAzPkQ"
    "miiUXwrbMeHywIffArNQB7Dy0IRRJbry4IVQNrry4Ib4I7vy0IgikvgA3gGkf8jKAMsfAc8Wye1UIJL4D95w2zzYEAP27aLt+wL0BCFu"
    "kmwhjkwCIdc5MHCUIccAs44tAdcoIHYeQ2wg10nACPLgkyDXSsAC8uCTINcdBscSwgBSMLDy0InXTNc5MAGk6GwShAe78uCT10rAAPLg"
    "k+1V4tIAAcAAkVvg69csCBQgkXCWAdcsCBwS4lIQseMPINdKERITAJYB+kAB+kT4KPpEMFi68uCR7UTQgQFB1xj0BQSdf8jKAEAEgwf0"
    "U/Lgi44UA4MH9Fvy4Iwi1woAIW4Bs7Dy0JDiyFADzxYS9ADJ7VQAcjDXLAgkji0h8uCS0gDtRNDSAFETuvLQj1RQMJExnAGBAUDXIdcK"
    "APLgjuLIygBYzxbJ7VST8sCN4gAQk1vbMeHXTNA="
)
_CODE_BYTES = 653
_CODE_CELLS = 20

_SIGNED_EXTERNAL = 0x7369676E
_SEND_MESSAGE = 0x0EC3C86D
#: Pay fees apart from the value (1) and skip what the balance does not cover (2): the contract demands the
#: second, so a transaction of the wallet does not yet prove that its message left (OUT-6).
_SEND_MODE = 3
_CLIENT_CONTEXT = 1 << 31  # workchain 0, version 0, subwallet 0


class Outgoing(Value):
    """One internal message that a wallet sends.

    Attributes:
        dest: Hash part of an address in workchain 0.
        state_init: Deploys the contract at ``dest`` if it is not there yet.
        bounce: Whether the value returns if the message cannot be taken.
    """

    dest: bytes
    value_nanoton: int
    body: Cell | None = None
    state_init: Cell | None = None
    bounce: bool = True

    def cell(self) -> Cell:
        """The message as a contract emits it; source, times and fees are filled in by the chain."""
        builder = CellBuilder().uint(0b01, 2).uint(self.bounce, 1).uint(0, 1)  # int_msg_info, no IHR
        builder.uint(0b00, 2).address(self.dest)
        builder.coins(self.value_nanoton).uint(0, 1).coins(0).coins(0).uint(0, 64).uint(0, 32)
        return _rest(builder, self.state_init, self.body)


class WalletState(Value):
    """What a deployed wallet's data says."""

    seqno: int
    wallet_id: int
    public_key: bytes


def wallet_id(network_id: int) -> int:
    """The number that keeps a signature from being used on another network, 32 bits.

    Args:
        network_id: -239 on mainnet, -3 elsewhere (``ChainFacts.global_id``).
    """
    return (_CLIENT_CONTEXT ^ network_id) & 0xFFFF_FFFF


@cache
def wallet_code() -> Cell:
    """Code of the wallet contract."""
    return unpack(base64.b64decode(_CODE), max_bytes=_CODE_BYTES, max_cells=_CODE_CELLS)


def wallet_state_init(public_key: bytes, network_id: int) -> Cell:
    """What deploys the wallet of a key: its code, and data with sequence number 0."""
    data = CellBuilder().uint(1, 1).uint(0, 32).uint(wallet_id(network_id), 32).blob(public_key, 32).uint(0, 1)
    return state_init(wallet_code(), data.end())


def wallet_address(public_key: bytes, network_id: int) -> bytes:
    """Hash part of the wallet's address."""
    return wallet_state_init(public_key, network_id).hash()


def deployment_nanoton(prices: Prices, public_key: bytes, network_id: int) -> int:
    """What the first message of a wallet costs above any later one: the state that it brings (WAL-6)."""
    cells, bits = tree_size(wallet_state_init(public_key, network_id))
    return prices.forward_fee_nanoton(cells, bits) - prices.forward_fee_nanoton(0, 0)


def read_wallet(code_hash: bytes | None, data: Cell | None) -> WalletState | None:
    """Read a wallet's proven state; None if it is not deployed yet.

    Raises:
        Malformed: something else is deployed there.
    """
    if data is None:
        return None
    fixed = 1 + 32 + 32 + 256
    if code_hash != CODE_HASH or data.bits != fixed + 1:
        raise Malformed("the account is no wallet V5R1")
    words = data.value >> 1
    return WalletState(
        seqno=words >> 288 & 0xFFFF_FFFF,
        wallet_id=words >> 256 & 0xFFFF_FFFF,
        public_key=(words & (1 << 256) - 1).to_bytes(32, "big"),
    )


def unsigned_transfer(network_id: int, seqno: int, valid_until_s: int, messages: Sequence[Outgoing]) -> Cell:
    """The cell whose hash the wallet key signs.

    Raises:
        UsageError: none or more than ``WALLET_MESSAGES`` messages.
    """
    if not 0 < len(messages) <= WALLET_MESSAGES:
        raise UsageError(f"one signature carries 1 to {WALLET_MESSAGES} messages, not {len(messages)}")
    actions = Cell(0, 0)
    for message in messages:
        action = CellBuilder().ref(actions).uint(_SEND_MESSAGE, 32).uint(_SEND_MODE, 8)
        actions = action.ref(message.cell()).end()
    builder = CellBuilder().uint(_SIGNED_EXTERNAL, 32).uint(wallet_id(network_id), 32)
    builder.uint(valid_until_s, 32).uint(seqno, 32)
    return builder.uint(1, 1).ref(actions).uint(0, 1).end()


def signed_body(unsigned: Cell, signature: bytes) -> Cell:
    """Body of the external message: the signed cell's content and 64 bytes of signature."""
    return CellBuilder().inline(unsigned).blob(signature, SIGNATURE_BYTES).end()


def external_message(dest: bytes, body: Cell, state_init: Cell | None = None) -> Cell:
    """An external message as a liteserver takes it."""
    builder = CellBuilder().uint(0b10, 2).uint(0b00, 2).address(dest)
    return _rest(builder.coins(0), state_init, body)


def _rest(builder: CellBuilder, state_init: Cell | None, body: Cell | None) -> Cell:
    """Close a message: state and body by reference, an empty body in place."""
    if state_init is None:
        builder.uint(0, 1)
    else:
        builder.uint(0b11, 2).ref(state_init)
    if body is None or not (body.bits or body.refs):
        return builder.uint(0, 1).end()
    return builder.uint(1, 1).ref(body).end()

