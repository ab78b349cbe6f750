"""Rivals as processes of the bench: started, asked until they answer, measured, ended.

Purity: shell.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.packaged import relu
from bench.rivals.load import Figures, WrongAnswer, figures, request_bytes
from bench.rows import ROOT

VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
SERVERS = "bench.rivals.servers"
WARM_S, SPAN_S = 1.0, 4.0
#: Ray starts a dozen processes; a cold disk takes its time.
READY_S = 120
END_S = 20
_LOOK_S = 0.1
#: One figure: warming up, measuring, and a server that has stopped answering.
_LOAD_S = 120.0
#: Within which a first request is answered, from a server that is up but cold.
_FIRST_S = 3.0
_RAW = {"content-type": "application/octet-stream"}
_TRITON_CONFIG = """
name: "relu"
backend: "python"
max_batch_size: 64
input [{ name: "x" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""


class NoRival(Exception):
    """This rival cannot be measured here, and why."""


@dataclass(frozen=True)
class Payload:
    """Rows of float32 and their answers: no two of ``variants`` are the same, as no two of a user's are."""

    name: str
    items: int
    variants: int

    def x(self, turn: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Half of it negative, so that an echo would be noticed."""
        row = np.linspace(-1, 1, self.items, dtype="f4")
        return np.roll(row, turn % self.variants).reshape(1, self.items)

    def answer(self, turn: int) -> bytes:
        """What every server must give."""
        return np.maximum(self.x(turn), 0).tobytes()


#: What is measured: a payload, and how many requests at a time.
SMALL, LARGE = Payload("1 KiB", 256, 128), Payload("4 MiB", 1 << 20, 2)
CELLS = ((SMALL, 1), (SMALL, 64), (LARGE, 8))


@dataclass(frozen=True)
class Site:
    """Where one rival stands."""

    folder: Path
    port: int


@dataclass(frozen=True)
class Rival:
    """How to start it, and how it wants to be asked.

    Attributes:
        package: What must be importable in its environment.
    """

    name: str
    package: str
    command: Callable[[Site], list[str]]
    request: Callable[[Payload, int], bytes]


def rivals() -> list[Rival]:
    """All that are served over HTTP."""
    return [
        Rival("Triton, batching", "pytriton", lambda site: _triton(site, "dynamic_batching {}"), _triton_request),
        Rival("Triton", "pytriton", lambda site: _triton(site, ""), _triton_request),
        Rival("LitServe", "litserve", lambda site: _module(site, "serve_litserve"), _raw_request),
        Rival("BentoML", "bentoml", _bentoml, _raw_request),
        Rival("Ray Serve", "ray", lambda site: _module(site, "serve_ray"), _raw_request),
    ]


def measure(rival: Rival) -> Iterator[tuple[Payload, int, Figures]]:
    """Figures of each cell.

    Raises:
        NoRival: it is not installed, did not start, or did not answer as it should.
    """
    _check_installed(rival.package)
    with tempfile.TemporaryDirectory(prefix="cocoon-rival-") as folder:
        with _served(rival, Site(Path(folder), _port())) as site:
            for payload, at_a_time in CELLS:
                yield payload, at_a_time, _drive(rival, site, payload, at_a_time, WARM_S, SPAN_S)


def plain(payload: Payload) -> Figures:
    """ONNX Runtime in a process, one run after the other.

    Raises:
        NoRival: there is no environment for it.
    """
    _check_installed("onnxruntime")
    with tempfile.TemporaryDirectory(prefix="cocoon-rival-") as folder:
        command = [str(PYTHON), "-m", f"{SERVERS}.plain_ort", str(payload.items), str(SPAN_S)]
        return _figures(command, _environment(Path(folder)))


def _check_installed(package: str) -> None:
    if not PYTHON.exists():
        raise NoRival("no .venv-bench; `make bench` makes it")
    done = subprocess.run([str(PYTHON), "-c", f"import {package}"], capture_output=True, text=True)
    if done.returncode:
        raise NoRival(done.stderr.strip().splitlines()[-1])


@contextmanager
def _served(rival: Rival, site: Site) -> Iterator[Site]:
    """The rival while it answers; its whole process group is gone afterwards."""
    errors = site.folder / "errors.txt"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            rival.command(site), cwd=ROOT, env=_environment(site.folder), stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
    try:
        _wait_until_it_answers(rival, site, process, errors)
        yield site
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _wait_until_it_answers(rival: Rival, site: Site, process: subprocess.Popen[bytes], errors: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            _drive(rival, site, SMALL, 1, 0, _FIRST_S)
            return
        except NoRival as refusal:
            if process.poll() is not None or time.monotonic() > deadline_s:
                words = errors.read_text(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
                raise NoRival(f"it did not start: {words[0][:120]} ({refusal})") from None
        time.sleep(_LOOK_S)


def _drive(rival: Rival, site: Site, payload: Payload, at_a_time: int, warm_s: float, span_s: float) -> Figures:
    order, paths = site.folder / "order.json", dict[str, list[str]]()
    for name, made in (("requests", partial(rival.request, payload)), ("answers", payload.answer)):
        files = [site.folder / f"{name}-{turn}" for turn in range(payload.variants)]
        for turn, file in enumerate(files):
            file.write_bytes(made(turn))
        paths[name] = list(map(str, files))
    load = {**paths, "port": site.port, "at_a_time": at_a_time}
    order.write_text(json.dumps({**load, "warm_s": warm_s, "span_s": span_s}))
    return _figures([str(PYTHON), "-m", "bench.rivals.load", str(order)], _environment(site.folder))


def _figures(command: list[str], environment: Mapping[str, str]) -> Figures:
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_LOAD_S)
    except subprocess.TimeoutExpired:
        raise NoRival(f"no figures after {_LOAD_S:.0f} s") from None
    if done.returncode:
        raise NoRival(done.stderr.strip().splitlines()[-1][:200])
    found = json.loads(done.stdout)
    try:
        return figures(found["took_ns"], found["span_ns"])
    except WrongAnswer as error:
        raise NoRival(str(error)) from None


def _environment(folder: Path) -> dict[str, str]:
    """One model for all; nothing is sent to anybody's makers, nothing is written outside ``folder``."""
    model = folder / "relu.onnx"
    if not model.exists():
        model.write_bytes(relu())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COCOON")}
    return {
        **kept, "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "COCOON_BENCH_MODEL": str(model),
        "HOME": str(folder), "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True", "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0", "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
    }


def _port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- how each is started and asked --------------------------------------------


def _raw_request(payload: Payload, turn: int) -> bytes:
    return request_bytes("/relu", _RAW, payload.x(turn).tobytes())


def _triton_request(payload: Payload, turn: int) -> bytes:
    """KServe v2 with the binary extension: JSON, then the tensor's bytes."""
    x = payload.x(turn)
    raw = x.tobytes()
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    wanted = [{"name": "y", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    headers = {**_RAW, "inference-header-content-length": str(len(head))}
    return request_bytes("/v2/models/relu/infer", headers, head + raw)


def _module(site: Site, name: str) -> list[str]:
    return [str(PYTHON), "-m", f"{SERVERS}.{name}", str(site.port)]


def _bentoml(site: Site) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(site.port), "--working-dir", str(ROOT)]
    return [str(VENV / "bin" / "bentoml"), "serve", f"{SERVERS}.serve_bentoml:Relu", *where]


def _triton(site: Site, batching: str) -> list[str]:
    """The server inside pytriton's wheel, with a repository of our own; its stub belongs beside the backend."""
    (home,) = VENV.glob("lib/python3.*/site-packages/pytriton/tritonserver")
    model = site.folder / "models" / "relu"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(_TRITON_CONFIG + batching)
    shutil.copy(ROOT / "bench" / "rivals" / "servers" / "triton_model.py", model / "1" / "model.py")
    python = home.parents[2].name.removeprefix("python")
    backend = shutil.copytree(home / "backends" / "python", site.folder / "backends" / "python")
    shutil.copy(home / "python_backend_stubs" / python / "triton_python_backend_stub", backend)
    # The stub is an interpreter of its own: it finds packages and libraries by these paths alone.
    packages = home.parents[1]
    paths = [f"PYTHONPATH={ROOT}:{packages}", f"LD_LIBRARY_PATH={packages / 'nvidia_pytriton.libs'}"]
    return [
        "env", *paths, str(home / "bin" / "tritonserver"), f"--model-repository={site.folder / 'models'}",
        f"--backend-directory={site.folder / 'backends'}", "--http-address=127.0.0.1", f"--http-port={site.port}",
        "--allow-grpc=false", "--allow-metrics=false", "--log-info=false", "--log-warning=false",
    ]
