"""A user's own names of models (MOD-12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.core.errors import BadConfig, LimitExceeded, NotFound, UsageError
from cocoon.core.ids import ModelId
from cocoon.core.limits import ALIASES
from cocoon.node.aliases import Aliases

ONE, TWO = ModelId(b"\1" * 32), ModelId(b"\2" * 32)


def test_a_name_means_what_it_was_last_given_also_after_a_restart(tmp_path: Path) -> None:
    aliases = Aliases(tmp_path)
    aliases.set("model", ONE)
    aliases.set("other-1_x", ONE)
    aliases.set("model", TWO)
    assert Aliases(tmp_path).all() == aliases.all() == {"model": TWO, "other-1_x": ONE}
    assert aliases.find("model") == TWO
    aliases.remove("model")
    for forget in (Aliases(tmp_path).find, aliases.find, aliases.remove):
        with pytest.raises(NotFound):
            forget("model")


@pytest.mark.parametrize("name", ["", "A", "a/b", "-a", "a b", "a.onnx", "ü", "x" * 65, "ab" * 32, "a\n"])
def test_a_name_that_could_be_something_else_is_refused(name: str, tmp_path: Path) -> None:
    """An id, above all: who types one must get that model and no other."""
    with pytest.raises(UsageError):
        Aliases(tmp_path).set(name, ONE)
    with pytest.raises(NotFound if name == "ab" * 32 else UsageError):
        Aliases(tmp_path).find(name)
    assert Aliases(tmp_path).all() == {}


def test_names_are_bounded(tmp_path: Path) -> None:
    lines = "".join(f"name{number} {ONE.hex()}\n" for number in range(ALIASES))
    (tmp_path / "aliases").write_text(lines)
    aliases = Aliases(tmp_path)
    with pytest.raises(LimitExceeded):
        aliases.set("one-more", TWO)
    aliases.set("name0", TWO)
    assert aliases.find("name0") == TWO


@pytest.mark.parametrize("line", ["model", "model 00", f"Model {ONE.hex()}", f"a {ONE.hex()} b", "\udcff"])
def test_a_line_that_is_none_is_named_and_not_guessed_at(line: str, tmp_path: Path) -> None:
    (tmp_path / "aliases").write_bytes(f"good {ONE.hex()}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(BadConfig, match="aliases:2"):
        Aliases(tmp_path)
