"""Peers as processes: killed, frozen, restarted, and next to a foreign Kademlia node."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from pathlib import Path

import pytest

from tests.fork_server import fork

KEY = "11" * 32
PATIENCE_S = 40
"""No test waits longer; nothing is asserted about how long it took."""


class Peer:
    """A peer process. Events that nobody waits for are kept."""

    def __init__(self, script: str = "p2p_process", **given: object) -> None:
        given.setdefault("seed", os.urandom(32).hex())
        given.setdefault("book", None)
        self.given = given
        self._kept: list[dict] = []
        self._lines: queue.Queue = queue.Queue()
        self.process = fork(f"tests.loopback.p2p.{script}", [json.dumps(given)], os.environ, Path.cwd(), asks=True)
        threading.Thread(target=self._read, daemon=True).start()
        ready = self.wait("ready")
        self.id, self.addresses, self.listening = ready["peer"], ready["addresses"], ready.get("listening")

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def wait(self, *events: str) -> dict:
        """The next event of one of these names."""
        for kept in self._kept:
            if kept["event"] in events:
                self._kept.remove(kept)
                return kept
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            if line["event"] in events:
                return line
            self._kept.append(line)
        pytest.fail(f"the peer ended: {self.process.stderr.read()}")

    def ask(self, *order: object) -> object:
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        answer = self.wait("done", "failed")
        return answer["result"] if answer["event"] == "done" else answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """End it as a user would, and see that it ends cleanly."""
        self.process.stdin.close()
        self.wait("closed")
        assert self.process.wait(PATIENCE_S) == 0
        assert self.process.stderr.read() == b""


@pytest.fixture
def peers():
    started: list[Peer] = []

    def start(*args, **given) -> Peer:
        started.append(Peer(*args, **given))
        return started[-1]

    yield start
    for peer in started:
        if peer.process.poll() is None:
            peer.process.send_signal(signal.SIGCONT)
            peer.kill()


def trio_of_peers(start):
    boot = start(dht_server=True)
    seller = start(dht_server=True, sells=True, bootstraps=boot.addresses)
    buyer = start(bootstraps=boot.addresses)
    assert seller.ask("join") == 1 and seller.ask("provide", KEY) == 1 and buyer.ask("join") == 1
    return boot, seller, buyer


def test_three_processes_find_each_other_and_end_cleanly(peers):
    boot, seller, buyer = trio_of_peers(peers)
    assert buyer.ask("find", KEY) == [seller.id]
    assert buyer.ask("echo", seller.id) == "hello"
    for peer in (buyer, seller, boot):
        peer.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_seller_that_dies_wakes_its_buyer_with_a_typed_error_and_is_not_found_again(peers, how):
    _, seller, buyer = trio_of_peers(peers)
    assert buyer.ask("find", KEY) == [seller.id]
    assert buyer.ask("hold", seller.id) is True
    seller.process.send_signal(how)
    assert buyer.wait("woke")["code"] == "stream_closed"
    assert buyer.wait("lost")["peer"] == seller.id
    assert buyer.ask("find", KEY) == []
    assert buyer.ask("echo", seller.id)["code"] == "unreachable"
    assert seller.id not in buyer.ask("connections")


def test_a_frozen_seller_that_thaws_is_found_again(peers):
    _, seller, buyer = trio_of_peers(peers)
    buyer.ask("find", KEY)
    seller.process.send_signal(signal.SIGSTOP)
    buyer.wait("lost")
    seller.process.send_signal(signal.SIGCONT)
    assert seller.ask("join") >= 1
    assert buyer.ask("connect", seller.addresses[0]) == seller.id
    assert buyer.ask("find", KEY) == [seller.id]


def test_a_frozen_bootstrap_does_not_hold_up_a_look_up(peers):
    boot, seller, buyer = trio_of_peers(peers)
    assert buyer.ask("find", KEY) == [seller.id]
    boot.process.send_signal(signal.SIGSTOP)
    assert buyer.ask("find", KEY) == [seller.id]        # before the heartbeat has noticed
    buyer.wait("lost")
    assert buyer.ask("find", KEY) == [seller.id]        # and after


def test_both_peers_restarted_with_the_bootstrap_dead_find_each_other_from_their_books(peers, tmp_path):
    boot = peers(dht_server=True)
    common = {"bootstraps": boot.addresses}
    seller_given = {"dht_server": True, "sells": True, "book": str(tmp_path / "seller"), **common}
    buyer_given = {"book": str(tmp_path / "buyer"), **common}
    seller, buyer = peers(**seller_given), peers(**buyer_given)
    seller.ask("join"), seller.ask("provide", KEY), buyer.ask("join")
    assert buyer.ask("find", KEY) == [seller.id]
    seller.stop(), buyer.stop(), boot.kill()
    again = peers(**seller_given, seed=seller.given["seed"], listen=seller.listening)
    again.ask("provide", KEY)
    buyer = peers(**buyer_given, seed=buyer.given["seed"])
    assert again.id == seller.id
    assert buyer.ask("join") == 1
    assert buyer.ask("find", KEY) == [seller.id]
    assert buyer.ask("echo", seller.id) == "hello"
    newcomer = peers(**common)
    assert newcomer.ask("join")["code"] == "bootstrap_unreachable"


def test_another_network_is_refused_by_name(peers):
    boot = peers(dht_server=True)
    other = peers(network="another")
    assert other.ask("connect", boot.addresses[0])["code"] == "wrong_network"
    assert other.ask("connections") == [] and boot.ask("connections") == []


def test_a_node_of_the_public_kademlia_enters_no_table_of_ours_and_we_enter_none_of_its(peers):
    boot = peers(dht_server=True)
    foreign = peers("foreign_kad", peer=boot.addresses[0])
    assert foreign.wait("tried") == {"event": "tried", "kad_streams": 0, "table": 0}
    assert boot.ask("nodes") == 0
