"""What a caller hands to the client, checked before anything is said to the peer.

Purity: shell (looks whether a file is there). Spec: docs/spec/control.md, rules CTL-7 and CTL-23.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cocoon.core import limits
from cocoon.core.errors import NotFound, UsageError
from cocoon.core.ids import PACKAGE_FILE

_DIGEST = re.compile(r"[0-9a-f]{64}")
#: What a name of the user may be, and every id is; a file of that name goes first.
_ALIAS = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{limits.ALIAS_CHARS - 1}}}")
LONGEST_DEADLINE_S = 30 * 24 * 3_600


def model_text(model: str | os.PathLike[str]) -> str:
    """A model as the peer takes it: an id, an alias, or the absolute path of a file or package that is there."""
    text = os.fspath(model)
    if isinstance(text, str) and (_DIGEST.fullmatch(text) or (_ALIAS.fullmatch(text) and not os.path.exists(text))):
        return text
    return path_text(text)


def name_text(model: str) -> str:
    """An id or an alias."""
    if not isinstance(model, str) or not _ALIAS.fullmatch(model):
        raise UsageError(f"{model!r:.80} is neither a model id nor an alias")
    return model


def path_text(path: str) -> str:
    """The absolute path of a file, or of a package, that is there."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError("a path is text without NULs")
    absolute = Path(path).expanduser().absolute()
    try:
        found = absolute.is_file() or (absolute / PACKAGE_FILE).is_file()
    except OSError as error:
        raise NotFound(f"{path!r} cannot be read: {error.strerror}") from None
    if not found:
        raise NotFound(f"there is no regular file {path!r}, and no package (a directory with {PACKAGE_FILE})")
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        raise UsageError(f"the path {path!r} is no UTF-8 text; rename or link the file") from None
    return str(absolute)


def digest_text(text: str) -> str:
    """64 hex digits."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise UsageError(f"{text!r:.80} is no digest of 64 lower-case hex digits")
    return text


def amount(amount_nanoton: int, name: str = "max_price_nanoton") -> int:
    """An amount in nanoton."""
    is_whole = isinstance(amount_nanoton, int) and not isinstance(amount_nanoton, bool)
    if not is_whole or not 0 <= amount_nanoton < 1 << 64:
        raise UsageError(f"{name} is a whole number from 0 below 2**64, not {amount_nanoton!r}")
    return amount_nanoton


def count_number(count: int, name: str, most: int) -> int:
    """A whole number from 1."""
    is_whole = isinstance(count, int) and not isinstance(count, bool)
    if not is_whole or not 1 <= count <= most:
        raise UsageError(f"{name} is a whole number from 1 to {most}, not {count!r}")
    return count


def deadline_in_ms(deadline_s: float) -> int:
    """Seconds as whole milliseconds."""
    # Written so that NaN fails too.
    if not isinstance(deadline_s, (int, float)) or not 0.001 <= deadline_s <= LONGEST_DEADLINE_S:
        raise UsageError(f"deadline_s lies between 0.001 and {LONGEST_DEADLINE_S} s, not at {deadline_s!r}")
    return int(deadline_s * 1_000)
