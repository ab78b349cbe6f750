"""A pytest plugin that writes down how each test ended, so that a mutant's death can be judged.

Loaded by run.py with ``-p``; writes one JSON list to $MUTANT_WITNESS: node id,
phase, outcome, and whether every exception at the bottom of a failure is an
assertion raised in a file under tests/.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
_records: list[dict[str, Any]] = []


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions at the bottom of nested groups (trio and Hypothesis wrap them)."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def is_assertion(error: BaseException) -> bool:
    """True for an assertion of a test, or for ``pytest.raises`` that saw nothing raised."""
    if isinstance(error, pytest.fail.Exception):
        return "DID NOT RAISE" in str(error)
    return isinstance(error, AssertionError) and _raised_in_tests(error.__traceback__)


def _raised_in_tests(trace: TracebackType | None) -> bool:
    frames = traceback.extract_tb(trace)
    return bool(frames) and Path(frames[-1].filename).resolve().is_relative_to(TESTS)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Record one phase of one test."""
    report = (yield).get_result()
    error = call.excinfo.value if call.excinfo else None
    found = list(leaves(error)) if error else []
    _records.append(
        {
            "test": item.nodeid,
            "phase": call.when,
            "outcome": report.outcome,
            "assertion": bool(found) and all(map(is_assertion, found)),
            "error": "; ".join(f"{type(e).__name__}: {e}"[:200] for e in found),
        }
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the records; an interrupted run leaves none, which run.py reads as red."""
    Path(os.environ["MUTANT_WITNESS"]).write_text(json.dumps(_records), encoding="utf-8")
