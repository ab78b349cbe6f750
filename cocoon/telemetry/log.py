"""Loggers: one JSON object a line, only allow-listed fields.

``get_logger`` works before and after a sink is open; without one, lines are
counted and thrown away. The sink is process-wide because a log is.

Purity: shell (wall time, one process-wide sink). Spec: docs/spec/telemetry.md.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from cocoon.core.errors import CocoonError, UsageError
from cocoon.core.imports import without
from cocoon.telemetry.counters import Counters
from cocoon.telemetry.fields import clean, spellings

with without("rich"):
    # For a console that structlog offers to developers: 50 ms of every start.
    import structlog

LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: Known secrets of one process: seeds, HPKE keys, the control token.
SECRETS = 32

_FRAMES = 24
#: Where a logger's name travels through structlog; no keyword can have this spelling.
_NAME = "logger name"

#: Counters of this process.
counters = Counters()


@dataclass(slots=True)
class Sink:
    """Where lines go.

    ``strict`` turns every dropped field into ``UsageError``: for tests.
    """

    write: Callable[[str], None]
    level: int = LEVELS["info"]
    strict: bool = False


def _discard(line: str) -> None:
    counters.add("log_lines_without_sink")


_sinks = [Sink(_discard)]
_secrets: list[frozenset[str]] = []


def current_sink() -> Sink:
    """The sink that is open now."""
    return _sinks[-1]


def push_sink(sink: Sink) -> None:
    """Open a sink above the present one; ``telemetry.service`` owns the pairing."""
    _sinks.append(sink)


def pop_sink(sink: Sink) -> None:
    """Close ``sink``; the one below speaks again."""
    _sinks.remove(sink)


def hide(secret: bytes) -> None:
    """Register a secret; none of its spellings appears in any later line.

    Raises:
        UsageError: more than ``SECRETS`` in one process.
    """
    forms = spellings(secret)
    if forms in _secrets:
        return
    if len(_secrets) >= SECRETS:
        raise UsageError(f"more than {SECRETS} hidden secrets")
    _secrets.append(forms)


class Log:
    """A logger with a name and bound fields. Cheap; share or bind freely.

    Unlisted fields are dropped and counted (``log_fields_dropped``); a pair
    (requester, task) is taken apart even if one half was bound earlier.
    """

    __slots__ = ("_chain",)

    def __init__(self, chain: structlog.BoundLogger) -> None:
        self._chain = chain

    def bind(self, **fields: object) -> Log:
        """A logger that adds ``fields`` to every line."""
        return Log(self._chain.bind(**fields))

    def debug(self, event: str, **fields: object) -> None:
        """Write one line for developers."""
        self._chain.debug(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """Write one line about the normal course of things."""
        self._chain.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write one line about something that was survived."""
        self._chain.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Write one line about something that needs a person."""
        self._chain.error(event, **fields)

    def failure(self, event: str, error: BaseException, **fields: object) -> None:
        """Write an exception as code and text, locals never; its places if it is a defect, or at level debug.

        The text of an exception that is not ours may quote data, so only its type is written.
        """
        shown = {**fields, **describe(error)}
        ours = isinstance(error, CocoonError)
        if not ours or current_sink().level <= LEVELS["debug"]:
            shown["trace"] = frames(error)
        if ours:
            self.warning(event, **shown)
        else:
            self.error(event, **shown)


def get_logger(name: str) -> Log:
    """The logger of one part of the program, e.g. ``p2p``."""
    chain = structlog.wrap_logger(
        _Writer(),
        processors=[_drop_quiet, _keep_lawful, _stamp, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.BoundLogger,
        context_class=dict,
    )
    return Log(chain.bind(**{_NAME: name}))


def describe(error: BaseException) -> dict[str, object]:
    """Fields ``code``, ``text`` and ``remedy`` of an exception, for a log line.

    A group is shown by its first leaf: five layers of ExceptionGroup are usual.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, CocoonError):
        return {"code": error.code, "text": error.text, "remedy": error.remedy}
    return {"code": "defect", "text": type(error).__name__}


def frames(error: BaseException) -> str:
    """Where an exception came from: ``file:line in function`` per frame, innermost last.

    No locals, no source lines and no messages: each of them can hold data.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    found = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return " < ".join(f"{_short(f.filename)}:{f.lineno} {f.name}" for f in reversed(found))


class _Writer:
    """The end of structlog's chain: hands the rendered line to the open sink."""

    def _write(self, line: str) -> None:
        current_sink().write(line)

    debug = info = warning = error = _write


_Record = MutableMapping[str, Any]


def _drop_quiet(writer: object, level: str, record: _Record) -> _Record:
    if LEVELS[level] < current_sink().level:
        raise structlog.DropEvent
    return record


def _keep_lawful(writer: object, level: str, record: _Record) -> _Record:
    name, event = record.pop(_NAME), record.pop("event")
    cleaned = clean(str(event), record, frozenset().union(*_secrets))
    if cleaned.faults:
        counters.add("log_fields_dropped", len(cleaned.faults))
        if current_sink().strict:
            raise UsageError("; ".join(cleaned.faults))
    return {"level": level, "logger": name, **cleaned.shown}


_iso = structlog.processors.TimeStamper(fmt="iso", utc=True, key="at_utc")


def _stamp(writer: object, level: str, record: _Record) -> _Record:
    stamped = _iso(writer, level, record)
    return {"at_utc": stamped.pop("at_utc"), **stamped}


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])
