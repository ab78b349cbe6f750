"""A worker that was taken over: what it tries, and how each try ends.

Run as ``python -m tests.adapters.runtime.attempts FOLDER``; prints a JSON object from the name of
a try to its end. A try is made by a process of its own, forked with the imports done, that starts
and loads a model by the product's own functions. Where two protections forbid one thing, a try
leaves the others out, so that it sees the one it is about.

An end is what the try said (``did``), the name of an error number, or the name of the signal.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cocoon.core.units import MIB, SECOND_NS
from cocoon.runtime import confine, landlock, seccomp, session, worker
from cocoon.runtime.protocol import Load
from tests import models

MEMORY_BYTES = 256 * MIB
DESCRIPTORS = 64
PAGE_BYTES = 4_096
#: Of one try; only one that a broken protection lets wait needs it.
PATIENCE_S = 20
_LIBC = ctypes.CDLL(None, use_errno=True)
#: What the thread shall do that is there before the model is loaded.
_ERRAND: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()


@dataclass(frozen=True)
class Outside:
    """What a worker may reach for: a file for all to read, a peer that listens, a file that is open."""

    folder: Path
    peer: int
    tcp_port: int
    abstract: str
    open_file: int

    @property
    def public(self) -> Path:
        return self.folder / "public"


Try = Callable[[Outside], str]
#: Name of a protection to what takes it away.
_WITHOUT: dict[str, Callable[[], None]] = {
    "filter": lambda: setattr(seccomp, "available", list),
    "landlock": lambda: [setattr(landlock, name, list) for name in ("nothing", "read_only")] and None,
    "second layer": lambda: setattr(landlock, "nothing", list),
    "nobody": lambda: setattr(confine, "drop_user", list),
    "namespaces": lambda: setattr(confine, "leave_network", list),
}
TRIES: dict[str, tuple[Try, tuple[str, ...]]] = {}


def attempt(name: str, *without: str) -> Callable[[Try], Try]:
    """Register a try under ``name``."""

    def register(function: Try) -> Try:
        TRIES[name] = (function, without)
        return function

    return register


def raw(number: int, *arguments: int) -> str:
    """The system call ``number`` of x86-64, past every library."""
    if _LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return "did"


# --- everything on -----------------------------------------------------------


@attempt("make a thread")
def make_thread(_: Outside) -> str:
    said: list[str] = []
    thread = threading.Thread(target=said.append, args=("did",))
    thread.start()
    thread.join()
    return said[0]


@attempt("make a socket in a thread")
def socket_in_thread(_: Outside) -> str:
    return _in_thread(threading.Thread(target=socket.socket))


@attempt("make a socket in an older thread")
def socket_in_older_thread(_: Outside) -> str:
    _ERRAND.put(socket.socket)
    return _in_thread(next(thread for thread in threading.enumerate() if thread.daemon))


def _in_thread(thread: threading.Thread) -> str:
    if thread.ident is None:
        thread.start()
    thread.join(5)  # for ever, if the filter killed the thread alone
    return "did"


@attempt("fork")
def fork(_: Outside) -> str:
    os.fork()
    return "did"


@attempt("run a program")
def run_program(_: Outside) -> str:
    os.execv("/bin/true", ["true"])


@attempt("map memory to write and execute")
def map_executable(_: Outside) -> str:
    mmap.mmap(-1, PAGE_BYTES, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    return "did"


@attempt("make memory executable")
def protect_executable(_: Outside) -> str:
    room = mmap.mmap(-1, PAGE_BYTES)
    return raw(10, ctypes.addressof(ctypes.c_char.from_buffer(room)), PAGE_BYTES, mmap.PROT_READ | mmap.PROT_EXEC)


@attempt("make a socket")
def make_socket(_: Outside) -> str:
    socket.socket()
    return "did"


@attempt("signal the peer's thread")
def signal_thread(outside: Outside) -> str:
    return raw(234, outside.peer, outside.peer, 0)


@attempt("raise the peer's limits")
def limit_peer(outside: Outside) -> str:
    return raw(302, outside.peer, resource.RLIMIT_NOFILE, 0, 0)


@attempt("leave its cores")
def leave_cores(_: Outside) -> str:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return "did"


@attempt("set up a terminal")
def terminal(_: Outside) -> str:
    return raw(16, 0, 0x5401, 0)


@attempt("write to a file that is open")
def write_open_file(outside: Outside) -> str:
    os.write(outside.open_file, b"x")
    return "did"


@attempt("share a mapping with the peer")
def share_mapping(outside: Outside) -> str:
    with mmap.mmap(outside.open_file, PAGE_BYTES) as room:
        room[:1] = b"x"
    return "did"


@attempt("open more descriptors than its share")
def many_descriptors(_: Outside) -> str:
    for _each in range(DESCRIPTORS):
        os.dup(0)
    return "did"


@attempt("take more memory than the model's limit")
def much_memory(_: Outside) -> str:
    try:
        bytearray(2 * MEMORY_BYTES)
    except MemoryError:
        return "refused"
    return "did"


@attempt("soft limit of CPU time")
def cpu_limit(_: Outside) -> str:
    return "bounded" if 0 <= resource.getrlimit(resource.RLIMIT_CPU)[0] < 60 else "free"


@attempt("limit of core files")
def core_limit(_: Outside) -> str:
    return str(resource.getrlimit(resource.RLIMIT_CORE))


@attempt("cores of a model with one thread")
def count_cores(_: Outside) -> str:
    return str(len(os.sched_getaffinity(0)))


#: Of x86-64. None of them has a use in a worker; with arguments of zero each would fail or do no harm.
FORBIDDEN = {
    "kill": 62, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "io_uring_setup": 425,
    "userfaultfd": 323, "keyctl": 250, "add_key": 248, "unshare": 272, "setns": 308, "mount": 165, "bpf": 321,
    "perf_event_open": 298, "memfd_create": 319, "prctl": 157, "link": 86, "unlink": 87,
    "mkdir": 83, "chmod": 90, "rename": 82, "pidfd_open": 434, "pidfd_getfd": 438, "execveat": 322,
    "socketpair": 53, "connect": 42, "shmget": 29, "personality": 135, "setuid": 105, "init_module": 175,
    "x32 getpid": 39 | 0x4000_0000,
}  # fmt: skip
for _name, _number in FORBIDDEN.items():
    attempt(f"call {_name}")(lambda _, number=_number: raw(number, 0, 0, 0, 0, 0, 0))


@attempt("ask about filters")
def ask_about_filters(_: Outside) -> str:
    return raw(317, 2, 0, 0)


# --- one protection at a time ------------------------------------------------


@attempt("read a public file")
def read_with_all(outside: Outside) -> str:
    return "did" if outside.public.open().read(1) else ""


@attempt("read a public file, by Landlock", "filter", "nobody")
def read_public(outside: Outside) -> str:
    return read_with_all(outside)


@attempt("read a public file, by the first layer", "filter", "nobody", "second layer")
def read_first_layer(outside: Outside) -> str:
    return read_with_all(outside)


@attempt("write a file, by the first layer", "filter", "nobody", "second layer")
def write_first_layer(outside: Outside) -> str:
    (outside.folder / "written").open("w")
    return "did"


@attempt("link a file, by the first layer", "filter", "nobody", "second layer")
def link_first_layer(outside: Outside) -> str:
    os.link(outside.public, outside.folder / "linked")
    return "did"


@attempt("read the peer's memory, by Landlock", "filter", "nobody")
def read_peer(outside: Outside) -> str:
    os.open(f"/proc/{outside.peer}/mem", os.O_RDONLY)
    return "did"


@attempt("run a program, by Landlock", "filter", "nobody")
def run_by_landlock(_: Outside) -> str:
    os.execv("/bin/true", ["true"])


@attempt("connect, by Landlock", "filter", "nobody", "namespaces")
def connect(outside: Outside) -> str:
    socket.socket().connect(("127.0.0.1", outside.tcp_port))  # looks nothing up, so it opens no file
    return "did"


@attempt("listen, by Landlock", "filter", "nobody", "namespaces")
def listen(_: Outside) -> str:
    socket.socket().bind(("127.0.0.1", 0))
    return "did"


@attempt("connect to an abstract socket, by Landlock", "filter", "nobody", "namespaces")
def connect_abstract(outside: Outside) -> str:
    socket.socket(socket.AF_UNIX).connect(outside.abstract)
    return "did"


@attempt("signal the peer, by Landlock", "filter", "nobody")
def signal_peer(outside: Outside) -> str:
    os.kill(outside.peer, 0)
    return "did"


@attempt("connect, by the empty namespace", "filter", "nobody", "landlock")
def connect_from_namespace(outside: Outside) -> str:
    return connect(outside)


@attempt("share memory, by the empty namespace", "filter", "nobody", "landlock")
def ipc_namespace(outside: Outside) -> str:
    mine, theirs = (os.stat(f"/proc/{who}/ns/ipc").st_ino for who in ("self", outside.peer))
    return "shared" if mine == theirs else "own"


@attempt("who it is", "filter", "landlock")
def who(_: Outside) -> str:
    return str(os.getresuid())


@attempt("whether privileges can be gained", "filter", "landlock")
def privileges(_: Outside) -> str:
    return str(_LIBC.prctl(39, 0, 0, 0, 0))


@attempt("what comes when the peer dies", "filter")
def death_signal(_: Outside) -> str:
    number = ctypes.c_int()
    _LIBC.prctl(2, ctypes.byref(number))
    return signal.Signals(number.value).name if number.value else "nothing"


# --- the stage ---------------------------------------------------------------


def confined(outside: Outside, function: Try, without: tuple[str, ...]) -> str:
    """Start as a worker does, load a model as it does, then try."""
    for name in without:
        _WITHOUT[name]()
    data = models.adder_model()
    file = os.memfd_create("model")
    os.write(file, data)
    os.lseek(file, 0, os.SEEK_SET)
    worker.confined_start(outside.peer, gpu=False)
    threading.Thread(target=lambda: _ERRAND.get()(), daemon=True).start()
    worker.load(Load(len(data), MEMORY_BYTES, 1, SECOND_NS, SECOND_NS), [file], session.CPU)
    return function(outside)


def end_of(outside: Outside, function: Try, without: tuple[str, ...]) -> str:
    """How a try ended, in a process of its own."""
    heard, spoken = os.pipe()
    if (pid := os.fork()) == 0:
        signal.alarm(PATIENCE_S)
        try:
            said = confined(outside, function, without)
        except OSError as error:
            said = errno.errorcode[error.errno or 0]
        os.write(spoken, said.encode())
        os._exit(0)
    os.close(spoken)
    with os.fdopen(heard) as words:
        said = words.read()
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


def main(folder: Path) -> None:
    """Make every try and print the ends."""
    worker.warm_up(session.CPU)
    folder.chmod(0o777)
    (folder / "public").write_text("anybody may read this")
    name = f"\0cocoon-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        opened = os.open(folder / "opened", os.O_RDWR | os.O_CREAT, 0o666)
        os.truncate(opened, PAGE_BYTES)
        outside = Outside(folder, os.getpid(), tcp.getsockname()[1], name, opened)
        print(json.dumps({name: end_of(outside, *each) for name, each in TRIES.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
