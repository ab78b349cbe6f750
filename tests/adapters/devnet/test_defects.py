"""A defect of the devnet, met by a question: the client is told so, the log says where, the chain goes on."""

from __future__ import annotations

import json

from cocoon.devnet import tl
from cocoon.devnet.queries import Queries
from cocoon.devnet.service import LOG_FILE, Desk, Settings, open_devnet
from cocoon.telemetry.service import LOG_DIR


class Defective(Queries):
    """The real answers, but for one question."""

    def _time(self, values):
        raise ZeroDivisionError("marked-secret")


async def test_a_defect_is_logged_with_its_place_and_the_next_question_is_answered(tmp_path):
    async with open_devnet(Settings(tmp_path / "chain")) as devnet:
        desk = Desk(devnet.producer, Defective(devnet.chain, devnet.store, lambda: 1))
        refused, values = tl.decode_whole(await desk.answer(tl.encode("liteServer.getTime")))
        answered, _ = tl.decode_whole(await desk.answer(tl.encode("liteServer.getVersion")))

    assert (refused, values["code"]) == ("liteServer.error", 500)
    assert values["message"] == b"internal error; see the devnet's log"
    assert answered == "liteServer.version"
    (line,) = (tmp_path / "chain" / LOG_DIR / LOG_FILE).read_text().splitlines()
    record = json.loads(line)
    assert (record["event"], record["text"]) == ("question_failed", "ZeroDivisionError")
    assert record["trace"].startswith("devnet/test_defects.py:")
    assert "marked" not in line


async def test_a_question_that_we_refuse_is_not_logged(tmp_path):
    """A client cannot fill the log with its own mistakes."""
    async with open_devnet(Settings(tmp_path / "chain")) as devnet:
        desk = Desk(devnet.producer, Queries(devnet.chain, devnet.store, lambda: 1))
        refused, values = tl.decode_whole(await desk.answer(b"\xff" * 8))

    assert (refused, values["code"]) == ("liteServer.error", -400)
    assert (tmp_path / "chain" / LOG_DIR / LOG_FILE).read_text() == ""
