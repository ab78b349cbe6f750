"""TOK-28: text around a decoder, from files that a stranger may have written."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from cocoon.core.errors import ModelRefused, UsageError
from cocoon.core.limits import STOP_TOKENS, TEMPLATE_CHARS
from cocoon.sdk import text
from cocoon.sdk.text import Text, read_text
from cocoon.wire.tokens import pack_pieces

PLAIN = (
    "{% for one in messages %}<{{ one.role }}>{{ one.content }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
PIECES = (b"a", "é".encode()[:1], "é".encode()[1:], b"end", b"\xff")
TURNS = [{"role": "user", "content": "hello"}]


class ByCharacter:
    """A tokenizer whose tokens are code points."""

    def encode(self, said: str, *, add_special_tokens: bool) -> Any:
        assert not add_special_tokens
        return SimpleNamespace(ids=[ord(one) for one in said])


def made(template: str | None = PLAIN, first: int | None = None) -> Text:
    return Text(PIECES, (3,), template, first, ByCharacter())


def read(tokens: tuple[int, ...]) -> str:
    return "".join(map(chr, tokens))


def test_a_conversation_is_written_by_the_template_and_a_text_as_it_stands() -> None:
    assert read(made().chat(TURNS)) == "<user>hello<a>"
    assert read(made().tokens("hello")) == "hello"
    assert made(first=1).tokens("h") == (1, ord("h")), "a template writes its first token itself"


def test_a_decoder_without_a_template_has_no_conversations() -> None:
    with pytest.raises(UsageError, match="--raw"):
        made(None).chat(TURNS)


@pytest.mark.parametrize("template", [
    "{{ messages.__class__.__mro__[-1].__subclasses__() }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{% for i in range(1000000) %}x{% endfor %}",
    "{{ messages.append(1) }}", "{{ 1 // 0 }}", "{% for %}", "{{ 'x' * 10 ** 14 }}", "{{ missing.part }}",
    "{{ raise_exception('no') }}",
    f"{{{{ 'x' * {2 * TEMPLATE_CHARS} }}}}",
])
def test_a_template_that_reaches_for_more_writes_too_much_or_breaks_is_refused(template: str) -> None:
    with pytest.raises(ModelRefused):
        made(template).chat(TURNS)


@pytest.mark.parametrize("template", [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 9 ** (9 ** 9) }}",
], ids=["loops", "counts"])
def test_a_template_that_never_ends_is_refused(template: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        made(template).chat(TURNS)
    assert "more than 2 s of the processor" in refused.value.text


def test_a_template_that_grows_is_refused_for_its_memory() -> None:
    grows = "{% set x = namespace(y='y' * 9000) %}{% for a in range(18) %}{% set x.y = x.y ~ x.y %}{% endfor %}"
    with pytest.raises(ModelRefused) as refused:
        made(grows).chat(TURNS)
    assert "does not work" in refused.value.text


def test_a_character_that_is_split_between_two_tokens_comes_with_the_second() -> None:
    reader = made().reader()
    assert [reader.feed(token) for token in (0, 1, 2, 4, 3, 99)] == ["a", "", "é", "\ufffd", "", ""]
    assert made().text((0, 1, 2, 3), 3) == "aé" and made().text((0, 1, 2, 3), 2) == "a\ufffd"


@pytest.mark.parametrize("described", [
    b"", b"[]", b"{}", b'{"stop_tokens": 3}', b'{"stop_tokens": ["x"]}', b'{"stop_tokens": [], "chat_template": 3}',
    b'{"stop_tokens": [], "first_token": "x"}', b"[" * 100_000,
    json.dumps({"stop_tokens": [0] * (STOP_TOKENS + 1)}).encode(),
    json.dumps({"stop_tokens": [], "chat_template": "x" * (TEMPLATE_CHARS + 1)}).encode(),
])
def test_a_description_that_no_converter_writes_is_refused(described: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(Tokenizer=SimpleNamespace(from_str=lambda told: ByCharacter()))
    monkeypatch.setitem(sys.modules, "tokenizers", library)
    good = json.dumps({"stop_tokens": [3], "chat_template": PLAIN, "first_token": None}).encode()
    assert read_text(b"{}", good, pack_pieces(PIECES)).stop_tokens == (3,)
    with pytest.raises(ModelRefused):
        read_text(b"{}", described, pack_pieces(PIECES))


def test_a_tokenizer_that_cannot_be_read_is_refused() -> None:
    for data in (b"x", b"\xff"):
        with pytest.raises(ModelRefused, match="tokenizer"):
            read_text(data, b"{}", b"")


def test_without_the_library_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"cocoon-mesh\[text\]"):
        read_text(b"{}", b"{}", b"")
    assert text.FILES == ("tokenizer.json", "decoder.json", "tokens.bin")
