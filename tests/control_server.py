"""A small real peer for client tests: it speaks the documented control protocol over a Unix socket.

It runs no model and no network: what it "computes" is its inputs under the
names ``out_<name>``. Everything else is real: socket, frames, token, credit,
commitments, receipts. A test that needs a hostile or a dying peer replaces
``script`` by its own function.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cocoon.core.ids import peer_id
from cocoon.node.handover import Handover
from cocoon.wire import codec
from cocoon.wire.commitment import commit
from cocoon.wire.framing import FrameParser, frame
from cocoon.wire.tensors import decode_tensors, encode_tensors

TOKEN = "token-of-the-test-peer"
PROVIDER = hashlib.sha256(b"provider").digest()
LEASE = hashlib.sha256(b"lease").digest()
TASK = hashlib.sha256(b"task").digest()[:16]
MAX_BYTES = 80 << 20
#: A peer that lost one call as a provider, and held one auction as a requester.
MARKET: dict[str, list[dict[str, Any]]] = {
    "offers": [{"provider": peer_id(PROVIDER), "setup_nanoton": 0, "run_nanoton_per_1000": 3}],
    "calls": [{
        "age_ms": 61_000, "kind": "infer", "model": "private", "units": 2, "bid_nanoton": 9,
        "nanoton_per_1000": 4_000, "answer": "bid", "outcome": "lost", "reason": "up to 5 % dearer",
    }],
    "auctions": [{
        "age_ms": 3_000, "units": 4, "ceiling_nanoton": 50,
        "bids": [{
            "provider": peer_id(PROVIDER), "expected_nanoton": 12, "completion_ms": 8, "warm": False, "taken": True,
            "reason": "",
        }],
        "missed": [{"provider": peer_id(LEASE), "code": "unreachable"}],
    }],
}
SUMS: dict[str, Any] = {
    "heard": 2, "bid": 1, "won": 0, "lost": 1, "declined": {"busy": 1}, "reason": "up to 5 % dearer",
}
SOLD = {"units": 7, "earned_nanoton": 5, "receipts": 2}
HINDSIGHT = {
    "bid": 4, "lost_dearer": 3, "lower_band_at_least": 2, "lower_band_at_most": 3, "no_dearer_at_least": 1,
    "no_dearer_at_most": 2, "won_at_least": 1, "gained_at_least_nanoton": 8, "won": 1, "won_nanoton": 10,
    "won_at_ask_nanoton": 6,
}


class Talk:
    """One conversation, seen from the peer's side."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._parser = FrameParser(MAX_BYTES)
        self._inbox: list[bytes] = []
        self._units: list[dict[str, Any]] = []
        self._descriptors: list[int] = []
        #: What the client shares, once a script has said that it may.
        self.handover = Handover()

    def receive(self) -> dict[str, Any] | None:
        """The next frame of the client; None when it hung up."""
        while not self._inbox:
            data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 16, 1)
            if not data:
                return None
            self._descriptors += descriptors
            self._inbox += self._parser.feed(data)
        message: dict[str, Any] = codec.decode(self._inbox.pop(0), max_bytes=MAX_BYTES, keys="str")
        return message

    def unit(self) -> dict[str, Any] | None:
        """The client's next unit and its inputs; None when it hung up."""
        while not self._units:
            if (message := self.receive()) is None:
                return None
            if "shared_bytes" in message:
                self.handover.share(self._descriptors.pop(), message["shared_bytes"])
                continue
            first = message["first"]
            found = self.handover.inputs(first, message["inputs"], message.get("rooms"), len(message["inputs"]))
            self._units += [{"unit": unit, "inputs": inputs} for unit, inputs in enumerate(found, first)]
        return self._units.pop(0)

    def hand(self, results: dict[str, Any]) -> None:
        """An event with results, whose outputs lie in shared memory if they have room there."""
        told = [{**one, **self.handover.outputs(one["unit"], one["outputs"])} for one in results["results"]]
        for one in told:
            if "outputs_bytes" in one:
                del one["outputs"]
        self.send({**results, "results": told})

    def send(self, message: dict[str, Any]) -> None:
        """One frame to the client."""
        self.socket.sendall(frame(codec.encode(message, keys="str")))

    def event(self, name: str, **fields: Any) -> None:
        """One event."""
        self.send({"event": name, **fields})

    def error(self, code: str, text: str) -> None:
        """The final error."""
        self.send({"error": {"code": code, "text": text, "remedy": "of the peer"}})


Script = Callable[[Talk, str, dict[str, Any]], None]


def result_of(unit: int, inputs: bytes, /, number: int, **changes: Any) -> dict[str, Any]:
    """An honest event with the result of one unit; ``changes`` make it dishonest, ``...`` leaves a field out."""
    salt = hashlib.sha256(b"salt%d" % unit).digest()[:16]
    outputs = encode_tensors({f"out_{name}": array for name, array in decode_tensors(inputs).items()})
    honest = {
        "unit": unit, "outputs": outputs, "number": number, "units": 1, "price_nanoton": 0,
        "input_hash": commit(salt, inputs).hash, "output_hash": commit(salt, outputs).hash, "salt": salt, "ran_us": 250,
    }
    of_frame = {"event": "results", "provider": PROVIDER, "lease": LEASE, "results": [honest]}
    for key, value in changes.items():
        fields = of_frame if key in of_frame else honest
        if value is ...:
            del fields[key]
        else:
            fields[key] = value
    return of_frame


def receipt_hash(first: int) -> bytes:
    """The hash of the receipt whose first run is ``first``."""
    return hashlib.sha256(b"receipt%d" % first).digest()


def run_task(
    talk: Talk, args: dict[str, Any], tranche: int = 4, credit: int = 3, reverse: bool = False
) -> None:
    """The whole flow of ``run``; ``reverse`` answers each window of units backwards."""
    units = args["units"]
    talk.event("discovering")
    talk.event("bids", bids=[{"provider": PROVIDER, "setup_nanoton": 0}], chosen=PROVIDER, ceiling_nanoton=0, missed=[])
    talk.event("lease", provider=PROVIDER, lease=LEASE)
    talk.event("model", sent_bytes=5, total_bytes=10)
    talk.event("ready", load_ms=7)
    receipts: list[bytes] = []
    answered = first = 0
    while answered < units:
        window = min(credit, units - answered)
        talk.event("credit", count=window)
        batch = []
        for _ in range(window):
            message = talk.unit()
            if message is None:
                return
            batch.append(message)
        for message in reversed(batch) if reverse else batch:
            talk.send(result_of(message["unit"], message["inputs"], number=message["unit"]))
        answered += window
        if answered - first >= tranche or answered == units:
            receipts.append(receipt_hash(first))
            talk.event("receipt", hash=receipts[-1], seq=len(receipts), lease=LEASE, runs=answered - first,
                       first_number=first, verified=True)
            first = answered
    talk.send({"done": {"task": TASK, "units": units, "failed": 0, "receipts": receipts, "price_nanoton": 0,
                        "provider": PROVIDER}})


def honest(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """Answers every verb as a peer would."""
    match verb:
        case "run":
            run_task(talk, args)
        case "status":
            talk.send({"done": {"peer": PROVIDER, "sells": False, "connections": 1, "addresses": []}})
        case "offers":
            talk.send({"done": {"offers": [{"provider": peer_id(PROVIDER), "setup_nanoton": 0}]}})
        case "models_ls":
            talk.send({"done": {"models": []}})
        case "models_add":
            digest = hashlib.sha256(Path(args["path"]).read_bytes()).digest()
            talk.send({"done": {"model": digest, "public": args["public"]}})
        case "models_inspect":
            file = {"path": "model.onnx", "size_bytes": 5, "root": bytes(32)}
            talk.send({"done": {"model": bytes(32), "licence": "MIT", "held": False, "files": [file],
                                "inputs": [{"name": "x", "dtype": "float32", "axes": ["n", "3"]}]}})
        case "models_pull":
            talk.event("pulled", here_bytes=3, total_bytes=5, holders=2)
            talk.send({"done": {"model": bytes(32), "size_bytes": 5, "announced": False}})
        case "models_rm":
            talk.send({"done": {"model": bytes(32), "removed": True}})
        case "models_alias":
            talk.send({"done": {"aliases": [{"name": "mine", "model": bytes(32)}]}})
        case "market":
            for part, items in MARKET.items():
                talk.event("page", part=part, items=items)
            talk.send({"done": {"sums": SUMS}})
        case "earnings":
            if "by" in args:
                talk.event("page", part="groups", items=[{args["by"]: "x", **SOLD}])
            what_if = {"what_if": {**HINDSIGHT, "ask_nanoton": args["ask_nanoton"]}} if "ask_nanoton" in args else {}
            talk.send({"done": {"earned_nanoton": 5, "fees_nanoton": 0, "lanes": [], **what_if}})
        case "receipts_ls":
            talk.send({"done": {"receipts": [{"hash": receipt_hash(0), "runs": 1}]}})
        case "stop":
            talk.send({"done": {"stopping": True}})
        case _:
            talk.error("not_found", f"there is no {verb}")


class ControlServer:
    """Listens on a Unix socket below ``home`` and writes its control.json."""

    def __init__(self, home: Path, script: Script = honest) -> None:
        self.home = home
        self.script = script
        self.requests: list[tuple[str, dict[str, Any]]] = []
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(home, os.O_RDONLY)
        self._listener.bind(f"/proc/self/fd/{folder}/control.sock")  # also below long directories
        os.close(folder)
        self._listener.listen()
        self.write_contact()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def write_contact(self, mode: int = 0o600, **changes: Any) -> Path:
        """Write control.json, as it should be but for ``changes``."""
        path = self.home / "control.json"
        contact = {"path": str(self.home / "control.sock"), "token": TOKEN, "pid": os.getpid()} | changes
        path.write_text(json.dumps(contact))
        path.chmod(mode)
        return path

    def close(self) -> None:
        """Stop listening; open conversations end with their clients."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            talk = Talk(connection)
            try:
                request = talk.receive()
                if request is None:
                    return
                if request["token"] != TOKEN:
                    talk.error("policy_refusal", "wrong token")
                    return
                self.requests.append((request["verb"], request["args"]))
                self.script(talk, request["verb"], request["args"])
            except OSError:
                pass  # the client hung up, as some tests want it to


@contextmanager
def serving(home: Path, script: Script = honest) -> Iterator[ControlServer]:
    """A server for the time of a with block."""
    server = ControlServer(home, script)
    try:
        yield server
    finally:
        server.close()
