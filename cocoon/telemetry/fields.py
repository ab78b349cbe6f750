"""The allow-list of log fields, and how each kind of value is shown.

A field that is not listed here is dropped. Bytes appear only as the first
twelve hex digits of an id; text is clipped, its control characters escaped,
and whatever in it looks like a key, a token or raw bytes is cut short.

Purity: pure. Spec: docs/spec/telemetry.md, rules TEL-1 to TEL-5.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cocoon.core.limits import LOG_FIELD_CHARS


class Kind(Enum):
    """How a field's value is shown."""

    ID = "id"  #: bytes of 4 to 64, shown as 12 hex digits
    COUNT = "count"  #: an integer of at most 20 digits; its name carries the unit
    FLAG = "flag"  #: true or false
    CODE = "code"  #: a word of ours: letters, digits and ``_ . : / -``
    TEXT = "text"  #: a message of ours; clipped, escaped, scrubbed
    ADDRESS = "address"  #: a multiaddress or a path; as text
    ERROR = "error"  #: an exception or its repr; only the name of its type is shown
    FRAMES = "frames"  #: places in our source: ``folder/file.py:12 function < ...``


_NAMES = {
    Kind.ID: "peer requester provider network model lease task offer receipt boot",
    Kind.COUNT: (
        "count number first_number seq units runs attempt pid port signal exit_status threads line dropped "
        "size_bytes sent_bytes memory_bytes free_bytes limit_bytes "
        "took_us took_ms ran_us load_us queued_us wait_ms "
        "price_nanoton total_nanoton connections streams leases offers peers"
    ),
    Kind.FLAG: "sells private resumed low inbound direct",
    Kind.CODE: "code kind protocol role state version agent engine device verb reason",
    Kind.TEXT: "text remedy",
    Kind.ADDRESS: "address path",
    Kind.ERROR: "error",
    Kind.FRAMES: "trace",
}

#: Every field that may stand in a log line. A new one needs a reason in review.
FIELDS: Mapping[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}

#: Fields that together say who asked for what; one record holds at most one side (TEL-3).
_WHO = frozenset({"requester"})
_WHAT = frozenset({"task"})

_ID_CHARS = 12
_EVENT = re.compile(r"[a-z][a-z0-9_.]{0,47}")
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}", re.ASCII)
_CODE = re.compile(r"[A-Za-z0-9_.:/+ -]{1,96}")
_BYTES_LITERAL = re.compile(r"""(?<![A-Za-z0-9_])b(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)""")
_PEER_ID = re.compile(r"(\b12D3KooW[1-9A-HJ-NP-Za-km-z]{44}\b)")
# 16 bytes are 22 characters of base64; our longest code, bootstrap_unreachable, has 21.
_TOKEN_CHARS = 22
_LONG_TOKEN = re.compile(rf"[A-Za-z0-9+/_=-]{{{_TOKEN_CHARS},}}")
_LOOKS_RANDOM = re.compile(r"(?=.*[A-Z])(?=.*[a-z])(?=.*[0-9])")
_FRAME = r"[\w./<> -]{1,128}:[0-9]{1,6} [\w<>]{1,64}"
_FRAMES = re.compile(rf"(?:{_FRAME}(?: < {_FRAME})*)?", re.ASCII)
_TRACE_CHARS = 4_096


@dataclass(slots=True)
class Cleaned:
    """What of a record may be written, and what was wrong with it."""

    shown: dict[str, object] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def clean(event: str, given: Mapping[str, object], secrets: frozenset[str] = frozenset()) -> Cleaned:
    """Reduce a record to what may be written.

    Args:
        event: A constant like ``peer_lost``: lower case, digits, underscores, dots.
        given: Field values by name.
        secrets: Spellings of known secrets (see ``spellings``); none survives.

    Returns:
        The lawful part, and a line for each thing that was dropped. Never
        raises: a log line must not stop a peer. Tests make faults fatal.
    """
    result = Cleaned()
    if _EVENT.fullmatch(event):
        result.shown["event"] = event
    else:
        result.shown["event"] = "unnamed"
        result.faults.append("event is no constant name")
    both = not _WHO.isdisjoint(given) and not _WHAT.isdisjoint(given)
    if both:
        result.faults.append("requester and task in one record")
    for name, value in given.items():
        if value is None or (both and name in _WHO | _WHAT):
            continue
        shown = _show(name, value, secrets)
        if shown is None:
            result.faults.append(f"field {name[:32]!r} is unknown or of the wrong type")
        else:
            result.shown[name] = shown
    return result


def plain(text: str, max_chars: int = LOG_FIELD_CHARS) -> str:
    """Printable text of at most ``max_chars``; the rest escaped, then clipped."""
    clipped = text[:max_chars]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in clipped)
    whole = max(len(escaped), len(text)) <= max_chars
    return escaped if whole else escaped[: max_chars - 3] + "..."


def scrub(text: str) -> str:
    """Cut byte literals, and hex or base64 longer than an id's short form, out of a text.

    Peer ids stay: they are public names. A path stays unless it mixes capitals,
    small letters and digits like base64 does; then privacy goes before clarity.
    """
    parts = _PEER_ID.split(_BYTES_LITERAL.sub("b'...'", text))
    parts[::2] = [_LONG_TOKEN.sub(_cut, part) for part in parts[::2]]
    return "".join(parts)


def _cut(match: re.Match[str]) -> str:
    token = match[0]
    longest = max(map(len, token.split("/")))
    if longest < _TOKEN_CHARS and not _LOOKS_RANDOM.match(token):
        return token
    return token[:_ID_CHARS] + "..."


def spellings(secret: bytes) -> frozenset[str]:
    """Every way in which ``secret`` could stand in a text: hex, base64, UTF-8, escapes.

    Shorter than 8 bytes is no secret: it would hide ordinary words.
    """
    if len(secret) < 8:
        return frozenset()
    forms = {secret.hex(), secret.hex().upper(), repr(secret)[2:-1], secret.decode("latin-1")}
    for code in (base64.b64encode(secret), base64.urlsafe_b64encode(secret)):
        forms |= {code.decode("ascii"), code.decode("ascii").rstrip("=")}
    return frozenset(forms)


def _show(name: str, value: object, secrets: frozenset[str]) -> object:
    match FIELDS.get(name), value:
        case Kind.ID, bytes() if 4 <= len(value) <= 64:
            return value.hex()[:_ID_CHARS]
        case Kind.FLAG, bool():
            return value
        case Kind.COUNT, int() if not isinstance(value, bool) and abs(value) < 10**20:
            return value
        case Kind.CODE, str() if _CODE.fullmatch(value):
            return scrub(_hide(value, secrets))
        case Kind.TEXT | Kind.ADDRESS, str():
            return plain(scrub(_hide(value, secrets)))
        case Kind.ERROR, BaseException():
            return type(value).__name__
        case Kind.ERROR, str() if (found := _TYPE_NAME.match(value)) and value[found.end() :].startswith("("):
            return scrub(found[0])
        case Kind.FRAMES, str() if _FRAMES.fullmatch(value):
            return plain(value, _TRACE_CHARS)
    return None


def _hide(text: str, secrets: frozenset[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return text
