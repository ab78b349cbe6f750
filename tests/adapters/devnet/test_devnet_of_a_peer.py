"""The devnet that a peer keeps (NET-6): a full disk is bad weather, and nothing of a dead child stays open."""

from __future__ import annotations

import pytest
import trio

from cocoon.core.errors import DevnetLost
from cocoon.node import devnet
from cocoon.node.devnet import DEVNET_DIR, running_devnet
from tests.adapters.devnet.devnet_process import PATIENCE_S
from tests.adapters.p2p.p2p_hosts import Recorder, never_raises


class Log(Recorder):
    """What ``DevnetProcess.keep`` says."""

    warning = Recorder.info


def test_a_home_that_cannot_be_written_is_told_as_a_devnet_that_is_lost(tmp_path):
    (tmp_path / DEVNET_DIR).write_text("no folder")
    with pytest.raises(DevnetLost, match="File exists"), running_devnet(tmp_path, 20):
        pass


@never_raises(trio.TooSlowError, OSError)
async def test_a_devnet_that_died_comes_back_when_its_disk_has_room_again(tmp_path, monkeypatch):
    monkeypatch.setattr(devnet, "DEVNET_RESTART_NS", 1_000_000)
    log, errors = Log(), tmp_path / DEVNET_DIR / "stderr"
    with running_devnet(tmp_path, 20) as process:
        first, listens = process._child, process._listen
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.keep, log)
            first.kill()
            second = await child_after(process, first)
            assert first.stdout.closed
            errors.unlink()
            errors.mkdir()                              # its last words cannot be written, as on a full disk
            second.kill()
            said = await log.wait_for("devnet_not_started")
            assert said["code"] == "devnet_lost" and "directory" in said["text"]
            errors.rmdir()
            await child_after(process, second)
            nursery.cancel_scope.cancel()
        assert process._listen == listens and process._child.poll() is None


async def child_after(process, before):
    """The child that was started after ``before``."""
    with trio.fail_after(PATIENCE_S):
        while process._child in (None, before):
            await trio.lowlevel.checkpoint()
    return process._child
