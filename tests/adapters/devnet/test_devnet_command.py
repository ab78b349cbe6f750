"""The command: what it prints, how it ends, what it keeps, what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys

import pytest

from cocoon.core.errors import BadConfig, HomeInUse, ListenFailed
from cocoon.devnet.command import run_until_signal
from cocoon.devnet.service import KEY_FILE, Settings
from cocoon.devnet.store import CHAIN_FILE
from tests.adapters.devnet.devnet_process import PATIENCE_S, client_of, running, start


def nobody_ready(_announcement) -> None:
    raise AssertionError("it must not start")


def test_it_says_what_a_client_must_know_and_then_ready(tmp_path):
    command = "import sys; from cocoon.cli.devnet import devnet; sys.exit(devnet.main(standalone_mode=False))"
    arguments = [sys.executable, "-c", command, "--home", str(tmp_path), "--block-ms", "20"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = json.loads(process.stdout.readline())
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate()
    assert (process.returncode, rest, complaints) == (0, "", "")
    assert set(said) == {"genesis", "liteserver", "faucet"}
    assert len(said["genesis"]) == len(said["faucet"]) == 64
    assert (tmp_path / "devnet" / CHAIN_FILE).exists()


def test_it_ends_cleanly_at_sigterm_while_a_client_waits(tmp_path):
    async def wait(devnet):
        async with client_of(devnet) as client:
            waiting = asyncio.create_task(client.wait_masterchain_seqno(10**6, 60_000, "getMasterchainInfo", {}))
            await client.get_time()
            code = devnet.stop()
            await asyncio.gather(waiting, return_exceptions=True)
            return code

    with running(tmp_path / "state") as devnet:
        assert asyncio.run(wait(devnet)) == 0


def test_a_second_start_is_the_same_network_at_the_same_place(tmp_path):
    announced = []
    for _ in range(2):
        with running(tmp_path / "state") as devnet:
            announced.append((devnet.genesis, devnet.host, devnet.port, devnet.key, devnet.faucet.hash_part))
    assert announced[0] == announced[1]


def test_a_taken_port_is_no_obstacle_unless_it_was_asked_for(tmp_path):
    state = tmp_path / "state"
    with running(state) as devnet:
        port = devnet.port
    with socket.create_server(("127.0.0.1", port)):
        with running(state) as devnet:
            assert devnet.port != port
        with pytest.raises(ListenFailed):
            run_until_signal(Settings(state, port=port), nobody_ready)


def test_two_devnets_are_two_networks(tmp_path):
    with running(tmp_path / "one") as one, running(tmp_path / "other") as other:
        assert one.genesis != other.genesis
        assert one.key != other.key


def test_one_folder_has_one_devnet(tmp_path):
    with running(tmp_path / "state"):
        with pytest.raises(HomeInUse):
            run_until_signal(Settings(tmp_path / "state"), nobody_ready)


def test_nobody_else_can_read_its_files(tmp_path):
    state = tmp_path / "state"
    with running(state):
        found = [(path.name, path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (state, *state.rglob("*"))]
    assert {"state", KEY_FILE, CHAIN_FILE} <= {name for name, _, _ in found}
    assert [name for name, folder, mode in found if mode != (0o700 if folder else 0o600)] == []


def test_a_price_belongs_to_its_chain(tmp_path):
    state = tmp_path / "state"

    async def price(devnet):
        async with client_of(devnet) as client:
            return (await client.get_config_all())[21].other.gas_price

    with running(state, "--gas-price", "67") as devnet:
        assert asyncio.run(price(devnet)) >> 16 == 67
    with running(state) as devnet:
        assert asyncio.run(price(devnet)) >> 16 == 67
    with pytest.raises(BadConfig, match="67"):
        run_until_signal(Settings(state, gas_price_nanoton=400), nobody_ready)


@pytest.mark.parametrize("wrong", [{"block_ns": 1}, {"block_ns": 10**12}, {"gas_price_nanoton": 0}])
def test_a_setting_out_of_bounds_is_refused_before_anything_is_made(tmp_path, wrong):
    with pytest.raises(BadConfig):
        run_until_signal(Settings(tmp_path / "state", **wrong), nobody_ready)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "listen",
    ["nowhere", "127.0.0.1:port", "127.0.0.1:70000", ":1", "[::1]:0", "::1:0", "localhost:0", "127.1:0", "127.0.0.1:١"],
)
def test_an_address_that_no_network_file_could_hold_is_refused(tmp_path, listen):
    command = "from cocoon.cli.devnet import devnet; devnet()"
    arguments = [sys.executable, "-c", command, "--state", str(tmp_path / "state"), "--listen", listen]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 2
    assert "IP:PORT" in ended.stderr
    assert not (tmp_path / "state").exists()


def test_the_device_side_libraries_of_a_peer_are_never_loaded(tmp_path):
    """tonpy before ONNX Runtime crashes the interpreter; a devnet is small and needs neither libp2p nor pytoniq."""
    look = (
        "import sys, cocoon.cli.devnet, cocoon.devnet.command;"
        "print([name for name in ('onnxruntime', 'libp2p', 'pytoniq', 'pytoniq_core', 'numpy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", look], text=True) == "[]\n"


def test_a_process_that_dies_before_it_is_ready_leaves_a_folder_that_starts(tmp_path):
    state = tmp_path / "state"
    first = start(state)
    genesis = first.genesis
    first.kill()
    first.process.stdout.close()
    with running(state) as devnet:
        assert devnet.genesis == genesis


def test_it_ends_when_its_parent_is_killed(tmp_path):
    """The parent is a process that starts a devnet, says so, and sleeps until it is killed."""
    parent = (
        "import os, subprocess, sys, signal\n"
        "command = 'from cocoon.cli.devnet import devnet; devnet()'\n"
        "arguments = [sys.executable, '-c', command, '--state', sys.argv[1], '--with-parent', str(os.getpid())]\n"
        "child = subprocess.Popen(arguments, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(), child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "signal.pause()\n"
    )
    state = tmp_path / "state"
    arguments = [sys.executable, "-c", parent, str(state)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        watched = os.pidfd_open(child)
        process.kill()
    ended, _, _ = select.select([watched], [], [], PATIENCE_S)
    os.close(watched)
    assert ended
    with running(state):
        pass


def test_where_there_is_no_virtual_machine_it_says_so(tmp_path):
    without = (
        "import sys; sys.modules['tonpy'] = None\n"
        "from cocoon.cli.main import main; sys.exit(main(['devnet', '--state', sys.argv[1]]))"
    )
    arguments = [sys.executable, "-c", without, str(tmp_path / "state")]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Linux on x86-64" in ended.stderr
