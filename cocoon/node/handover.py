"""What a local client and this peer hand each other in memory that both see, instead of over the socket.

The client owns the memory and says where things lie. Inputs are copied before they
are looked at; outputs go where the client gave them room, and over the socket if
they need more.

Purity: shell. Spec: docs/spec/control.md, rule CTL-24.
"""

from __future__ import annotations

import os
from typing import Any

from cocoon.core.errors import LimitExceeded, UsageError
from cocoon.core.limits import PAYLOAD_BYTES, SHARED_TASK_BYTES
from cocoon.core.shared import SEALS, map_shared


class Handover:
    """Of one task. Without shared memory all goes over the socket."""

    #: Whether this peer takes memory to share.
    possible = SEALS

    def __init__(self) -> None:
        self._memory = memoryview(b"")
        #: Where the outputs of open units may be put.
        self._rooms: dict[int, memoryview] = {}

    def share(self, descriptor: int | None, size_bytes: object) -> None:
        """Use what the client made; the descriptor is closed.

        Raises:
            UsageError: no memory of this size came, or could be made shorter by the client; or it is the second.
        """
        if descriptor is None:
            raise UsageError("memory is to be shared, and no descriptor of it came")
        try:
            if len(self._memory):
                raise UsageError("a task has one piece of shared memory, and this would be the second")
            if type(size_bytes) is not int or not 0 < size_bytes <= SHARED_TASK_BYTES:
                raise UsageError(f"shared memory has 1 to {SHARED_TASK_BYTES} bytes")
            self._memory = map_shared(descriptor, size_bytes)
        finally:
            os.close(descriptor)

    def inputs(self, first: int, given: object, rooms: object, most: int) -> list[bytes]:
        """The inputs of the units from ``first`` on; their rooms are kept until ``outputs`` or ``forget``.

        Args:
            given: A list of byte strings, or of where they lie in shared memory and how many bytes they are.
            rooms: As many places for outputs; None if no unit has one.
            most: Units that may come.

        Raises:
            UsageError: something else came, or a place outside of the memory.
            LimitExceeded: the inputs of one unit are too long.
        """
        if not isinstance(given, list) or not 0 < len(given) <= most:
            raise UsageError(f"the inputs of 1 to {most} units were due")
        if rooms is not None and (not isinstance(rooms, list) or len(rooms) != len(given)):
            raise UsageError("there is one room for the outputs of each unit")
        found = [one if isinstance(one, bytes) else self._place(one) for one in given]
        if (longest_bytes := max(map(len, found))) > PAYLOAD_BYTES:
            raise LimitExceeded(f"the inputs of a unit have {longest_bytes} bytes, above {PAYLOAD_BYTES}")
        for unit, one in enumerate(rooms or (), first):
            if len(room := self._place(one)):
                self._rooms[unit] = room
        return [bytes(one) for one in found]            # of ``bytes`` no copy is made

    def outputs(self, unit: int, outputs: bytes) -> dict[str, Any]:
        """Hand the outputs of a unit over; the fields that say where they are."""
        room = self._rooms.pop(unit, None)
        if room is None or len(outputs) > len(room):
            return {"outputs": outputs}
        room[: len(outputs)] = outputs
        return {"outputs_bytes": len(outputs)}

    def forget(self, unit: int) -> None:
        """It has no outputs."""
        self._rooms.pop(unit, None)

    def close(self) -> None:
        """The task is over: let go of the memory now, whoever may still know this object."""
        for view in (*self._rooms.values(), self._memory):
            view.release()
        self._rooms, self._memory = {}, memoryview(b"")

    def _place(self, place: object) -> memoryview:
        """The memory that the client calls so."""
        match place:
            case [int(at), int(count)] if 0 <= at <= at + count <= len(self._memory):
                return self._memory[at : at + count]
        raise UsageError(f"a place in the {len(self._memory)} bytes of shared memory was due")

