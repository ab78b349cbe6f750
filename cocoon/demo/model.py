"""Where the Magika model is on this machine.

The model and its two configuration files come out of the pinned ``magika``
wheel; the package itself is never imported here.

Purity: shell (reads the environment and the file system).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cocoon.demo.errors import DemoModelBroken, DemoModelMissing
from cocoon.demo.labels import Rules, parse_rules

VARIABLE = "COCOON_MAGIKA"
DEFAULT = Path("build") / "magika"
MODEL, CONFIG, CONTENT_TYPES = "model.onnx", "config.min.json", "content_types_kb.min.json"
CONFIG_BYTES = 1 << 20
"""Twenty times the larger of the two configuration files."""


@dataclass(frozen=True, slots=True)
class Magika:
    """The model's file, absolute, and the rules that belong to it."""

    model: Path
    rules: Rules
    size_bytes: int


def find_magika(named: str | os.PathLike[str] | None) -> Magika:
    """The model in ``named``, else in ``$COCOON_MAGIKA``, else in ``build/magika`` here.

    Raises:
        DemoModelMissing: one of the three files is not there.
        DemoModelBroken: a configuration that is not Magika's.
    """
    directory = Path(named or os.environ.get(VARIABLE) or DEFAULT)
    missing = [name for name in (MODEL, CONFIG, CONTENT_TYPES) if not (directory / name).is_file()]
    if missing:
        raise DemoModelMissing(f"no {', '.join(missing)} in {str(directory)!r}")
    model = (directory / MODEL).absolute()
    rules = parse_rules(_text(directory / CONFIG), _text(directory / CONTENT_TYPES))
    return Magika(model, rules, model.stat().st_size)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES + 1)
        if len(content) > CONFIG_BYTES:
            raise DemoModelBroken(f"{str(path)!r} has more than {CONFIG_BYTES} bytes")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DemoModelBroken(f"{str(path)!r} cannot be read: {error}") from error
