"""The signer as a real process: caps that survive it, and secrets that never leave it (WAL-7 to WAL-12)."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from cocoon.core.errors import BadWords, CapExceeded, ClockSkewed, Corrupt, LaxPermissions, SignerLost, UsageError
from cocoon.core.limits import SIGNATURE_LIFE_S
from cocoon.identity.keys import key_pair
from cocoon.ledger import mnemonic, wallet
from cocoon.ledger.signer import files
from cocoon.ledger.signer.service import Caps, Signer, open_signer
from cocoon.ledger.wallet import Outgoing
from cocoon.wire.boc import pack
from cocoon.wire.cells import Cell
from cocoon.wire.judged import verify_cell

GENESIS = bytes(range(32))
CAPS = Caps(hour_nanoton=100, day_nanoton=150)


def soon() -> int:
    """A valid-until of an ordinary message."""
    return int(time.time()) + 60


def to(amount: int) -> list[Outgoing]:
    return [Outgoing(GENESIS, amount)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


async def test_the_words_alone_give_every_key_that_the_signer_gave(home):
    async with open_signer(home, CAPS) as signer:
        key, lane = signer.public_key, await signer.lane_seed(GENESIS, 3)
        provider, address = await signer.provider_seed(GENESIS), signer.address(-3)
    words = mnemonic.parse_words((home / files.WORDS_FILE).read_text())
    seed = mnemonic.wallet_seed(words)
    assert key_pair(seed).key == key
    assert mnemonic.lane_seed(seed, GENESIS, 3) == lane
    assert mnemonic.provider_seed(seed, GENESIS) == provider
    assert wallet.wallet_address(key, -3) == address
    async with open_signer(home, CAPS) as again:
        assert again.public_key == key


async def test_a_wallet_that_a_person_brings_is_used(home):
    words = files.make_words(home.with_name("other"))
    files.keep_words(home, words)
    async with open_signer(home, CAPS) as signer:
        assert signer.public_key == key_pair(mnemonic.wallet_seed(words)).key
    with pytest.raises(BadWords):
        files.keep_words(home, words)


async def test_the_signature_is_of_the_wallet_key_over_what_was_asked(home):
    async with open_signer(home, CAPS) as signer:
        until = soon()
        body = await signer.sign(-3, 7, until, to(60))
        unsigned = wallet.unsigned_transfer(-3, 7, until, to(60))
        data = pack(body)
        assert wallet.signed_body(unsigned, _signature(body)) == body and data
        verify_cell(unsigned.hash(), signer.public_key, _signature(body))


def _signature(body: Cell) -> bytes:
    return (body.value & ((1 << 512) - 1)).to_bytes(64, "big")


async def test_a_cap_holds_over_restarts_and_kills(home):
    async with open_signer(home, CAPS) as signer:
        await signer.sign(-3, 0, soon(), to(60))
        os.kill(signer.pid, signal.SIGKILL)
        with pytest.raises(SignerLost):
            await signer.sign(-3, 1, soon(), to(1))
    async with open_signer(home, CAPS) as signer:
        with pytest.raises(CapExceeded, match="wallet_hour_nanoton"):
            await signer.sign(-3, 1, soon(), to(41))
        await signer.sign(-3, 1, soon(), to(40))
        with pytest.raises(CapExceeded):
            await signer.sign(-3, 2, soon(), to(1))
    async with open_signer(home, Caps(1_000, 1_000)) as signer:
        await signer.sign(-3, 2, soon(), to(900))


async def test_what_is_signed_was_counted_on_disk_before(home):
    """The folder cannot be written: nothing is signed, and nothing is counted."""
    async with open_signer(home, CAPS) as signer:
        (home / files.SPENT_FILE).mkdir()
        with pytest.raises(Exception) as caught:
            await signer.sign(-3, 0, soon(), to(60))
        assert caught.value.code in ("unavailable", "corrupt")
        (home / files.SPENT_FILE).rmdir()
        # Another number: under the same one the 60 would be replaced, counted or not.
        await signer.sign(-3, 1, soon(), to(CAPS.hour_nanoton))
    assert [entry.value_nanoton for entry in files.read_spent(home).entries] == [CAPS.hour_nanoton]


async def test_a_signature_for_next_week_is_refused(home):
    async with open_signer(home, CAPS) as signer:
        with pytest.raises(ClockSkewed):
            await signer.sign(-3, 0, int(time.time()) + SIGNATURE_LIFE_S + 60, to(1))
        with pytest.raises(ClockSkewed):
            await signer.sign(-3, 0, int(time.time()) - 5, to(1))


async def test_an_unlawful_request_is_refused_and_the_signer_lives(home):
    async with open_signer(home, CAPS) as signer:
        with pytest.raises(UsageError):
            await signer.lane_seed(GENESIS, 1 << 32)
        with pytest.raises(UsageError):
            await signer.lane_seed(b"short", 1)
        with pytest.raises(UsageError):
            await signer.sign(-3, 1 << 32, soon(), to(1))
        assert len(await signer.lane_seed(GENESIS, 1)) == 32


async def test_a_call_that_was_cut_short_never_gives_its_answer_to_another(home):
    """The first request has left when it is cancelled; its answer would come to whoever asks next."""
    async with open_signer(home, CAPS) as signer:
        os.kill(signer.pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(signer.lane_seed, GENESIS, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        os.kill(signer.pid, signal.SIGCONT)
        with pytest.raises(SignerLost):
            await signer.lane_seed(GENESIS, 2)


@pytest.mark.parametrize("content", [b"", b"abandon " * 24, b"\xff" * 24, b"word"])
async def test_a_damaged_wallet_is_never_replaced(home, content):
    (home / "keys").mkdir(mode=0o700)
    path = home / files.WORDS_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Corrupt):
        async with open_signer(home, CAPS):
            pass
    assert path.read_bytes() == content


async def test_words_that_others_may_read_are_refused(home):
    files.make_words(home)
    (home / files.WORDS_FILE).chmod(0o644)
    with pytest.raises(LaxPermissions):
        async with open_signer(home, CAPS):
            pass


async def test_a_damaged_account_of_what_was_spent_stops_signing(home):
    async with open_signer(home, CAPS) as signer:
        await signer.sign(-3, 0, soon(), to(1))
    path = home / files.SPENT_FILE
    path.write_bytes((whole := path.read_bytes())[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Corrupt):
        async with open_signer(home, CAPS):
            pass


# --- secrets -------------------------------------------------------------------


def secrets_of(home: Path, *more: bytes) -> list[bytes]:
    """Every spelling of a secret: words in their order, seeds raw and in hex."""
    words = mnemonic.parse_words((home / files.WORDS_FILE).read_text())
    phrases = [" ".join(words[at : at + 3]).encode() for at in range(22)]
    seeds = [mnemonic.wallet_seed(words), *more]
    return phrases + seeds + [seed.hex().encode() for seed in seeds]


def shown(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except PermissionError:
        return b""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
async def test_no_secret_stands_in_arguments_environment_or_any_other_file(home):
    async with open_signer(home, CAPS) as signer:
        lane = await signer.lane_seed(GENESIS, 0)
        await signer.sign(-3, 0, soon(), to(5))
        with pytest.raises(CapExceeded):
            await signer.sign(-3, 1, soon(), to(5_000))
        listed = shown(signer.pid, "cmdline") + shown(signer.pid, "environ") + repr(vars(signer)).encode()
        assert str(home).encode() in listed
    kept = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file() and p != home / files.WORDS_FILE)
    assert kept
    for secret in secrets_of(home, lane):
        assert secret not in listed and secret not in kept


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux")
async def test_a_signer_that_crashes_leaves_no_dump(home):
    async with open_signer(home, CAPS) as signer:
        limits = shown(signer.pid, "limits").decode()
        [core] = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core[4:6] == ["0", "0"]
        os.kill(signer.pid, signal.SIGSEGV)
        with pytest.raises(SignerLost):
            await signer.lane_seed(GENESIS, 0)
    assert not list(home.rglob("core*"))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux")
def test_before_it_reads_a_secret_the_signer_is_closed_to_debuggers():
    """PR_GET_DUMPABLE is 0: no dump, no ptrace and no /proc/PID/mem for its own user."""
    code = (
        "import ctypes, os\nfrom cocoon.ledger.signer.process import withdraw\n"
        "libc = ctypes.CDLL(None)\nbefore = libc.prctl(3, 0, 0, 0, 0)\nwithdraw(os.getppid())\n"
        "print(before, libc.prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_the_signer_dies_with_its_peer(home):
    code = (
        "import sys, trio\nfrom pathlib import Path\nfrom cocoon.ledger.signer.service import *\n"
        "async def main():\n"
        "    async with open_signer(Path(sys.argv[1]), Caps(1, 1)) as signer:\n"
        "        print(signer.pid, flush=True)\n        await trio.sleep_forever()\ntrio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE) as peer:
        pid = int(peer.stdout.readline())
        handle = os.pidfd_open(pid)
        peer.kill()
    assert _ended(handle)


def _ended(handle: int) -> bool:
    import select

    try:
        return bool(select.select([handle], [], [], 30)[0])
    finally:
        os.close(handle)


async def test_files_are_private(home):
    async with open_signer(home, CAPS) as signer:
        await signer.sign(-3, 0, soon(), to(1))
    for name in (files.WORDS_FILE, files.SPENT_FILE):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_a_signer_shows_no_key_in_its_repr():
    assert "seed" not in repr(key_pair(bytes(32))) and bytes(32).hex() not in repr(key_pair(bytes(32)))
    assert Signer.__repr__ is object.__repr__
