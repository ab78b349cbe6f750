"""The glossary knows every word of the wire, and holds no word that nobody uses."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from cocoon import wire
from cocoon.wire import judged
from cocoon.wire.schema import Message
from tests.docs.pages import pages, sources

_ENTRY = re.compile(r"^- \*\*(?P<term>[^*]+)\*\*(?: \(`(?P<cls>\w+)`\))?: (?P<text>.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def glossary() -> str:
    return (Path(__file__).resolve().parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")


def entries(glossary: str) -> list[tuple[str, str | None]]:
    return [(m["term"], m["cls"]) for m in _ENTRY.finditer(glossary)]


def spoken(class_name: str) -> str:
    """``LeaseAccept`` as people say it: ``lease accept``."""
    return " ".join(re.findall(r"[A-Z][a-z0-9]*", class_name)).lower()


def wire_classes() -> set[str]:
    """Messages, and the cells that a contract may have to judge."""
    for found in pkgutil.iter_modules(wire.__path__, f"{wire.__name__}."):
        importlib.import_module(found.name)
    said = {cls.__name__ for cls in Message.__subclasses__() if cls.__module__.startswith(f"{wire.__name__}.")}
    cells = {
        name for name, cls in vars(judged).items()
        if isinstance(cls, type) and cls.__module__ == judged.__name__ and hasattr(cls, "cell")
    }
    assert cells >= {"Voucher", "Statement"} and said >= {"Bid", "Bundle", "LinkResume", "Manifest", "OfferDelta"}
    return said | cells


def test_each_class_of_the_wire_is_explained_once_under_its_own_name(glossary: str) -> None:
    explained = [(cls, term) for term, cls in entries(glossary) if cls]
    assert sorted(explained) == sorted((cls, spoken(cls)) for cls in wire_classes())


def test_every_entry_is_read_and_they_stand_in_order(glossary: str) -> None:
    terms = [term for term, _ in entries(glossary)]
    assert len(terms) == glossary.count("\n- ")
    assert len(set(terms)) == len(terms)
    first_letters = [term[0] for term in terms]
    assert first_letters == sorted(first_letters)


def test_every_term_is_used_outside_the_glossary(glossary: str, root: Path) -> None:
    used = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (*sources(root, "cocoon"), *pages(root))
        if path.name != "glossary.md"
    ).lower()
    used = re.sub(r"[\s_]+", " ", used)
    unused = [term for term, cls in entries(glossary) if not cls and not re.search(rf"\b{re.escape(term)}", used)]
    assert unused == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources(root, "cocoon"))
    # Once where it is declared, and once where it is spoken.
    assert [cls for _, cls in entries(glossary) if cls and len(re.findall(rf"\b{cls}\b", code)) < 2] == []


def test_no_message_is_named_by_a_word_that_is_kept_for_later(glossary: str) -> None:
    kept = re.search(r"named by one: \*(.+?)\*\.", glossary, re.DOTALL)
    assert kept
    later = {word.strip() for word in re.sub(r"\s+", " ", kept[1]).split(",")}
    assert later & {part for cls in wire_classes() for part in spoken(cls).split()} == set()
    assert later & {term for term, _ in entries(glossary)} == set()
