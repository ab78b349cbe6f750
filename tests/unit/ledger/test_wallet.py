"""Wallet V5R1 and the way from words to keys, against pytoniq and published figures (WAL-1 to WAL-6)."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq.contract.wallets.wallet_v5 import WalletV5R1, WalletV5WalletID
from pytoniq_core import Address
from pytoniq_core import Cell as ForeignCell
from pytoniq_core.crypto import keys as foreign_keys
from pytoniq_core.crypto.signature import verify_sign
from pytoniq_core.tlb.account import StateInit
from pytoniq_core.tlb.custom.wallet import WalletMessage

from cocoon.core.errors import BadWords, Malformed, UsageError
from cocoon.core.limits import WALLET_MESSAGES
from cocoon.identity.keys import key_pair
from cocoon.ledger import mnemonic, wallet
from cocoon.ledger.wallet import Outgoing
from cocoon.ledger.words import WORDS
from cocoon.wire.boc import pack, unpack
from cocoon.wire.cells import Cell, CellBuilder

PAIR = key_pair(bytes(range(32)))
DEST = bytes(range(32, 64))
BODY = CellBuilder().uint(0x0C0C0001, 32).ref(CellBuilder().blob(b"abc", 3).end()).end()
STATE = CellBuilder().uint(0b00110, 5).ref(Cell(1, 1)).ref(Cell(2, 2)).end()
#: Drawn once with pytoniq's own generator.
PHRASE = (
    "second romance ticket garlic festival share second truck rapid analyst notable piece "
    "hire myth ghost stock cave beach brisk robust equip there route hockey"
)


def foreign(cell: Cell) -> ForeignCell:
    return ForeignCell.one_from_boc(pack(cell))


def ours(cell: ForeignCell) -> Cell:
    return unpack(cell.to_boc())


def test_the_code_is_the_published_wallet_v5r1():
    """The hash under which wallet applications and explorers know the contract."""
    assert wallet.wallet_code().hash() == wallet.CODE_HASH


def test_wallet_ids_are_the_published_ones():
    """Mainnet and testnet, workchain 0, subwallet 0."""
    assert wallet.wallet_id(-239) == 2_147_483_409
    assert wallet.wallet_id(-3) == 2_147_483_645


@pytest.mark.parametrize("network_id", [-239, -3])
def test_the_address_is_what_pytoniq_computes(network_id):
    data = WalletV5R1.create_data_cell(PAIR.key, network_global_id=network_id)
    state = StateInit(code=foreign(wallet.wallet_code()), data=data)
    found = wallet.wallet_state_init(PAIR.key, network_id)
    assert found == ours(state.serialize())
    assert wallet.wallet_address(PAIR.key, network_id) == state.serialize().hash


@pytest.mark.parametrize("state_init", [None, STATE])
@pytest.mark.parametrize("body", [None, BODY])
@pytest.mark.parametrize("bounce", [True, False])
def test_a_message_reads_back_in_pytoniq_as_it_was_meant(body, state_init, bounce):
    from pytoniq_core.tlb.transaction import MessageAny

    outgoing = Outgoing(DEST, 1_234_567_890, body, state_init, bounce)
    read = MessageAny.deserialize(foreign(outgoing.cell()).begin_parse())
    assert (read.info.dest.wc, read.info.dest.hash_part) == (0, DEST)
    assert (read.info.value_coins, read.info.bounce, read.info.bounced) == (1_234_567_890, bounce, False)
    assert read.body.hash == (body or Cell(0, 0)).hash()
    assert (None if read.init is None else read.init.serialize().hash) == (state_init and state_init.hash())


def test_the_signed_cell_is_what_pytoniq_signs():
    """Two messages, one signature: equal to the bit, and the signature holds in another library."""
    outgoing = [Outgoing(DEST, 5, BODY), Outgoing(DEST[::-1], 10**18, None, STATE, False)]
    theirs = WalletV5R1.raw_create_transfer_msg(
        WalletV5R1.__new__(WalletV5R1), PAIR.seed + PAIR.key, 7,
        WalletV5WalletID(-3, workchain=0).pack(),
        [WalletMessage(send_mode=3, message=_Ready(foreign(m.cell()))) for m in outgoing], valid_until=1_900_000_000,
    )
    unsigned = wallet.unsigned_transfer(-3, 7, 1_900_000_000, outgoing)
    signature = PAIR.sign(unsigned.hash())
    assert verify_sign(PAIR.key, unsigned.hash(), signature)
    assert wallet.signed_body(unsigned, signature) == ours(theirs)


class _Ready:
    """A message that is a cell already."""

    def __init__(self, cell: ForeignCell) -> None:
        self._cell = cell

    def serialize(self) -> ForeignCell:
        return self._cell


def test_the_external_message_reads_back_in_pytoniq():
    from pytoniq_core.tlb.transaction import MessageAny

    state = wallet.wallet_state_init(PAIR.key, -3)
    for init in (None, state):
        read = MessageAny.deserialize(foreign(wallet.external_message(DEST, BODY, init)).begin_parse())
        assert read.is_external and read.info.dest == Address((0, DEST)) and read.info.import_fee == 0
        assert read.body.hash == BODY.hash()
        assert (None if read.init is None else read.init.serialize().hash) == (init and init.hash())


def test_a_wallets_data_reads_back():
    data = ours(WalletV5R1.create_data_cell(PAIR.key, network_global_id=-3))
    found = wallet.read_wallet(wallet.CODE_HASH, data)
    assert found == wallet.WalletState(0, wallet.wallet_id(-3), PAIR.key)
    assert wallet.read_wallet(None, None) is None


def test_a_foreign_contract_is_not_taken_for_a_wallet():
    data = ours(WalletV5R1.create_data_cell(PAIR.key, network_global_id=-3))
    for code_hash, found in ((bytes(32), data), (wallet.CODE_HASH, Cell(0, 321)), (None, data)):
        with pytest.raises(Malformed):
            wallet.read_wallet(code_hash, found)


def test_no_signature_covers_nothing_or_more_than_the_bound():
    for count in (0, WALLET_MESSAGES + 1):
        with pytest.raises(UsageError, match=str(count)):
            wallet.unsigned_transfer(-3, 0, 1, [Outgoing(DEST, 1)] * count)


def test_an_amount_below_zero_has_no_form():
    with pytest.raises(UsageError):
        Outgoing(DEST, -1).cell()


@given(
    amount=st.integers(0, 2**100), bounce=st.booleans(), bits=st.integers(0, 900), data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_any_message_is_one_that_pytoniq_reads(amount, bounce, bits, data):
    from pytoniq_core.tlb.transaction import MessageAny

    body = Cell(data.draw(st.integers(0, (1 << bits) - 1)), bits)
    read = MessageAny.deserialize(foreign(Outgoing(DEST, amount, body, None, bounce).cell()).begin_parse())
    assert (read.info.value_coins, read.info.bounce, read.body.hash) == (amount, bounce, body.hash())


# --- words -----------------------------------------------------------------


def test_the_words_are_those_of_bip39():
    digest = hashlib.sha256(("\n".join(WORDS) + "\n").encode()).hexdigest()
    assert digest == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"


def test_words_give_the_key_that_pytoniq_finds():
    words = mnemonic.parse_words(PHRASE)
    public, private = foreign_keys.mnemonic_to_private_key(list(words))
    assert mnemonic.wallet_seed(words) == private[:32]
    assert key_pair(mnemonic.wallet_seed(words)).key == public


def test_words_that_pytoniq_takes_are_lawful_and_others_are_not():
    words = PHRASE.split()
    assert foreign_keys.mnemonic_is_valid(words) and mnemonic.is_lawful(words)
    swapped = [words[1], words[0], *words[2:]]
    assert mnemonic.is_lawful(swapped) == foreign_keys.mnemonic_is_valid(swapped)


def test_a_phrase_is_read_whatever_its_case_and_white_space():
    assert mnemonic.parse_words("  " + PHRASE.upper().replace(" ", "\n ")) == tuple(PHRASE.split())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda words: words[:-1],
        lambda words: [*words, words[0]],
        lambda words: ["abandn", *words[1:]],
        lambda words: [words[1], words[0], *words[2:]],
        lambda words: [],
    ],
)
def test_a_wrong_phrase_is_refused_and_never_quoted(spoil):
    words = spoil(PHRASE.split())
    with pytest.raises(BadWords) as caught:
        mnemonic.parse_words(" ".join(words))
    told = re.findall("[a-z]+", caught.value.text.lower())
    assert told and not set(words) & set(told)


def test_drawn_words_depend_on_every_pair_of_bytes():
    entropy = bytes(range(48))
    words = mnemonic.words_of(entropy)
    assert len(words) == 24 and set(words) <= set(WORDS)
    for at in range(0, 48, 2):
        other = mnemonic.words_of(entropy[:at] + b"\x07\x5b" + entropy[at + 2 :])
        assert [a != b for a, b in zip(words, other, strict=True)] == [place == at // 2 for place in range(24)]


def test_keys_are_derived_by_hkdf_and_differ_by_chain_index_and_purpose():
    """The golden values hold WAL-4: a change would lose every lane of every user."""
    seed, genesis = bytes(range(32)), bytes(range(64, 96))
    key = hmac.new(b"cocoon lane key 1", seed, hashlib.sha256).digest()
    info = genesis + (5).to_bytes(4, "big") + b"\x01"
    assert mnemonic.lane_seed(seed, genesis, 5) == hmac.new(key, info, hashlib.sha256).digest()
    found = {
        mnemonic.lane_seed(seed, genesis, 0),
        mnemonic.lane_seed(seed, genesis, 1),
        mnemonic.lane_seed(seed, genesis[::-1], 0),
        mnemonic.lane_seed(seed[::-1], genesis, 0),
        mnemonic.provider_seed(seed, genesis),
        mnemonic.provider_seed(seed, genesis[::-1]),
        seed,
    }
    assert len(found) == 7


def test_derivation_agrees_with_another_hkdf():
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    seed, genesis = bytes(range(32)), bytes(range(64, 96))
    theirs = HKDF(SHA256(), 32, b"cocoon provider key 1", genesis).derive(seed)
    assert mnemonic.provider_seed(seed, genesis) == theirs
    theirs = HKDF(SHA256(), 32, b"cocoon lane key 1", genesis + b"\0\0\1\0").derive(seed)
    assert mnemonic.lane_seed(seed, genesis, 256) == theirs
