"""A user's own names of models: a file in the home with one ``name id`` a line.

No other peer is ever asked what a name means, and none hears of one.

Purity: shell. Spec: docs/spec/models.md, rule MOD-12.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cocoon.core.errors import BadConfig, LimitExceeded, NotFound, UsageError
from cocoon.core.ids import ModelId
from cocoon.core.limits import ALIAS_CHARS, ALIASES
from cocoon.identity.files import write_private

_NAME = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{ALIAS_CHARS - 1}}}")
_LINE = re.compile(rf"({_NAME.pattern}) ([0-9a-f]{{64}})")


class Aliases:
    """The names of one COCOON_HOME."""

    def __init__(self, home: Path) -> None:
        """Read them; BadConfig names a line that is none."""
        self._path = home / "aliases"
        self._names = dict(self._read())

    def all(self) -> dict[str, ModelId]:
        """Every name and its model, by name."""
        return dict(sorted(self._names.items()))

    def find(self, name: str) -> ModelId:
        """The model of a name.

        Raises:
            UsageError: it can be nobody's name. NotFound: it is none of this user's.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r:.80} is neither an absolute path, nor a model id of 64 hex digits, nor an alias")
        if name not in self._names:
            raise NotFound(f"there is no alias {name!r:.80}")
        return self._names[name]

    def set(self, name: str, model: ModelId) -> None:
        """Give a model a name; an earlier meaning of it is gone.

        Raises:
            UsageError: a name that could be an id, a path or an option.
            LimitExceeded: the user has ``ALIASES`` names already.
        """
        if not _NAME.fullmatch(name) or re.fullmatch("[0-9a-f]{64}", name):
            raise UsageError(f"{name!r:.80} is no alias: 1 to {ALIAS_CHARS} of a-z, 0-9, _ and -, and no model id")
        if name not in self._names and len(self._names) >= ALIASES:
            raise LimitExceeded(f"there are {ALIASES} aliases already; remove one with --remove")
        self._write({**self._names, name: model})

    def remove(self, name: str) -> None:
        """Forget a name; NotFound if there is none."""
        self.find(name)
        self._write({other: model for other, model in self._names.items() if other != name})

    def _write(self, names: dict[str, ModelId]) -> None:
        lines = (f"{name} {model.hex()}\n" for name, model in sorted(names.items()))
        write_private(self._path, "".join(lines).encode())
        self._names = names

    def _read(self) -> Iterator[tuple[str, ModelId]]:
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            if (found := _LINE.fullmatch(line)) is None or number > ALIASES:
                raise BadConfig(f"{self._path}:{number} is no line `name id`, or beyond {ALIASES}; correct it")
            yield found[1], ModelId(bytes.fromhex(found[2]))
