"""No key byte and no word of the wallet leaves the files that hold them.

Peers with money work, are asked, audited, killed; then every file of theirs,
every line they said, and what the kernel shows of every process is searched for
every secret in every usual spelling.
"""

from __future__ import annotations

import base64
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cocoon.config.service import read_network
from cocoon.core.children import child_environment
from cocoon.core.errors import LocalPeerLost, SignerLost
from cocoon.identity.service import HPKE_FILE, KEYS_DIR, PEER_FILE, load_or_create
from cocoon.ledger.mnemonic import lane_seed, provider_seed, wallet_seed
from cocoon.ledger.signer import service as signer
from cocoon.ledger.signer.files import SPENT_FILE, WORDS_FILE, read_words
from tests.loopback.paid import Market, failed, market
from tests.loopback.town import PATIENCE_S, Peer

#: Words are common English: one of them proves nothing, three in a row do.
_ROW = 3


@dataclass(frozen=True)
class Secret:
    """One secret of one peer; ``what`` names it without saying it."""

    what: str
    spellings: tuple[bytes, ...]

    @classmethod
    def of_key(cls, what: str, key: bytes) -> Secret:
        """A key as bytes, as hex, and in both alphabets of base64."""
        encoded = (base64.b64encode(key), base64.urlsafe_b64encode(key))
        return cls(what, (key, key.hex().encode(), key.hex().upper().encode(), *(text[:40] for text in encoded)))


def secrets_of(peer: Peer) -> Iterator[Secret]:
    """Every secret that this peer holds."""
    identity = load_or_create(peer.home)
    yield Secret.of_key("peer key", identity.seed)
    yield Secret.of_key("HPKE key", identity.hpke)
    words, network = read_words(peer.home), read_network(peer.home)
    if words is None:
        return
    assert network is not None and network.chain is not None
    seed, genesis = wallet_seed(words), network.chain.genesis
    yield Secret.of_key("wallet key", seed)
    yield Secret.of_key("lane key", lane_seed(seed, genesis, 0))
    yield Secret.of_key("provider key", provider_seed(seed, genesis))
    rows = [words[at : at + _ROW] for at in range(len(words) - _ROW + 1)]
    yield Secret("words", tuple(
        between.join(row).encode() for row in rows for between in (" ", "\n", ",", '", "', "', '")
    ))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market whose peers may leave core dumps, if they can."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with market(tmp_path_factory.mktemp("market"), forks=False, log_level="debug") as place:
            _live(place)
            yield place
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def _live(here: Market) -> None:
    """Everything that touches a key: leases, vouchers, claims, orders, closes, anchors, and what is told of it."""
    here.run(here.model(), 9)
    here.buyer.settle()
    here.seller.settle()
    for client in (here.buyer, here.seller):
        client.wallet()
        client.earnings()
        client.audit()
        client.status()
        client.receipts()
    here.run(here.model(), 3)


def everybody(here: Market) -> list[Peer]:
    return [here.bootstrap, here.provider, here.requester]


@pytest.fixture(scope="module")
def secrets(here: Market) -> list[Secret]:
    found = [secret for peer in everybody(here) for secret in secrets_of(peer)]
    assert len(found) == 3 * 2 + 2 * 4, "two keys of every peer, and the money of two"
    return found


def search(secrets: list[Secret], data: bytes, where: str) -> None:
    """Fail without repeating the secret."""
    for secret in secrets:
        for spelling in secret.spellings:
            assert (spelling in data) is False, f"the {secret.what} stands in {where}"


def holders(here: Market) -> set[Path]:
    """The files that are there to hold a secret."""
    names = (Path(KEYS_DIR) / PEER_FILE, Path(KEYS_DIR) / HPKE_FILE, WORDS_FILE)
    return {peer.home / name for peer in everybody(here) for name in names}


def test_no_secret_stands_in_any_file_but_its_own(here: Market, secrets: list[Secret]) -> None:
    """Homes with journals, logs, address books and the chain; the folder with what peers said on standard error."""
    files = {path for path in here.folder.rglob("*") if path.is_file()} - holders(here)
    assert {"journal.db", "peer.jsonl", "network.toml", "requester.err", SPENT_FILE.name} <= {p.name for p in files}
    for path in files:
        search(secrets, path.read_bytes(), str(path.relative_to(here.folder)))


def test_the_search_finds_what_is_there(here: Market, secrets: list[Secret]) -> None:
    data = b"".join(path.read_bytes() for path in holders(here) if path.exists())
    found = {secret.what for secret in secrets if any(spelling in data for spelling in secret.spellings)}
    assert found == {"peer key", "HPKE key", "words"}, "the other keys follow from the words and are on no disk"


def test_no_secret_stands_in_an_argument_or_environment(here: Market, secrets: list[Secret]) -> None:
    pids = [pid for peer in everybody(here) for pid in peer.tree()]
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
    assert sum(b"signer" in name for name in names) == 2 and any(b"devnet" in name for name in names)
    for pid, name in zip(pids, names, strict=True):
        search(secrets, name + _environment(pid), f"the arguments or environment of process {pid}")


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:                             # of a signer only root may look; what it is given, see below
        return b""


def test_what_a_signer_is_started_with_is_where_libraries_lie(
    here: Market, secrets: list[Secret], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where ``/proc`` does not show it: none of a peer's settings, and nothing of the user's."""
    for name, value in here.place.environment(here.requester.home, mine="a secret").items():
        monkeypatch.setenv(name, value)
    given = child_environment(signer._KEPT, signer._SET)
    lawful = "LD_LIBRARY_PATH DYLD_LIBRARY_PATH PYTHONPATH LANG PYTHONUTF8 PYTHONDONTWRITEBYTECODE"
    assert set(given) <= set(lawful.split())
    search(secrets, repr(given).encode(), "the environment that a signer is given")


def test_nothing_that_a_peer_said_holds_a_secret(here: Market, secrets: list[Secret]) -> None:
    for peer in everybody(here):
        search(secrets, "\n".join(peer.lines).encode() + peer.last_words().encode(), f"what {peer.name} said")
    for client in (here.buyer, here.seller):
        told = (client.status(), client.wallet(), client.earnings(), client.audit(), client.receipts(), client.offers())
        search(secrets, repr((client, told)).encode(), "what a peer answers")


def signer_of(peer: Peer) -> int:
    """Process id of a peer's signer."""
    (found,) = [pid for pid in peer.tree() if b"signer" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def test_the_kernel_may_write_down_no_memory_of_a_peer_or_its_signer(here: Market) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no process of this machine may leave a core dump, whatever it does itself")
    assert _core_limit(os.getpid())[0] != 0, "what the peers were started with"
    for pid in (signer_of(here.requester), here.provider.process.pid):
        assert _core_limit(pid) == (0, 0), "the kernel may write its memory down"


def test_processes_that_are_killed_leave_no_dump(here: Market, secrets: list[Secret]) -> None:
    """Last in the file. A signer and a peer die as by a defect of their own."""
    signer = signer_of(here.requester)
    places = {Path(os.readlink(f"/proc/{pid}/cwd")) for pid in (signer, here.provider.process.pid)}
    before = {place: set(os.listdir(place)) for place in places}
    os.kill(signer, signal.SIGABRT)
    assert failed(here.buyer.settle) in (SignerLost.code, LocalPeerLost.code), "a close needs a signature"
    assert here.requester.wait_exit() == SignerLost.exit_code, "without its signer a peer ends"
    here.provider.signal(signal.SIGABRT)
    here.provider.process.wait(PATIENCE_S)
    for place in places:
        left = [name for name in set(os.listdir(place)) - before[place] if name.startswith("core")]
        assert not left, f"a dump in {place}"
    assert "Traceback" not in here.requester.last_words()
    search(secrets, here.requester.last_words().encode() + here.requester.log().encode(), "the last words")


def _core_limit(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_CORE)
