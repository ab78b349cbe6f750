"""Whatever is handed to a logger, a marked secret never reaches the output."""

from __future__ import annotations

import base64
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from cocoon.telemetry import log as log_module
from cocoon.telemetry.fields import FIELDS, Kind, clean, plain, spellings
from cocoon.telemetry.log import get_logger, hide
from cocoon.telemetry.service import open_log

#: At least 16 bytes: keys, seeds, tokens, hashes of inputs; shorter ones are not guessable marks.
secret_bytes = st.binary(min_size=16, max_size=64).filter(lambda s: len(set(s)) > 8)
names = st.sampled_from([*FIELDS, "inputs", "outputs", "seed", "token", "key", "salt", "exception", "text"])


def shapes(secret: bytes):
    """The forms in which code could hand a secret over by mistake."""
    code = base64.b64encode(secret).decode()
    return st.sampled_from(
        [
            secret,
            secret.hex(),
            secret.hex().upper(),
            code,
            base64.urlsafe_b64encode(secret).decode(),
            repr(secret),
            f"could not open {secret!r}",
            f"seed={secret.hex()} is wrong",
            f"token {code}, again",
            [secret],
            {"key": secret},
            bytearray(secret),
            ValueError(secret),
            int.from_bytes(secret[:16], "big") | 1 << 127,
        ]
    )


def leaks(secret: bytes, output: str) -> bool:
    """Whether more than an id's six bytes of the secret stand in the output, in any spelling."""
    lower = output.lower()
    return (
        any(secret[at : at + 8].hex() in lower for at in range(len(secret) - 7))
        or base64.b64encode(secret).decode()[:20] in output
        or base64.urlsafe_b64encode(secret).decode()[:20] in output
        or json.dumps(repr(secret)[2:-1])[1:-1] in output
        or str(int.from_bytes(secret[:16], "big") | 1 << 127) in output
    )


@given(secret=secret_bytes, data=st.data())
def test_a_secret_that_nobody_registered_never_appears(secret, data):
    """The allow-list and the scrubbing alone hold, at the most talkative level."""
    given_fields = data.draw(st.dictionaries(names, shapes(secret), max_size=5))
    stream = io.StringIO()
    with open_log(level="debug", stream=stream):
        log = get_logger("x").bind(**given_fields)
        log.info("something", count=1)
        try:
            raise data.draw(st.sampled_from([KeyError, ValueError, OSError]))(data.draw(shapes(secret)))
        except Exception as error:
            log.failure("failed", error)
    assert not leaks(secret, stream.getvalue())


@given(secret=st.binary(min_size=8, max_size=40), data=st.data())
def test_a_registered_secret_never_appears_even_inside_other_text(secret, data):
    """Also short tokens and plain words, which no pattern could know."""
    form = data.draw(st.sampled_from(sorted(spellings(secret))))
    around = st.text(alphabet="xyz /", max_size=10)
    text = data.draw(around) + form + data.draw(around)
    kept = list(log_module._secrets)
    stream = io.StringIO()
    try:
        hide(secret)
        with open_log(stream=stream):
            get_logger("x").info("said", text=text, address=text, path=text)
    finally:
        log_module._secrets[:] = kept
    record = json.loads(stream.getvalue())
    for name in ("text", "address", "path"):
        assert plain(form) not in record[name]


@given(
    st.dictionaries(st.sampled_from(["requester", "task", "lease", "peer", "count"]), st.binary(min_size=4))
)
def test_requester_and_task_are_never_together(given_fields):
    shown = clean("event", given_fields).shown
    assert not {"requester", "task"} <= set(shown)


@given(
    event=st.text(max_size=60), given_fields=st.dictionaries(st.text(max_size=12), st.text() | st.integers())
)
def test_no_field_outside_the_list_survives_and_nothing_raises(event, given_fields):
    cleaned = clean(event, given_fields)
    assert set(cleaned.shown) <= set(FIELDS) | {"event"}
    assert len(cleaned.faults) >= len(set(given_fields) - set(FIELDS))


@given(st.text(max_size=600))
def test_shown_text_is_printable_and_bounded(text):
    shown = clean("event", {"text": text}).shown["text"]
    assert isinstance(shown, str)
    assert shown.isprintable() and len(shown) <= 256


def test_every_kind_of_field_is_used():
    assert set(FIELDS.values()) == set(Kind)
