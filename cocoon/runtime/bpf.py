"""Programs for the kernel's packet filter, as far as a filter of system calls needs them.

A program looks at one system call: its number, the machine it is meant for and its
six arguments. It has one accumulator and jumps forward only. Here a program is a
list of rules, each whole in itself: it recognises one number and gives a verdict, or
passes on to the next rule. So no rule can jump into another.

Purity: pure.
Spec: docs/spec/runtime.md, rule RUN-27.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

# linux/bpf_common.h: the four instructions used.
LOAD = 0x20
"""Put the 32-bit word at offset ``value`` into the accumulator."""
AND = 0x54
"""Keep the accumulator's bits that ``value`` has."""
EQUAL = 0x15
"""Skip ``if_true`` or ``if_false`` instructions, by whether the accumulator is ``value``."""
RETURN = 0x06
"""End with the verdict ``value``."""

# linux/seccomp.h: struct seccomp_data, and verdicts.
NUMBER_OFFSET = 0
MACHINE_OFFSET = 4
ARGUMENTS_OFFSET = 16
ARGUMENT_BYTES = 8
KILL = 0x8000_0000
"""The whole process, at once, by SIGSYS."""
ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000


class Instruction(NamedTuple):
    """``struct sock_filter``."""

    code: int
    if_true: int
    if_false: int
    value: int


class Check(NamedTuple):
    """That the low word of an argument, under a mask, is ``wanted``.

    The low word is all that the kernel itself reads of the arguments we check.
    """

    argument: int
    mask: int
    wanted: int


def refuse(errno: int) -> int:
    """The verdict that the call is not made and answers ``errno``."""
    return _ERRNO | errno


def rule(number: int, verdict: int, check: Check | None = None) -> list[Instruction]:
    """``verdict`` for the call ``number``; if it does not pass its check, ``KILL``."""
    body = [_return(verdict)]
    if check is not None:
        offset = ARGUMENTS_OFFSET + ARGUMENT_BYTES * check.argument  # little-endian: the low word is first
        looks = [_load(offset), Instruction(AND, 0, 0, check.mask), Instruction(EQUAL, 0, 1, check.wanted)]
        body = [*looks, *body, _return(KILL)]
    return [Instruction(EQUAL, 0, len(body), number), *body]


def program(machine: int, rules: Iterable[list[Instruction]]) -> list[Instruction]:
    """A filter that kills at any call that no rule knows, and at calls in another machine's numbers."""
    head = [_load(MACHINE_OFFSET), Instruction(EQUAL, 1, 0, machine), _return(KILL), _load(NUMBER_OFFSET)]
    return [*head, *(one for each in rules for one in each), _return(KILL)]


def assemble(instructions: Iterable[Instruction]) -> bytes:
    """The bytes that the kernel takes: an array of ``struct sock_filter``."""
    return b"".join(struct.pack("<HBBI", *one) for one in instructions)


def _load(offset: int) -> Instruction:
    return Instruction(LOAD, 0, 0, offset)


def _return(verdict: int) -> Instruction:
    return Instruction(RETURN, 0, 0, verdict)
