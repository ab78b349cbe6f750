"""RUN-1 to RUN-6, RUN-15 to RUN-29: every way a worker can end, and that none is left over."""

import os
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from cocoon.core.errors import ProviderBusy, RunTimeout, WorkerLost
from cocoon.core.limits import WORKER_STDERR_BYTES
from cocoon.core.values import replace
from cocoon.runtime.channel import pair
from cocoon.runtime.process import Worker
from cocoon.runtime.protocol import Ran, pack_reply
from cocoon.runtime.service import open_runtime
from cocoon.wire.framing import frame
from cocoon.wire.tensors import encode_tensors
from tests import models
from tests.adapters.runtime.conftest import LIMITS, PATIENCE_S, SHORT_NS, run_tensors


@asynccontextmanager
async def endless_run(start, model_file, expected):
    """A worker that is in the middle of a run which ends with ``expected``."""
    worker = await start()
    await worker.load(model_file(models.endless_model()))

    async def run():
        with pytest.raises(expected) as caught:
            await run_tensors(worker, models.endless_inputs())
        worker.seen = caught.value

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        yield worker, nursery.cancel_scope


def is_gone(pid: int) -> bool:
    """Whether the process ended and was reaped, or ends within the test's patience."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = poll.poll(30_000)  # less than the CPU time limit of any worker here
    os.close(descriptor)
    return bool(ended)


async def test_a_killed_worker_is_a_typed_error_and_the_next_one_runs(start, model_file):
    async with endless_run(start, model_file, WorkerLost) as (worker, _):
        os.kill(worker.pid, signal.SIGKILL)
    assert worker.seen.text == "the worker died of SIGKILL while running the model"
    async with await start() as other:
        await other.load(model_file(models.affine_model()))
        assert (await run_tensors(other, models.affine_inputs()))["y"].shape == (2, 3)


async def test_a_crashed_worker_names_its_signal(start, model_file):
    async with endless_run(start, model_file, WorkerLost) as (worker, _):
        os.kill(worker.pid, signal.SIGSEGV)
    assert "SIGSEGV" in worker.seen.text and "Segmentation fault" in worker.last_words


async def test_a_worker_that_makes_a_forbidden_system_call_is_lost_and_its_error_says_why(start, model_file):
    async with endless_run(start, model_file, WorkerLost) as (worker, _):
        os.kill(worker.pid, signal.SIGSYS)
    assert worker.seen.text == "the worker made a forbidden system call while running the model, and was killed for it"


async def test_a_frozen_worker_is_killed_at_the_deadline(start, model_file):
    worker = await start(replace(LIMITS, run_ns=SHORT_NS))
    await worker.load(model_file(models.adder_model()))
    os.kill(worker.pid, signal.SIGSTOP)
    with trio.move_on_after(20) as patience, pytest.raises(RunTimeout):
        await run_tensors(worker, models.kernel_bomb_inputs())
    assert not patience.cancelled_caught, "it was waited for without end"
    assert is_gone(worker.pid)


async def test_an_answer_that_comes_with_the_end_of_patience_leaves_no_worker_that_is_half_dead(start, model_file):
    worker = await start()
    await worker.load(model_file(models.affine_model()))

    class Overtaken:
        """The alarm rings while an answer lies here."""

        def __init__(self, channel):
            self.send, self.close, self._channel = channel.send, channel.close, channel

        async def receive(self):
            answer = await self._channel.receive()
            worker._give_up()
            return answer

    worker._channel = Overtaken(worker._channel)
    with pytest.raises(RunTimeout):
        await run_tensors(worker, models.affine_inputs())
    with pytest.raises(WorkerLost, match="closed"):
        await run_tensors(worker, models.affine_inputs())


async def test_cancelling_a_run_kills_its_worker_and_leaves_nothing(start, model_file):
    async with endless_run(start, model_file, trio.Cancelled) as (worker, scope):
        assert worker.alive
        scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    assert not worker.alive
    with pytest.raises(WorkerLost, match="closed"):
        await run_tensors(worker, models.endless_inputs())


async def test_leaving_the_runtime_kills_and_reaps_every_worker(tmp_path, model_file):
    with trio.fail_after(PATIENCE_S):
        async with open_runtime(LIMITS, tmp_path) as opened:
            busy, idle = await opened.take(), await opened.take()
            await busy.load(model_file(models.endless_model()))
            pids = children()
            assert {busy.pid, idle.pid} <= pids
    assert not pids & children()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


async def test_only_so_many_workers_are_taken_at_one_time(tmp_path):
    with trio.fail_after(PATIENCE_S):
        async with open_runtime(LIMITS, tmp_path, workers=1) as opened:
            first = await opened.take()
            with pytest.raises(ProviderBusy, match="all 1 workers"):
                await opened.take()
            await first.close()
            await (await opened.take()).close()


async def test_a_spare_that_died_is_replaced(runtime):
    for pid in children():
        os.kill(pid, signal.SIGKILL)
        assert is_gone(pid)
    async with await runtime.take() as worker:
        assert worker.alive


PEER = """
import sys, trio
from pathlib import Path
from cocoon.runtime.protocol import Ran, pack_reply
from cocoon.runtime.service import WorkerLimits, open_runtime

async def main():
    async with open_runtime(WorkerLimits(), Path(sys.argv[1])) as runtime:
        worker = await runtime.take()
        await worker.load(Path(sys.argv[2]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, Path(sys.argv[3]).read_bytes())
            await trio.lowlevel.checkpoint()
            print(worker.pid, flush=True)

trio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties a worker to its peer only on Linux")
def test_a_worker_dies_with_its_peer_in_the_middle_of_a_run(tmp_path, model_file):
    model, inputs = model_file(models.endless_model()), tmp_path / "inputs"
    inputs.write_bytes(encode_tensors(models.endless_inputs()))
    command = [sys.executable, "-c", PEER, str(tmp_path), str(model), str(inputs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        worker_pid = int(peer.stdout.readline())
        peer.kill()
    assert is_gone(worker_pid)


WITNESS = """
import sys, trio
from pathlib import Path
from cocoon.runtime.protocol import Ran, pack_reply
from cocoon.runtime.service import WorkerLimits, open_runtime

async def main():
    async with open_runtime(WorkerLimits(), Path(sys.argv[1])) as runtime:
        async with await runtime.take() as worker:
            await worker.load(Path(sys.argv[2]))
            await worker.run(Path(sys.argv[3]).read_bytes())

trio.run(main)
print(sorted({"numpy", "onnx", "onnxruntime"} & set(sys.modules)))
print([line for line in open("/proc/self/maps") if "onnxruntime" in line])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peer_never_maps_onnx_runtime(tmp_path, model_file):
    model, inputs = model_file(models.affine_model()), tmp_path / "inputs"
    inputs.write_bytes(encode_tensors(models.affine_inputs()))
    command = [sys.executable, "-c", WITNESS, str(tmp_path), str(model), str(inputs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_loaded_worker_is_confined(start, model_file):
    async with await start() as worker:
        await worker.load(model_file(models.affine_model()))
        await run_tensors(worker, models.affine_inputs())
        proc = Path("/proc", str(worker.pid))
        rows = (proc / "limits").read_text().splitlines()
        limits = {row[:25].strip(): row[26:].split()[0] for row in rows}
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        assert limits["Max core file size"] == limits["Max file size"] == "0"
        assert int(limits["Max open files"]) <= 64
        assert limits["Max address space"].isdigit() and limits["Max cpu time"].isdigit()
        assert status["NoNewPrivs"].strip() == "1"
        assert ("few_system_calls" in worker.device.confinement) == (status["Seccomp"].strip() == "2")
        assert os.getsid(worker.pid) == worker.pid
        assert [os.readlink(proc / "fd" / n) for n in "01"] == ["/dev/null", "/dev/null"]
        assert list((proc / "cwd").iterdir()) == []
        if os.geteuid() == 0:
            assert "nobody" not in worker.device.confinement or status["Uid"].split()[0] == "65534"
        if "no_network" in worker.device.confinement:
            assert (proc / "net" / "dev").read_text().count(":") == 1  # loopback, down


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_started_worker_has_one_thread_and_a_data_base_of_nobody(start):
    worker = await start()
    proc = Path("/proc", str(worker.pid))
    assert len(list((proc / "task").iterdir())) == 1, "a thread would keep what Landlock takes from the others"
    opened = [os.readlink(entry) for entry in (proc / "fd").iterdir()]
    assert [path for path in opened if "/proc/" not in path and path.startswith("/") and path != "/dev/null"] == []


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores to choose from"
)
async def test_a_worker_keeps_off_the_core_of_another_worker_even_if_its_turn_is_there(start, model_file):
    model = model_file(models.adder_model())
    first, second = await start(), await start()
    await first.load(model)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(first.pid, {cores[second.pid % len(cores)]})
    await second.load(model)
    assert len(os.sched_getaffinity(second.pid)) == LIMITS.threads
    assert not os.sched_getaffinity(second.pid) & os.sched_getaffinity(first.pid)


LIAR = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
link.recv(65536)
link.sendall(bytes.fromhex(sys.argv[2]))
while link.recv(65536):
    pass
"""


def lying(home: Path, answer: bytes, stderr: int) -> tuple[subprocess.Popen[bytes], Worker]:
    """A process in a worker's place, which answers its first order with these bytes; what it says is read there."""
    channel, theirs = pair()
    home.mkdir()
    command = [sys.executable, "-c", LIAR, str(theirs.fileno()), answer.hex()]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    return process, Worker(process, channel, stderr, home)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff\xff",
        b"HTTP/1.1 200 OK\r\n\r\n",
        frame(b"\xc1"),
        frame(b"\x93\x04\xa4busy\xa0"),
        frame(b"\x93\x03\x00\xce\x7f\xff\xff\xff"),
        frame(b"\x93\x03\x00\x00"),
    ],
    ids=["4 GiB header", "other protocol", "no msgpack", "foreign error", "2 GiB body", "answer to no run"],
)
async def test_a_worker_that_breaks_the_protocol_is_killed(tmp_path, model_file, answer):
    process, worker = lying(tmp_path / "home", answer, os.open("/dev/null", os.O_RDONLY))
    with trio.fail_after(PATIENCE_S), pytest.raises(WorkerLost, match=r"broke the protocol|another question"):
        await worker.load(model_file(models.adder_model()))
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "home").exists()


async def test_a_worker_that_never_falls_silent_is_heard_a_pipe_full_at_a_time(tmp_path, model_file):
    with (tmp_path / "words").open("wb+") as words:
        words.truncate(1 << 24)
        _, worker = lying(tmp_path / "home", frame(pack_reply(Ran(()))), os.dup(words.fileno()))
        with pytest.raises(WorkerLost, match="another question"):
            await worker.load(model_file(models.adder_model()))
        assert os.lseek(words.fileno(), 0, os.SEEK_CUR) == 2 * 65_536, "once after its answer, once at its end"
    assert len(worker.last_words) == WORKER_STDERR_BYTES


def children() -> set[int]:
    """Pids of this process's children that are workers."""
    lists = [(task / "children").read_text() for task in Path("/proc/self/task").iterdir()]
    pids = {int(pid) for text in lists for pid in text.split()}
    return {pid for pid in pids if b"cocoon.runtime.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}
