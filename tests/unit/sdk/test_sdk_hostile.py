"""Whatever comes out of the control socket, the caller sees a typed error and no hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cocoon.core import limits
from cocoon.core.errors import (
    CocoonError,
    LocalPeerLost,
    Malformed,
    NonCanonical,
    PeerFault,
    PolicyRefusal,
    TooLarge,
    Unavailable,
    WrongField,
    from_code,
    wrong,
)
from cocoon.core.units import MILLISECOND_NS
from cocoon.sdk import connect
from cocoon.sdk.control import call
from cocoon.sdk.home import find_peer
from cocoon.wire import codec
from cocoon.wire.framing import frame
from cocoon.wire.tensors import encode_tensors
from tests.control_server import Script, Talk, result_of, serving

INPUTS = {"x": np.zeros(3, dtype=np.float32)}


def raw(data: bytes) -> Callable[[Talk, str, dict[str, Any]], None]:
    """A peer that answers every request with these bytes and hangs up."""
    return lambda talk, verb, args: talk.socket.sendall(data)


def spelled(value: dict[str, Any]) -> bytes:
    """A well-formed frame."""
    return frame(codec.encode(value, keys="str"))


@pytest.mark.parametrize(("data", "error"), [
    (b"", LocalPeerLost),
    (b"\x00", LocalPeerLost),
    (b"\x00\x00\x00\x05abc", LocalPeerLost),
    (b"\x80\x00\x00\x00", TooLarge),
    (b"\xff\xff\xff\xff" + bytes(64), TooLarge),
    ((limits.MESSAGE_BYTES + 1).to_bytes(4, "big"), TooLarge),
    (frame(b""), Malformed),
    (frame(b"\xc1"), Malformed),
    (frame(b"HTTP/1.1 200 OK\r\n"), Malformed),
    (frame(codec.encode([1, 2], keys="str")), Malformed),
    (frame(b"\x81\xa4done\x81\x91\x01\x01"), Malformed),
    (frame(b"\x81\xa4done" + b"\x91" * 500 + b"\x01"), Malformed),
    (frame(b"\x81\xa4done\xc0"), Malformed),
    (frame(b"\x82\xa4long\xc6" + (1 << 17).to_bytes(4, "big") + bytes(1 << 17) + b"\xa4done\x80"), NonCanonical),
    (frame(b"\x81\xa4done\x80\x00"), Malformed),
    (frame(b"\x81\xa4done\xdf\xff\xff\xff\xff"), Malformed),
    (spelled({"done": 5}), Malformed),
    (spelled({"done": {"peer": "x"}, "error": 7}), Malformed),
    (spelled({"error": {"code": "x" * 65, "text": "t"}}), Malformed),
    (spelled({"error": {"code": 3, "text": "t"}}), Malformed),
    (spelled({"error": {"code": "never_heard_of", "text": "t"}}), PeerFault),
    (spelled({"event": 3}), Malformed),
    (spelled({}), Malformed),
    (spelled({"event": "a"}) * 500, LocalPeerLost),
])
def test_a_reply_that_is_none_is_a_typed_error(home: Path, model: Path, data: bytes, error: type) -> None:
    with serving(home, raw(data)):
        client = connect(home)
        for ask in (client.status, client.offers, lambda: client.run(model, INPUTS)):
            with pytest.raises(error) as caught:
                ask()
            assert isinstance(caught.value, CocoonError) and "\n" not in caught.value.text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_anything_else(tmp_path_factory: Any, data: bytes, framed: bool) -> None:
    home = tmp_path_factory.mktemp("h") / "home"
    model = home.parent / "m.onnx"
    model.write_bytes(b"")
    with serving(home, raw(frame(data) if framed else data)):
        for ask in (connect(home).status, lambda: connect(home).run(model, INPUTS)):
            with pytest.raises(CocoonError):
                ask()


def one_result(**changes: Any) -> Callable[[Talk, str, dict[str, Any]], None]:
    """A peer whose single result is changed."""

    def script(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1)
        message = talk.unit()
        assert message is not None
        talk.send(result_of(message["unit"], message["inputs"], **{"number": 1, **changes}))
        talk.send({"done": {}})

    return script


@pytest.mark.parametrize(("changes", "error"), [
    ({"outputs": encode_tensors({"out_x": np.ones(3, dtype=np.float32)})}, wrong("output", "").__class__),
    ({"output_hash": bytes(32)}, wrong("output", "").__class__),
    ({"input_hash": bytes(32)}, wrong("input", "").__class__),
    ({"salt": bytes(16)}, WrongField),
    ({"salt": bytes(15)}, Malformed),
    ({"outputs": "text"}, Malformed),
    ({"outputs": b"\x80"}, WrongField),
    ({"unit": 1}, Malformed),
    ({"unit": -1}, Malformed),
    ({"unit": True}, Malformed),
    ({"unit": ...}, Malformed),
    ({"outputs": ...}, Malformed),
    ({"lease": ...}, Malformed),
    ({"results": ...}, Malformed),
    ({"results": 5}, Malformed),
    ({"results": [5]}, Malformed),
    ({"provider": b"short"}, Malformed),
    ({"provider": "12D3KooW"}, Malformed),
    ({"lease": "G" * 64}, Malformed),
    ({"lease": bytes(31)}, Malformed),
    ({"number": 1 << 32}, Malformed),
    ({"price_nanoton": -5}, Malformed),
    ({"ran_us": "fast"}, Malformed),
])
def test_a_result_with_one_wrong_field_is_refused(
    home: Path, model: Path, changes: dict[str, Any], error: type
) -> None:
    with serving(home, one_result(**changes)), pytest.raises(error):
        connect(home).run(model, INPUTS)


@pytest.mark.parametrize("payload", [
    b"", b"\x91", b"\x90\x00", b"\x91\x94\xa1x\xa7float32\x91\x03\xc4\x01\x00",
])
def test_outputs_that_fit_their_commitment_but_are_no_tensors_are_refused(
    home: Path, model: Path, payload: bytes
) -> None:
    from cocoon.wire.commitment import commit

    salt = bytes(range(16))

    def script(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1)
        message = talk.unit()
        assert message is not None
        talk.send(result_of(
            0, message["inputs"], number=1, outputs=payload, salt=salt,
            input_hash=commit(salt, message["inputs"]).hash, output_hash=commit(salt, payload).hash,
        ))

    with serving(home, script), pytest.raises(Malformed):
        connect(home).run(model, INPUTS)


def test_a_unit_answered_twice_is_refused(home: Path, model: Path) -> None:
    def twice(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=2)
        message = talk.unit()
        assert message is not None
        for _ in range(2):
            talk.send(result_of(0, message["inputs"], number=1))

    with serving(home, twice), pytest.raises(Malformed, match="unit 0"):
        connect(home).run(model, [INPUTS, INPUTS])


def test_an_early_end_is_refused(home: Path, model: Path) -> None:
    with serving(home, lambda talk, verb, args: talk.send({"done": {}})):
        with pytest.raises(Malformed, match="2 of 2 units unanswered"):
            connect(home).run(model, [INPUTS, INPUTS])


def test_an_unknown_event_is_passed_on_and_does_no_harm(home: Path, model: Path) -> None:
    def newer(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("weather", sky=["blue", {"wind": b"\x01"}])
        one_result()(talk, verb, args)

    events: list[dict[str, Any]] = []
    with serving(home, newer):
        connect(home).run(model, INPUTS, on_event=events.append)
    assert events[0] == {"event": "weather", "sky": ["blue", {"wind": "01"}]}


def test_a_wrong_token_is_told(home: Path) -> None:
    with serving(home) as server:
        server.write_contact(token="another")
        with pytest.raises(PolicyRefusal, match="token"):
            connect(home).status()


def test_a_silent_peer_ends_in_a_typed_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONTROL_REPLY_NS", MILLISECOND_NS)
    hung_up = threading.Event()

    def silent(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.receive()  # returns when the client gives up
        hung_up.set()

    with serving(home, silent):
        with pytest.raises(LocalPeerLost, match="silent"):
            call(find_peer(home), "status", {})
        assert hung_up.wait(10)


MONEY = {
    "wallet": (), "fund": (1,), "settle": (), "recover": (), "earnings": (), "audit": (), "supply": (),
}


@pytest.mark.parametrize("verb", MONEY)
def test_a_peer_that_says_nothing_while_the_chain_is_asked_is_left_as_soon_as_any_other(
    home: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would say `waiting` (CTL-5), however long the chain takes."""
    monkeypatch.setattr(limits, "CONTROL_REPLY_NS", MILLISECOND_NS)

    def silent(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.socket.settimeout(10)
        try:
            talk.receive()                              # returns when the client gives up
        except TimeoutError:
            talk.send({"done": {}})

    with serving(home, silent), pytest.raises(LocalPeerLost, match="silent"):
        getattr(connect(home), verb)(*MONEY[verb])


def test_a_peer_that_says_that_it_waits_is_waited_for(home: Path) -> None:
    def slow(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        for _ in range(3):
            talk.event("waiting")
        talk.send({"done": {"lanes_open": 0}})

    with serving(home, slow):
        assert connect(home).settle() == {"lanes_open": 0}


def test_closing_the_iterator_hangs_up(home: Path, model: Path) -> None:
    hung_up = threading.Event()

    def watching(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1)
        message = talk.unit()
        assert message is not None
        talk.send(result_of(0, message["inputs"], number=1))
        if talk.receive() is None:
            hung_up.set()

    with serving(home, watching):
        stream = connect(home).map(model, [INPUTS, INPUTS])
        next(stream)
        stream.close()
        assert hung_up.wait(10)


PEER = """
import sys
from pathlib import Path
from tests.control_server import ControlServer

def script(talk, verb, args):
    talk.event("credit", count=1)
    message = talk.receive()
    print("running", flush=True)
    talk.receive()

ControlServer(Path(sys.argv[1]), script)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_peer_that_is_killed_in_the_middle_is_a_typed_error(home: Path, model: Path, root: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PEER), str(home)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        client = connect(home)

        def kill_when_running() -> None:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGKILL)

        threading.Thread(target=kill_when_running).start()
        with pytest.raises(Unavailable) as caught:
            client.run(model, INPUTS)
        assert caught.value.code == "local_peer_lost"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    with pytest.raises(Unavailable, match="stale|nothing listens"):
        client.status()


def test_every_error_code_survives_the_trip(home: Path) -> None:
    from cocoon.core.errors import all_errors

    def answer(code: str) -> Script:
        return lambda talk, verb, args: talk.error(code, "why")

    for cls in all_errors():
        with serving(home, answer(cls.code)):
            with pytest.raises(type(from_code(cls.code, ""))) as caught:
                connect(home).status()
            assert (caught.value.code, caught.value.text) == (cls.code, "why")
        (home / "control.sock").unlink()
