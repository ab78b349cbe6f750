"""Where the founder's devnet is reached: at the address that the founder itself names."""

from __future__ import annotations

from pathlib import Path

from cocoon.config.network import parse_link
from tests.loopback.town import town


def test_the_devnet_listens_where_its_founder_does_and_others_find_it_there(tmp_path: Path) -> None:
    with town(tmp_path, ledger="ton") as place:
        founder = place.up("founder", "--role", "bootstrap", "--listen", "/ip4/127.0.0.2/tcp/0")
        place.link = founder.wait_line("cocoon://join/")
        founder.wait_line("ready")
        (server,) = parse_link(place.link).liteservers
        assert server.startswith("127.0.0.2:")
        other = place.requester()
        shown = place.cocoon(other, "wallet", "--json")
        assert shown.code == 0 and shown.objects[-1]["summary"]["balance_nanoton"] == 0
        assert founder.terminate() == 0
        again = place.up("founder", "--role", "bootstrap", "--listen", "/ip4/127.0.0.2/tcp/0")
        again.wait_line("ready")
        assert parse_link(again.wait_line("cocoon://join/")).liteservers == (server,), "the same port, after a restart"
