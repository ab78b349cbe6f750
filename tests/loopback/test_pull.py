"""Pulling a public model from real peers: several at once, and none of them is needed or believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoon.core.errors import LocalPeerLost
from cocoon.core.limits import BLOB_CHUNKS_ASKED, BLOB_STREAMS, CHUNK_BYTES
from cocoon.core.units import MIB
from cocoon.node.allocator import KEPT_BYTES
from cocoon.sdk import connect
from tests.loopback.town import Peer, Town

MODEL_BYTES = 64 * MIB + 7
#: For `make test-long`.
LARGE_BYTES = 1_024 * MIB
#: What a peer may grow by while it pulls, whatever the size of the model: each stream has a chunk in hand, a window of
#: four under way, the pages between them are as much again, and what is freed stays. At a gigabyte up to 54 MiB.
GROWTH_BYTES = 2 * BLOB_STREAMS * 6 * CHUNK_BYTES + KEPT_BYTES


def model_file(folder: Path, size_bytes: int = MODEL_BYTES) -> Path:
    """Bytes that nobody has yet; whoever serves a model does not look into it."""
    path = folder / "model.onnx"
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(os.urandom(MIB))
        file.write(os.urandom(size_bytes % MIB))
    return path


def hold(town: Town, peer: Peer, path: Path) -> str:
    """Have ``peer`` announce the file as a public model; its id."""
    added = town.cocoon(peer, "models", "add", "--public", str(path), "--json")
    assert added.code == 0 and added.objects[-1]["summary"]["announced"], added
    model: str = added.objects[-1]["summary"]["model"]
    return model


def once(here_bytes: int, act: Callable[[], object]) -> Callable[[dict[str, Any]], None]:
    """Hear of a pull; ``act`` when so much is here."""
    todo = [act]

    def hear(event: dict[str, Any]) -> None:
        if event["here_bytes"] >= here_bytes and todo:
            todo.pop()()

    return hear


def pulled(peer: Peer, model: str) -> bytes:
    """The bytes of a pulled model."""
    return (peer.home / "models" / model / "0.onnx").read_bytes()


def failures(peer: Peer, code: str) -> int:
    """How many holders a peer gave up for this reason."""
    return sum('"model_fetch_failed"' in line and f'"{code}"' in line for line in peer.log().splitlines())


def test_a_model_is_pulled_although_one_holder_dies_and_another_lies(empty_town: Town, tmp_path: Path) -> None:
    path = model_file(tmp_path)
    empty_town.bootstrap()
    liar = empty_town.start("liar", "tests.loopback.lying_holder", "up", "--provide", "--join", empty_town.link)
    liar.wait_line("ready")
    holders = [empty_town.provider("first"), liar, empty_town.provider("third")]
    ids = {hold(empty_town, holder, path) for holder in holders}
    assert len(ids) == 1, "equal bytes have equal ids everywhere"
    model = ids.pop()
    puller = empty_town.requester("puller")
    answer = connect(puller.home).pull_model(model, once(MODEL_BYTES // 4, holders[0].kill))
    assert answer["size_bytes"] == MODEL_BYTES
    assert pulled(puller, model) == path.read_bytes()
    assert failures(puller, "bad_chunk") == 1, "the liar is found out once, and asked no more"
    assert failures(puller, "stream_closed") + failures(puller, "unreachable") == 1


def test_a_pull_goes_on_where_its_peer_was_killed(empty_town: Town, tmp_path: Path) -> None:
    path = model_file(tmp_path)
    empty_town.bootstrap()
    model = hold(empty_town, empty_town.provider("holder"), path)
    puller = empty_town.requester("puller")
    with pytest.raises(LocalPeerLost):
        connect(puller.home).pull_model(model, once(MODEL_BYTES // 2, puller.kill))
    assert not (puller.home / "models" / model).exists(), "half a model is on no shelf"
    puller = empty_town.requester("puller")
    heard: list[dict[str, Any]] = []
    connect(puller.home).pull_model(model, heard.append)
    assert pulled(puller, model) == path.read_bytes()
    fetched_bytes = MODEL_BYTES - heard[0]["here_bytes"]
    assert fetched_bytes <= MODEL_BYTES // 2, "what was here was not fetched again"
    assert [event["here_bytes"] for event in heard] == sorted(event["here_bytes"] for event in heard)
    listed = empty_town.cocoon(puller, "models", "ls", "--json").objects[0]
    assert (listed["model"], listed["public"], listed["leased"]) == (model, True, False)


def test_a_model_that_nobody_holds_is_not_found_and_leaves_nothing(empty_town: Town) -> None:
    empty_town.bootstrap()
    puller = empty_town.requester("puller")
    done = empty_town.cocoon(puller, "models", "pull", "ab" * 32, "--json")
    assert (done.code, done.error["code"]) == (18, "not_found")
    assert not list((puller.home / "pulling").glob("*"))


@pytest.mark.long
def test_a_gigabyte_from_three_holders_of_which_one_dies_takes_a_bounded_part_of_memory(
    empty_town: Town, tmp_path: Path
) -> None:
    path = model_file(tmp_path, LARGE_BYTES)
    empty_town.bootstrap()
    holders = [empty_town.provider(name) for name in ("first", "second", "third")]
    model = {hold(empty_town, holder, path) for holder in holders}.pop()
    puller = empty_town.requester("puller")
    before_bytes = peak_bytes(puller)
    connect(puller.home).pull_model(model, once(LARGE_BYTES // 4, holders[0].kill))
    growth_bytes = peak_bytes(puller) - before_bytes
    with path.open("rb") as given, (puller.home / "models" / model / "0.onnx").open("rb") as got:
        while data := given.read(BLOB_CHUNKS_ASKED * MIB):
            assert got.read(BLOB_CHUNKS_ASKED * MIB) == data
        assert not got.read(1)
    assert growth_bytes <= GROWTH_BYTES, f"the peer grew by {growth_bytes} bytes"


def peak_bytes(peer: Peer) -> int:
    """The most memory that a peer's own process ever had."""
    status = Path(f"/proc/{peer.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1_024
