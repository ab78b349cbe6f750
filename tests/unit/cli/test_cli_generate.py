"""generate: what is said of an answer once it is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cocoon.cli.generate import generate
from cocoon.sdk import Answer


def answering(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """A peer whose decoder answers "ab" to everything."""
    result: Any = SimpleNamespace(provider="p", lease="l", number=1, units=3, price_nanoton=0, receipt="r")
    client = SimpleNamespace(
        model_file=lambda model, name: b"", generate=lambda *asked, **options: [Answer((1, 2), 2, reason, result)]
    )
    text = SimpleNamespace(
        tokens=lambda prompt: (7,), stop_tokens=(), reader=lambda: SimpleNamespace(feed=str),
        text=lambda tokens, size_bytes: "ab",
    )
    monkeypatch.setattr("cocoon.sdk.connect", lambda home: client)
    monkeypatch.setattr("cocoon.sdk.text.read_text", lambda *files: text)


@pytest.mark.parametrize(("reason", "is_cut"), [("stop_token", False), ("length", False), ("cancelled", True)])
def test_an_answer_that_its_provider_cut_short_is_called_so(
    monkeypatch: pytest.MonkeyPatch, reason: str, is_cut: bool
) -> None:
    answering(monkeypatch, reason)
    said = CliRunner().invoke(generate, ["package", "hello", "--raw"])
    assert said.exit_code == 0, said.output
    assert ("cut the answer short" in said.stderr) is is_cut
    assert f"2 tokens, 0 TON, {reason}, provider p" in said.stderr
