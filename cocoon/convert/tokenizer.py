"""Tokenizers: the file that the package ``tokenizers`` reads, and the bytes of each token in it.

Purity: pure. Spec: docs/spec/tokens.md, rule TOK-4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cocoon.core.errors import ModelRefused

_LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
#: How a text is cut into words before they are joined from bytes, by GGUF's names.
_CUTS: Mapping[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": _LLAMA_WORDS}, "behavior": "Isolated", "invert": False},
        {**_BYTES, "use_regex": False},
    ],
}
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_level(texts: Sequence[str], merges: Sequence[str], control: Sequence[int], cut: str) -> dict[str, Any]:
    """The tokenizer.json of a byte-level tokenizer.

    Args:
        texts: Of all tokens, by id, each byte written as one printable character.
        control: Tokens that are no text.
        cut: How texts are cut into words.

    Raises:
        ModelRefused: an unknown cut; a wrong one would give other tokens than the model was trained on.
    """
    if cut not in _CUTS:
        raise ModelRefused(f"texts are cut into words by {cut!r}, which is not known here: {', '.join(_CUTS)}")
    flags = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": number, "content": texts[number], **flags} for number in control],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _CUTS[cut]},
        "decoder": _BYTES,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {text: number for number, text in enumerate(texts)}, "merges": list(merges),
        },
    }


def pieces(tokenizer: Mapping[str, Any], vocabulary: int) -> list[bytes]:
    """The bytes of each token, by id; none for control tokens and for ids that no text has.

    Raises:
        ModelRefused: no such file, tokens written in a way that is not known here, or one beyond the vocabulary.
    """
    try:
        return _pieces(tokenizer, vocabulary)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(f"this is no tokenizer.json, or its bytes are not known here: {error!r}") from None


def _pieces(tokenizer: Mapping[str, Any], vocabulary: int) -> list[bytes]:
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    spell = _spelling(tokenizer)
    found = [b""] * vocabulary
    for text, number in tokenizer["model"]["vocab"].items():
        if not 0 <= number < vocabulary:
            raise ModelRefused(f"token {number} is beyond the vocabulary of {vocabulary}")
        if number not in added:
            found[number] = spell(text)
    for number, token in added.items():
        if not token["special"] and number < vocabulary:
            found[number] = token["content"].encode()
    return found


def _spelling(tokenizer: Mapping[str, Any]) -> Callable[[str], bytes]:
    decoder = tokenizer["decoder"] or {}
    kinds = {part.get("type") for part in (decoder, *decoder.get("decoders", ()))}
    if "ByteLevel" in kinds:
        table = byte_table()
        return lambda text: bytes(table[character] for character in text)
    if "ByteFallback" in kinds:
        return _fallback
    raise ModelRefused("tokens are neither written byte by byte nor with bytes to fall back on")


def _fallback(text: str) -> bytes:
    if match := _BYTE.fullmatch(text):
        return bytes([int(match[1], 16)])
    return text.replace("\u2581", " ").encode()


def byte_table() -> dict[str, int]:
    """The byte that each character of a byte-level token stands for: itself if printable, else one from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
