"""Laws of the wire: what is written is read back, and nothing else is ever believed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import PeerFault
from cocoon.core.units import UnitKind
from cocoon.wire import declarations as d
from cocoon.wire import messages as m
from cocoon.wire import types as t
from cocoon.wire.codec import decode, encode
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.manifest import Manifest, ModelFile, pack_manifest, unpack_manifest
from cocoon.wire.merkle import EMPTY_ROOT
from cocoon.wire.schema import Message, body_bytes, kinds, pack, unpack, unpack_body
from cocoon.wire.signing import open_signed, sign
from tests.vectors import samples

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-"
PRINTABLE = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"))
KINDS = [cls for cls in kinds() if cls.__module__.startswith("cocoon.")]


def values(wire: t.Wire[Any]) -> st.SearchStrategy[Any]:
    """Everything that a field of this type may hold; byte strings kept short."""
    match wire:
        case t.Uint():
            return st.integers(0, (1 << wire.bits) - 1)
        case t.Flag():
            return st.booleans()
        case t.Exactly():
            return st.binary(min_size=min(wire.size, 64), max_size=min(wire.size, 64)).map(
                lambda raw: (raw * (wire.size // len(raw) + 1))[: wire.size]
            )
        case t.UpTo():
            step = wire.step
            return st.binary(max_size=min(wire.size, 96)).map(lambda raw: raw[: len(raw) // step * step])
        case t.Line():
            return st.text(PRINTABLE, max_size=min(wire.chars, 40))
        case t.Word():
            return st.text(LETTERS, min_size=1, max_size=wire.chars)
        case t.Each():
            return st.lists(values(wire.item), min_size=wire.least, max_size=wire.most).map(tuple)
        case t.Row():
            return st.tuples(*map(values, wire.items))
        case t.Record():
            return values(wire.row).map(lambda row: wire.make(*row))
    raise AssertionError(wire)


PRICES = st.dictionaries(st.sampled_from([int(kind) for kind in UnitKind]), st.integers(0, (1 << 64) - 1)).map(
    lambda prices: tuple(sorted(prices.items()))
)
PARTS = st.text("abcXYZ019_+-", min_size=1, max_size=9)
FILE, INDEX = st.integers(0, 63), st.integers(0, 1_023)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(PATHS, st.integers(0, 1 << 20), min_size=1, max_size=9).map(
    lambda sizes: tuple(
        ModelFile(path, size, samples.word(path) if size else EMPTY_ROOT)
        for path, size in sorted(sizes.items())
    )
)
#: Fields of a package; drawn as they come they would hardly ever be lawful together.
DECLARED: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(PRINTABLE, min_size=1, max_size=9).filter(lambda text: text == text.strip()),
    "version": st.sampled_from(["1", "2.0-rc1"]),
    "licence": st.sampled_from(["MIT", "GPL-2.0+ WITH Classpath-exception-2.0", "(MIT OR Apache-2.0) AND CC0-1.0"]),
    "kind": st.sampled_from(d.KINDS),
    "unit": st.sampled_from(d.UNITS),
    "inputs": st.lists(st.sampled_from("abc"), min_size=1, unique=True).map(
        lambda names: tuple(d.End(name, "float32", ("batch", "?", "3")) for name in names)
    ),
    "outputs": st.just((d.End("y", "string", ("*",)),)),
    "before": st.lists(st.sampled_from(d.BEFORE), min_size=1, max_size=8).map(tuple),
    "after": st.lists(st.sampled_from(d.AFTER), min_size=1, max_size=8).map(tuple),
    "joinable": values(d.TOLERANCE),
    "determinism": st.sampled_from(d.DETERMINISM),
    "main": st.nothing(),
}
SETS = st.sets(st.text(LETTERS, min_size=1, max_size=16), min_size=1, max_size=4).map(sorted).map(tuple)
SCALARS = st.integers(0, 1 << 32) | st.booleans() | st.binary(max_size=40) | st.text(max_size=9)
HELD = st.dictionaries(
    st.binary(min_size=32, max_size=32), st.tuples(values(m.BOOT_ID), values(t.U64), values(t.U32)), max_size=9
).map(lambda held: tuple((key, *held[key]) for key in sorted(held)))
#: Fields with a law of their own.
SPECIAL: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("offer", "prices"): PRICES,
    ("offer", "kinds"): SETS,
    ("lease", "prices"): PRICES,
    ("key_bundle", "public"): st.binary(min_size=64, max_size=64).map(lambda raw: raw * 19),
    ("manifest", "files"): FILES,
    **{("manifest", name): st.none() | declared for name, declared in DECLARED.items()},
    ("interest", "kinds"): SETS,
    ("offer_digest", "first"): st.just(bytes(32)),
    ("offer_digest", "last"): st.just(bytes([255]) * 32),
    ("offer_digest", "held"): HELD,
    ("chunk", "index"): INDEX,
    ("alike", "columns"): st.integers(2, 9).flatmap(
        lambda count: st.lists(st.lists(SCALARS, min_size=count, max_size=count).map(tuple), min_size=1, max_size=8)
    ).map(tuple),
    **{(name, "file"): FILE for name in ("model_want", "chunk_hashes", "chunk", "chunk_request")},
    **{(name, part): INDEX for name in ("model_want", "chunk_request") for part in ("first", "count")},
}


def messages_of(cls: type[Message]) -> st.SearchStrategy[Message]:
    fields = {}
    for item in cls.shape.fields:
        special = SPECIAL.get((cls.shape.name, item.name))
        fields[item.name] = values(item.wire) if special is None else special
    return st.builds(cls, **fields).filter(lambda msg: msg.flaw() is None)


MESSAGES = st.sampled_from(KINDS).flatmap(messages_of)
#: A lease must be signed by the requester that it names.
SIGNABLE = [cls for cls in KINDS if cls.shape.signed_by is not None and cls is not m.Lease]


@given(MESSAGES)
def test_every_message_is_read_back_as_it_was_written(msg: Message) -> None:
    assert unpack_body(type(msg), body_bytes(msg)) == msg
    if msg.shape.signed_by is None:
        data = pack(msg)
        assert unpack(data, type(msg)) == msg
        assert len(data) <= msg.shape.max_bytes


@given(st.sampled_from(SIGNABLE).flatmap(messages_of))
def test_every_signed_message_opens_and_packs_to_the_same_bytes(msg: Message) -> None:
    signed = sign(msg, samples.PROVIDER)
    data = signed.pack()
    opened = open_signed(data, type(msg), signer=samples.PROVIDER.key)
    assert opened == signed
    assert opened.pack() == data
    assert len(data) <= msg.shape.max_bytes


def _never_foreign(data: bytes) -> None:
    """Reading ``data`` as anything at all ends in a message or a fault of the peer."""
    for cls in KINDS:
        try:
            if cls.shape.signed_by is None:
                unpack(data, cls)
            else:
                open_signed(data, cls)
        except PeerFault:
            pass
        try:
            unpack_body(cls, data)
        except PeerFault:
            pass
    for read in (unpack_manifest, Voucher.unpack, Statement.unpack):
        try:
            read(data)
        except PeerFault:
            pass


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_foreign(data: bytes) -> None:
    _never_foreign(data)


@given(st.data())
def test_a_damaged_message_never_raises_anything_foreign(data: st.DataObject) -> None:
    """Cut, overwritten, or with bytes slipped in: nearer to the truth than arbitrary bytes."""
    original = samples.packed(samples.MESSAGES[data.draw(st.sampled_from(sorted(samples.MESSAGES)))])
    at = data.draw(st.integers(0, len(original)))
    patch = data.draw(st.binary(max_size=12))
    skip = data.draw(st.sampled_from([0, len(patch), len(patch) + 1, 30]))
    _never_foreign(original[:at] + patch + original[at + skip :])


@given(FILES)
def test_a_manifest_is_read_back_as_it_was_written(files: tuple[ModelFile, ...]) -> None:
    manifest = Manifest(format="onnx", files=files)
    assert unpack_manifest(pack_manifest(manifest)) == manifest


U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
HASH = st.binary(min_size=32, max_size=32)
ALG = st.sampled_from([1, 2])


@given(st.builds(Voucher, U32, HASH, U32, U32, U64, HASH))
def test_a_voucher_is_read_back_as_it_was_written(voucher: Voucher) -> None:
    assert Voucher.unpack(voucher.pack()) == voucher


@given(st.builds(Statement, HASH, U32, ALG, HASH, ALG, HASH, U32, U64, U32, U32))
def test_a_statement_is_read_back_as_it_was_written(statement: Statement) -> None:
    assert Statement.unpack(statement.pack()) == statement


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=9)
SCALARS = st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | TEXT | st.binary(max_size=40)


def trees(keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    level = SCALARS
    for _ in range(3):
        level = SCALARS | st.lists(level, max_size=4) | st.dictionaries(keys, level, max_size=4)
    return level


@given(trees(U64))
def test_a_value_with_integer_keys_is_read_back_as_it_was_written(value: Any) -> None:
    data = encode(value)
    assert decode(data, max_bytes=len(data)) == value


@given(trees(TEXT))
def test_a_value_with_text_keys_is_read_back_as_it_was_written(value: Any) -> None:
    data = encode(value, keys="str")
    assert decode(data, max_bytes=len(data), keys="str") == value


@given(st.binary(max_size=80))
def test_whatever_decodes_encodes_to_the_same_bytes(data: bytes) -> None:
    """One spelling per value, over all bytes that Hypothesis can think of; but on the control socket, CTL-3."""
    try:
        value = decode(data, max_bytes=80)
    except PeerFault:
        return
    assert encode(value) == data


@given(st.binary(max_size=80))
def test_any_short_bytes_on_the_control_socket_are_a_value_or_a_fault(data: bytes) -> None:
    try:
        value = decode(data, max_bytes=80, keys="str")
    except PeerFault:
        return
    assert value is not None and len(repr(value)) < 9_000, "no level too many for who shows it"
