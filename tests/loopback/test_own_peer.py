"""CTL-25: a peer of an application's own begins with a block, and ends with it or with the application."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cocoon
from bench.packaged import relu
from cocoon.core.errors import BadLink, CocoonError, HomeInUse, NoLocalPeer, UsageError
from cocoon.sdk import own
from tests.loopback.paid import until
from tests.loopback.town import PATIENCE_S, Town, town

LOOPBACK = {"listen": "/ip4/127.0.0.1/tcp/0", "ledger": "none"}
#: An application that says the process id of its peer and then does nothing, holding the peer.
APPLICATION = """
import sys, cocoon
from cocoon.sdk.home import find_peer
with cocoon.own_peer(sys.argv[1], listen="/ip4/127.0.0.1/tcp/0", ledger="none") as client:
    print(find_peer(client.home).pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A network with a provider."""
    with town(tmp_path_factory.mktemp("town")) as made:
        made.bootstrap()
        made.provider()
        yield made


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_block_has_a_peer_that_buys_and_is_gone_behind_it(place: Town, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(relu())
    with cocoon.own_peer(tmp_path / "mine", join=place.link, **LOOPBACK) as client:
        result = client.run(model, {"x": np.array([[-1, 2]], "f4")})
        assert result.outputs["y"].tolist() == [[0, 2]] and result.receipt
        pid = own_pid(client)
        with pytest.raises(HomeInUse), cocoon.own_peer(tmp_path / "mine", join=place.link, **LOOPBACK):
            raise AssertionError("a second peer on one home")
        assert client.status()["sells"] is False, "the first one goes on"
    assert not lives(pid)
    with pytest.raises(NoLocalPeer):
        client.status()


def own_pid(client: cocoon.Client) -> int:
    from cocoon.sdk.home import find_peer

    return find_peer(client.home).pid


def test_a_block_that_fails_ends_its_peer_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), cocoon.own_peer(tmp_path, **LOOPBACK) as client:
        pid = own_pid(client)
        raise KeyError("of the application")
    assert not lives(pid)


@pytest.mark.parametrize(("options", "error"), [
    ({"join": "cocoon://join/nonsense"}, BadLink), ({"listen": "nowhere"}, UsageError),
    ({"log_level": "loud"}, UsageError),
])
def test_a_peer_that_cannot_start_says_why(tmp_path: Path, options: dict[str, str], error: type[CocoonError]) -> None:
    with pytest.raises(error), cocoon.own_peer(tmp_path, **{**LOOPBACK, **options}):  # type: ignore[arg-type]
        raise AssertionError("it started")


def test_a_peer_that_is_not_ready_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    popen = subprocess.Popen

    def noted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        process = popen(*arguments, **options)  # type: ignore[call-overload]
        started.append(process.pid)
        return process  # type: ignore[no-any-return]

    monkeypatch.setattr(own, "PEER_START_NS", 0)
    monkeypatch.setattr(subprocess, "Popen", noted)
    with pytest.raises(NoLocalPeer, match="not ready in time"), cocoon.own_peer(tmp_path, **LOOPBACK):
        raise AssertionError("nothing is ready in no time")
    assert len(started) == 1 and not lives(started[0])


def test_a_peer_ends_with_an_application_that_is_killed(tmp_path: Path) -> None:
    application = subprocess.Popen(
        [sys.executable, "-c", APPLICATION, str(tmp_path / "home")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    peer = None
    try:
        assert application.stdout is not None
        peer = int(application.stdout.readline())
        assert lives(peer)
        application.send_signal(signal.SIGKILL)
        application.wait(PATIENCE_S)
        until(lambda: not lives(peer), "the end of the peer")
    finally:
        application.kill()
        application.communicate()
        if peer is not None and lives(peer):            # it failed to end by itself; that is told already
            os.kill(peer, signal.SIGKILL)
    assert not (tmp_path / "home" / "control.json").exists(), "it drained, and was not cut off"
