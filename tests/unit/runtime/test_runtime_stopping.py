"""TOK-11 and TOK-12: texts that end a sequence, wherever tokens begin and end."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon.runtime.stopping import StopTexts

#: Few different bytes, so that texts repeat themselves and overlap.
texts = st.binary(min_size=1, max_size=5).map(lambda text: bytes(97 + byte % 2 for byte in text))
pieces = st.lists(st.binary(max_size=4).map(lambda text: bytes(97 + byte % 2 for byte in text)), max_size=12)


def said(stops, parts):
    """What is shown for each part, up to the end, and whether there was one."""
    watch, shown = StopTexts(stops), []
    for part in parts:
        found = watch.feed(part)
        shown.append(found.text)
        if found.ended:
            return shown, True, watch
    return shown, False, watch


def plainly(stops, text):
    """The text before the first stop text that is complete, of several the longest; None if there is none."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - len(max(complete, key=len))]
    return None


@given(st.lists(texts, max_size=3), pieces)
@example([b"aab"], [b"aa", b"ab"])
@example([b"abab", b"b"], [b"a", b"bab"])
def test_what_is_shown_is_what_a_look_at_the_whole_text_gives(stops, parts):
    shown, ended, watch = said(stops, parts)
    wanted = plainly(stops, b"".join(parts))
    assert ended is (wanted is not None)
    if not ended:
        shown.append(watch.rest())
        wanted = b"".join(parts)
    assert b"".join(shown) == wanted
    assert watch.shown_bytes == len(wanted)


@given(st.lists(texts, min_size=1, max_size=3), pieces)
def test_nothing_is_shown_that_may_be_the_beginning_of_a_stop_text(stops, parts):
    watch, all_of_it, shown = StopTexts(stops), b"", 0
    for part in parts:
        found = watch.feed(part)
        all_of_it, shown = all_of_it + part, shown + len(found.text)
        if found.ended:
            return
        for stop in stops:
            for length in range(1, len(stop)):
                assert not all_of_it.endswith(stop[:length]) or shown <= len(all_of_it) - length


@pytest.mark.parametrize("parts", [[b"Paris.\n\nQ"], [b"Paris.\n", b"\nQ"], [b"P", b"aris", b".", b"\n", b"\n", b"Q"]])
def test_a_stop_text_is_found_across_the_border_of_two_tokens(parts):
    shown, ended, _ = said([b"\n\nQ"], parts)
    assert ended and b"".join(shown) == b"Paris."


def test_a_character_that_two_tokens_share_is_found():
    shown, ended, _ = said(["é".encode()], [b"caf\xc3", b"\xa9!"])
    assert ended and b"".join(shown) == b"caf"


def test_without_stop_texts_everything_is_shown_at_once():
    assert said([], [b"a", b"", b"bc"])[0] == [b"a", b"", b"bc"]
