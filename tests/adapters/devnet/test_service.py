"""What a devnet says when it cannot start."""

from __future__ import annotations

import pytest

from cocoon.core.errors import Corrupt, ListenFailed, Unavailable
from cocoon.devnet.service import Settings, open_devnet
from cocoon.telemetry.service import LOG_DIR
from tests.adapters.devnet.test_chain import change


async def test_a_log_that_cannot_be_made_is_told_with_its_place(tmp_path):
    folder = tmp_path / "chain"
    folder.mkdir(mode=0o700)
    (folder / LOG_DIR).write_bytes(b"")
    with pytest.raises(Unavailable, match=str(folder)):
        async with open_devnet(Settings(folder)):
            pass


@pytest.mark.parametrize("statement", [
    "DELETE FROM facts WHERE name = 'gas_price_nanoton'",
    "DELETE FROM facts WHERE name = 'faucet'",
    "UPDATE facts SET value = CAST('dear' AS BLOB) WHERE name = 'gas_price_nanoton'",
    "UPDATE facts SET value = CAST('home' AS BLOB) WHERE name = 'port'",
], ids=["no price", "no faucet", "price", "port"])
async def test_a_chain_that_lacks_what_every_chain_has_is_damaged(tmp_path, statement):
    folder = tmp_path / "chain"
    async with open_devnet(Settings(folder)):
        pass
    change(folder, statement)
    with pytest.raises(Corrupt):
        async with open_devnet(Settings(folder)):
            pass


async def test_an_address_that_is_not_ours_is_told_without_a_port_that_nobody_asked_for(tmp_path):
    with pytest.raises(ListenFailed, match=r"any port of 203\.0\.113\.1"):
        async with open_devnet(Settings(tmp_path / "chain", host="203.0.113.1")):
            pass
