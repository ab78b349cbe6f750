"""Rules, pages, tests and names that one place says another has: all of them are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cocoon.core import errors, limits
from tests.docs.pages import pages, prose, sources

ROOT = Path(__file__).resolve().parents[2]
CODE = ("cocoon", "sim", "tests", "tools", "bench")
_HEAD = re.compile(r"^(?:- )?\*\*([A-Z][A-Z0-9]{2})-(\d+)\b", re.MULTILINE)
_RULE = r"[A-Z][A-Z0-9]{2}-\d+"
_CITED = re.compile(rf"({_RULE})(?:\s+to\s+({_RULE}))?")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TICKED = re.compile(r"`([^`\n]+)`")
#: Where a page was built; hosts of package registries. None of them is anybody else's business.
_PLACE = re.compile(
    r"(?<![\w.:/<>~])/(?:root|home|mnt|Users|tmp|opt)(?:/|\b)|\.pyenv|pypi\.|pythonhosted|npmjs|artifactory|localhost:\d"
)


def rules() -> dict[str, list[int]]:
    """Prefix to the numbers of its rules, in order, over all pages."""
    found: dict[str, list[int]] = {}
    for page in sorted((ROOT / "docs" / "spec").glob("*.md")):
        for prefix, number in _HEAD.findall(page.read_text(encoding="utf-8")):
            found.setdefault(prefix, []).append(int(number))
    return found


def page_of() -> dict[str, str]:
    """Prefix to the one page that holds its rules."""
    owners: dict[str, str] = {}
    for page in sorted((ROOT / "docs" / "spec").glob("*.md")):
        for prefix in {prefix for prefix, _ in _HEAD.findall(page.read_text(encoding="utf-8"))}:
            assert owners.setdefault(prefix, page.name) == page.name, f"{prefix} stands on two pages"
    return owners


RULES, PAGE_OF = rules(), page_of()


def cited(text: str) -> Iterator[tuple[str, int]]:
    """Every rule that the text names; of a stretch its ends."""
    for first, last in _CITED.findall(text):
        for rule in filter(None, (first, last)):
            prefix, _, number = rule.rpartition("-")
            yield prefix, int(number)


def test_the_rules_of_each_page_are_numbered_without_gap() -> None:
    assert len(RULES) > 15
    assert {prefix: numbers for prefix, numbers in RULES.items() if numbers != list(range(1, len(numbers) + 1))} == {}


def test_the_index_names_every_page_and_its_prefix() -> None:
    index = (ROOT / "docs" / "spec" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[([\w.]+)\]\(\1\) \| (\w+) \|", index, re.MULTILINE))
    assert rows == {page: prefix for prefix, page in PAGE_OF.items()}
    assert set(rows) | {"README.md"} == {page.name for page in (ROOT / "docs" / "spec").glob("*.md")}


@pytest.mark.parametrize("folder", [*CODE, "docs"])
def test_every_rule_that_is_named_exists(folder: str) -> None:
    texts = pages(ROOT) if folder == "docs" else sources(ROOT, folder)
    missing = [
        f"{path.relative_to(ROOT)}: {prefix}-{number}"
        for path in texts
        for prefix, number in cited(path.read_text(encoding="utf-8"))
        if prefix in RULES and number not in RULES[prefix]
    ]
    assert missing == []


def citations(text: str) -> Iterator[tuple[str, str]]:
    """(page, what follows its name up to the next page or the end of the sentence)."""
    flat = " ".join(text.split())
    for match in re.finditer(r"docs/spec/([\w-]+\.md)(, (?:rules? )(?:[^.;]|\.(?=\S))*)?", flat):
        yield match[1], match[2] or ""


def test_every_page_that_is_named_exists_and_holds_the_rules_named_with_it() -> None:
    wrong = []
    for path in sources(ROOT, *CODE):
        if path.parent == Path(__file__).parent:
            continue
        for page, rest in citations(path.read_text(encoding="utf-8")):
            if not (ROOT / "docs" / "spec" / page).is_file():
                wrong.append(f"{path.relative_to(ROOT)}: no page {page}")
            named = [(prefix, number) for prefix, number in cited(rest)]
            if rest and not named:
                wrong.append(f"{path.relative_to(ROOT)}: no rule behind {page}")
            wrong += [
                f"{path.relative_to(ROOT)}: {page} has no {prefix}-{number}"
                for prefix, number in named
                if PAGE_OF.get(prefix) != page or number not in RULES[prefix]
            ]
    assert wrong == []


def test_a_wrong_citation_is_seen() -> None:
    """The patterns above find what they are for."""
    assert list(citations("Spec: docs/spec/wire.md, rules WIR-1 to\nWIR-5. More: docs/spec/store.md.")) == [
        ("wire.md", ", rules WIR-1 to WIR-5"), ("store.md", ""),
    ]
    assert list(cited("P2P-1 to P2P-9 and REC-2, not UTF-8")) == [("P2P", 1), ("P2P", 9), ("REC", 2), ("UTF", 8)]
    assert _PLACE.search("see /home/x") and _PLACE.search("at `/tmp/x`") and not _PLACE.search("docs/home/x")


def test_documents_named_in_code_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(ROOT, *CODE)
        for name in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert missing == []


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_paths_and_tests_named_in_a_page_exist(page: Path) -> None:
    text = prose(page)
    missing = []
    for target in _LINK.findall(text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path) if path else page
        if not there.exists():
            missing.append(target)
        elif anchor and anchor not in anchors(there):
            missing.append(f"{target}: no such heading")
    for ticked in _TICKED.findall(text):
        missing += [ticked] if names_nothing(ticked) else []
    assert missing == []


def anchors(page: Path) -> set[str]:
    """Headings in the form that links to them take."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def names_nothing(ticked: str) -> bool:
    """Whether this reads like a path or a test of the tree, and is none."""
    if re.fullmatch(r"(?:::|[\w/*]*test_\w+\.py::)?(test_\w+)", ticked):
        return not re.search(rf"def {ticked.rpartition('::')[2]}\b", _tests())
    path, _, test = ticked.partition("::")
    folders = "cocoon|tests|docs|tools|sim|bench|examples|requirements"
    if re.fullmatch(rf"(?:{folders})/[\w./*-]+", path) and "NAME" not in path:
        found = list(ROOT.glob(path.rstrip("/")))
        return not found or (bool(test) and not any(f"def {test}" in p.read_text(encoding="utf-8") for p in found))
    return False


def _tests() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sources(ROOT, "tests"))


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_no_place_of_the_machine_that_it_was_written_on(page: Path) -> None:
    assert _PLACE.findall(page.read_text(encoding="utf-8")) == []


def test_limits_and_codes_named_in_the_rules_exist() -> None:
    known = {name for name in vars(limits) if name.isupper()}
    codes = {cls.code for cls in errors.all_errors()}
    source = "\n".join(path.read_text(encoding="utf-8") for path in sources(ROOT, "cocoon"))
    wrong = []
    for page in sorted((ROOT / "docs" / "spec").glob("*.md")):
        for ticked in _TICKED.findall(prose(page)):
            if re.fullmatch(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+", ticked) and ticked not in known:
                wrong += [] if re.search(rf"\b{ticked}\b", source) else [f"{page.name}: {ticked}"]
            if re.fullmatch(r"wrong_\w+", ticked) and ticked not in codes:
                wrong.append(f"{page.name}: {ticked}")
    assert wrong == []


def test_the_architecture_and_the_records_of_decisions_keep_their_form() -> None:
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(architecture.splitlines()) <= 300
    packages = {p.parent.name for p in (ROOT / "cocoon").glob("*/__init__.py")}
    described = set(re.findall(r"\w+", " ".join(re.findall(r"^### (.+)$", architecture, re.MULTILINE))))
    assert packages - described == set()
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert 0 < len(records) <= 16
    for number, record in enumerate(records, start=1):
        text = record.read_text(encoding="utf-8")
        assert record.name.startswith(f"{number:04d}-") and text.startswith(f"# {number}. ")
        parts = re.findall(r"^## (\w+)$", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Rejected", "Check"], record.name
        assert all(a < b for a, b in pairwise([text.index("Status: "), text.index("## Context")]))
