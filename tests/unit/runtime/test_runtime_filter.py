"""RUN-27: the filter of system calls, run by an interpreter of its own."""

from __future__ import annotations

import errno
import struct

import pytest

from cocoon.runtime.bpf import AND, EQUAL, LOAD, RETURN, Instruction, assemble
from cocoon.runtime.calls import ANSWERED, CHECKED, FREE, MACHINES, NUMBERS, Machine, worker_filter

# linux/seccomp.h, once more on purpose: SECCOMP_RET_KILL_PROCESS (that of a thread is 0), ALLOW and ERRNO.
KILL, ALLOW, ANSWER = 0x8000_0000, 0x7FFF_0000, 0x0005_0000
PID = 4_711
THREAD, NEW_USER = 0x003D_0F00, 0x1000_0000


def verdict(code: bytes, machine: int, number: int, *arguments: int) -> int:
    """What the kernel would answer to this call: the instructions that we use, and no others."""
    filled = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    call = struct.pack("<IIQ6Q", number, machine, 0, *filled)
    program = [Instruction(*one) for one in struct.iter_unpack("<HBBI", code)]
    held = place = 0
    while True:
        one = program[place]
        place += 1
        match one.code:
            case code if code == LOAD:
                held = int.from_bytes(call[one.value : one.value + 4], "little")
            case code if code == AND:
                held &= one.value
            case code if code == EQUAL:
                place += one.if_true if held == one.value else one.if_false
            case code if code == RETURN:
                return one.value
            case _:
                raise AssertionError(f"unknown instruction {one}")


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each machine that we know."""
    return MACHINES[request.param]


def ask(machine: Machine, name: str, *arguments: int) -> int:
    """The verdict on a call by its name; calls that the machine lacks count as killed."""
    number = NUMBERS[name][machine.column]
    return verdict(assemble(worker_filter(machine, PID)), machine.number, number & 0xFFFF_FFFF, *arguments)


def test_listed_calls_pass_whatever_their_arguments(machine: Machine) -> None:
    anything = (2**64 - 1,) * 6
    listed = [name for name in FREE if NUMBERS[name][machine.column] >= 0]
    assert {ask(machine, name, *anything) for name in listed} == {ALLOW}


def test_every_other_number_kills(machine: Machine) -> None:
    code = assemble(worker_filter(machine, PID))
    known = {numbers[machine.column] for numbers in NUMBERS.values()}
    others = [number for number in range(1_024) if number not in known]
    assert {verdict(code, machine.number, number) for number in others} == {KILL}


def test_numbers_of_another_machine_kill(machine: Machine) -> None:
    code = assemble(worker_filter(machine, PID))
    for foreign in (0, 0x4000_0003, *(other.number for other in MACHINES.values() if other != machine)):
        assert verdict(code, foreign, NUMBERS["read"][machine.column]) == KILL


def test_numbers_with_the_mark_of_x32_kill() -> None:
    machine = MACHINES["x86_64"]
    code = assemble(worker_filter(machine, PID))
    marked = [numbers[machine.column] | 0x4000_0000 for numbers in NUMBERS.values() if numbers[0] >= 0]
    assert {verdict(code, machine.number, number) for number in marked} == {KILL}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("mmap", (0, 4096, 3), ALLOW),
        ("mmap", (0, 4096, 7), KILL),
        ("mmap", (0, 4096, 4), KILL),
        ("mmap", (0, 4096, 2**32 | 3), ALLOW),
        ("mprotect", (0, 4096, 1), ALLOW),
        ("mprotect", (0, 4096, 5), KILL),
        ("clone", (THREAD,), ALLOW),
        ("clone", (17,), KILL),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (PID, 7), KILL),
        ("prlimit64", (1, 7), KILL),
        ("sched_getaffinity", (0,), ALLOW),
        ("sched_getaffinity", (1,), KILL),
        ("fcntl", (3, 1_030), ALLOW),
        ("fcntl", (3, 4), KILL),
        ("tgkill", (PID, 1, 6), ALLOW),
        ("tgkill", (PID + 1, 1, 6), KILL),
    ],
)
def test_arguments_decide_where_they_matter(
    machine: Machine, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert ask(machine, name, *arguments) == expected


def test_a_thread_in_a_namespace_of_its_own_is_no_thread(machine: Machine) -> None:
    assert ask(machine, "clone", THREAD | NEW_USER) == KILL


@pytest.mark.parametrize(("name", "code"), [("ioctl", errno.ENOTTY), ("clone3", errno.ENOSYS)])
def test_calls_that_honest_libraries_try_are_answered_and_not_made(machine: Machine, name: str, code: int) -> None:
    assert ask(machine, name) == ANSWER | code


def test_every_look_by_path_is_answered_alike(machine: Machine) -> None:
    looks = [name for name in ANSWERED if name not in ("ioctl", "clone3") and NUMBERS[name][machine.column] >= 0]
    assert {ask(machine, name) for name in looks} == {ANSWER | errno.EACCES} and len(looks) >= 6


def test_a_call_is_listed_once() -> None:
    lists = [*FREE, *CHECKED, *ANSWERED, "tgkill"]
    assert sorted(lists) == sorted(NUMBERS)


@pytest.mark.parametrize("column", [0, 1])
def test_no_two_calls_share_a_number(column: int) -> None:
    numbers = [each[column] for each in NUMBERS.values() if each[column] >= 0]
    assert len(numbers) == len(set(numbers))
