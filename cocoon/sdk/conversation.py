"""One task that several threads share: each waits for answers of its own, and one of them reads for all.

No thread is started. Whoever waits while nobody reads does so, and hands out what the peer
says until it has its own answer; then it wakes another. The others sleep. What is handed in
leaves at once, together with what others handed in meanwhile, or behind the peer's next credit.

Invariants
    At most one thread reads; while a thread waits for an answer, one does.
    Each unit is answered to the call that it was sent for, and to no other.
    While a callback of the user's runs, other threads can hand in.

Purity: shell (threads). Spec: docs/spec/control.md, rules CTL-7 to CTL-10 and CTL-26.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from cocoon.core import limits
from cocoon.core.errors import CocoonError, LimitExceeded, UsageError, from_code
from cocoon.core.pieces import Piece
from cocoon.core.shared import SEALS
from cocoon.core.units import MILLISECOND_NS
from cocoon.sdk.control import Connection, Message, error_of
from cocoon.sdk.fields import plain, take_map
from cocoon.sdk.flow import Flow
from cocoon.sdk.home import Contact
from cocoon.sdk.results import Outcome

OnEvent = Callable[[dict[str, Any]], None]
#: Of a bell that was rung more than once, one byte each time; what is left wakes once more.
_RINGS_BYTES = 512


class Call:
    """One unit that somebody waits for.

    Attributes:
        pieces: Its encoded inputs, which stay as they are until it has left; then none.
        unit: Its number in the task; None until it has left.
        answered: Whether it need not be waited for.
        error: Why it has no answer; None if it has one.
    """

    __slots__ = ("pieces", "unit", "answered", "error")

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """
        Raises:
            LimitExceeded: the inputs are too large.
        """
        if (size_bytes := sum(map(len, pieces))) > limits.PAYLOAD_BYTES:
            raise LimitExceeded(f"the inputs take {size_bytes} bytes, more than {limits.PAYLOAD_BYTES}")
        self.pieces = pieces
        self.unit: int | None = None
        self.answered = False
        self.error: CocoonError | None = None


class Conversation:
    """The connection of one task; a ``with`` block closes it, or hangs up if an exception leaves it."""

    def __init__(self, contact: Contact, args: Message, on_event: OnEvent | None, offset: int = 0) -> None:
        """Open the task.

        Args:
            args: Of the verb ``run``.
            on_event: Called with each event by whichever thread reads.
            offset: Added to the units that callers see.
        """
        self._on_event = on_event
        self._end_ns = time.monotonic_ns() + args["deadline_ms"] * MILLISECOND_NS + limits.CONTROL_GRACE_NS
        self._connection = connection = Connection(contact)
        self._flow = Flow(args["units"], connection.share if SEALS else None, offset)
        #: Holds whoever looks at, or changes, what is below.
        self._lock = threading.Lock()
        #: Handed in and not sent, sent and not answered; and the call after which no other is taken.
        self._line: deque[Call] = deque()
        self._sent: dict[int, Call] = {}
        self._last: Call | None = None
        #: Answered when there is room for one more unit.
        self._seekers: set[Call] = set()
        #: Whose threads sleep, each until its lock is released; the oldest first.
        self._sleepers: dict[Call, threading.Lock] = {}
        #: Whether somebody reads, whether that one waits for something to read, and whether all is over.
        self._is_read = self._is_asleep = self._is_over = False
        #: The thread in which the user is told of events.
        self._teller = 0
        #: Wakes the thread that reads: there is more to write than the system took, or nothing more to read.
        self._bell, self._button = socket.socketpair()
        self._button.setblocking(False)
        connection.request("run", args)
        connection.push()                               # the auction is held while the caller prepares its first run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.hang_up()

    # --- what callers ask ----------------------------------------------------

    def hand_in(self, calls: Sequence[Call]) -> None:
        """Let these leave as soon as the peer takes them.

        Raises:
            UsageError: the conversation is over, or the task has not so many units left.
        """
        self._check_thread()
        with self._lock:
            if self._last is None and len(calls) > self._flow.units - self._flow.next_unit - len(self._line):
                raise UsageError(f"the {self._flow.units} runs of this session are used up; open another one")
            if calls and (self._is_over or self._last is not None):
                raise _closed()
            is_first = not self._line
            self._line += calls
            if len(calls) > 1 or not self._is_asleep or not self._sent:
                self._send()
            elif is_first:
                self._ring()                            # whoever reads sends it, with those that come until it wakes

    def room(self, first: Call | None) -> int:
        """How many calls may leave at once; waits until one may, or until ``first`` is answered (then perhaps 0).

        Where no unit is left, or all is over, it is 1 without a ``first``, so that ``hand_in`` says so.
        """
        with self._lock:
            flow = self._flow
            left = flow.units - flow.next_unit - len(self._line)
            if self._is_over or left <= 0:
                return first is None
            if self._line or not flow.may_send():
                seeker = Call(())
                self._seekers.add(seeker)
                try:
                    self._wait(seeker, *([] if first is None else [first]))
                finally:
                    self._seekers.discard(seeker)
                if first is None:
                    _check(seeker)
            return min(flow.credit, left) if not self._is_over and not self._line and flow.may_send() else 0

    def wait(self, call: Call) -> Outcome:
        """What became of a call, once; reads for all others while nobody else does.

        Raises:
            CocoonError: why the task ended.
        """
        with self._lock:
            self._wait(call)
            _check(call)
            assert call.unit is not None
            was_full = bool(self._line) and not self._flow.may_send()
            outcome = self._flow.take(call.unit)
            if was_full:
                self._send()
            return outcome

    def give_up(self, calls: Collection[Call]) -> None:
        """Nobody waits for these any more."""
        with self._lock:
            for call in calls:
                if call.unit is None:
                    self._line = deque(other for other in self._line if other is not call)
                else:
                    self._sent.pop(call.unit, None)
                    self._flow.forget(call.unit)

    def close(self) -> None:
        """Take no more calls, and wait until those before are answered and receipted. Safe to repeat.

        Raises:
            CocoonError: why the task did not end well.
        """
        with self._lock:
            if self._is_over:
                return
            if self._last is None:
                self._last = Call(())
                self._send()
            self._wait(self._last)
            _check(self._last)

    def hang_up(self) -> None:
        """The peer abandons the task, and whoever waits hears that it is closed."""
        with self._lock:
            self._end(_closed())

    # --- one reads, the others sleep ------------------------------------------

    def _wait(self, *calls: Call) -> None:
        """Until one of these is answered."""
        self._check_thread()
        try:
            while not any(call.answered for call in calls):
                if self._is_read:
                    self._sleep(calls)
                else:
                    self._read_for_all(calls)
        finally:
            if not self._is_read and self._sleepers:
                self._rouse(next(iter(self._sleepers)))

    def _check_thread(self) -> None:
        if self._teller == threading.get_ident():
            raise UsageError("on_event cannot wait for the session that it is told of; hand it to another thread")

    def _sleep(self, calls: Sequence[Call]) -> None:
        """Until one of these is answered, or it is this thread's turn to read."""
        turn = threading.Lock()
        turn.acquire()
        self._sleepers |= dict.fromkeys(calls, turn)
        self._lock.release()
        try:
            turn.acquire()
        finally:
            self._lock.acquire()
            for call in calls:
                self._sleepers.pop(call, None)

    def _rouse(self, call: Call) -> None:
        turn = self._sleepers.pop(call, None)
        if turn is not None and turn.locked():
            turn.release()

    def _read_for_all(self, calls: Sequence[Call]) -> None:
        """Hand out what the peer says until one of these is answered."""
        self._is_read = True
        try:
            while not any(call.answered for call in calls):
                self._is_asleep = True
                ready = self._unlocked(lambda: self._connection.wait(self._end_ns, self._bell))
                self._is_asleep = False
                self._silence()
                self._read(ready)
        except CocoonError as error:
            self._end(error)
        finally:
            self._is_read = self._is_asleep = False
            if self._is_over:
                self._shut()

    def _read(self, ready: int) -> None:
        """Read, take, and send what may leave now; raises as ``take``, after the user heard what came before."""
        heard: list[Message] = []
        try:
            self._connection.move(ready)
            for message in self._taken():
                heard.append(message)
            self._send()
        finally:
            if self._on_event is not None and heard:
                self._unlocked(lambda: self._tell(heard))

    def _unlocked(self, step: Callable[[], Any]) -> Any:
        """Let the others go on during a step that takes long."""
        self._lock.release()
        try:
            return step()
        finally:
            self._lock.acquire()

    def _tell(self, messages: Sequence[Message]) -> None:
        assert self._on_event is not None
        self._teller = threading.get_ident()
        try:
            for message in messages:
                is_last = "done" in message
                shown = [{"event": "done", **take_map(message, "done")}] if is_last else self._flow.shown(message)
                for event in shown:
                    self._on_event(plain(event))
        finally:
            self._teller = 0

    def _taken(self) -> Iterator[Message]:
        """What was read, while the flow takes it and those who wait are woken."""
        flow = self._flow
        while not self._is_over and (message := self._connection.next()) is not None:
            if error := error_of(message):
                raise error
            if "done" in message:
                take_map(message, "done")
                flow.finish()
                yield message
                self._end(None)
                return
            for unit in flow.handle(message):
                if (call := self._sent.pop(unit, None)) is None:
                    flow.forget(unit)                   # whoever asked has given it up
                else:
                    self._answer(call, None)
            yield message

    def _answer(self, call: Call, error: CocoonError | None) -> None:
        call.answered, call.error = True, error
        self._rouse(call)

    # --- writing, and the end --------------------------------------------------

    def _send(self) -> None:
        """Let leave what may; whoever reads sees to what the system does not take now."""
        if self._is_over:
            return
        connection, flow = self._connection, self._flow
        while True:
            while connection.roomy and (frame := flow.send(self._leaving())) is not None:
                connection.send(frame)
            if self._last is not None and self._last.unit is None and not self._line:
                self._last.unit = flow.next_unit        # said once
                if flow.next_unit < flow.units:
                    connection.send(flow.end())
            connection.push()
            if not connection.idle or not self._line or not flow.may_send():
                break
        if not self._line and flow.may_send():
            for seeker in self._seekers:
                self._answer(seeker, None)
        if not connection.idle and self._is_asleep:
            self._ring()

    def _leaving(self) -> Iterator[Sequence[Piece]]:
        while self._line:
            call = self._line.popleft()
            call.unit = self._flow.next_unit
            self._sent[call.unit] = call
            pieces, call.pieces = call.pieces, ()       # the caller's arrays are kept no longer than they are needed
            yield pieces

    def _end(self, error: CocoonError | None) -> None:
        """The conversation is over, and those who wait hear why; None: it ended well, as ``close`` waits for."""
        if self._is_over:
            return
        self._is_over = True
        waiting = [*self._line, *self._sent.values(), *self._seekers]
        self._line.clear()
        self._sent.clear()
        for call in waiting:
            self._answer(call, error or _closed())
        if self._last is not None:
            self._answer(self._last, error)
        if self._is_read:
            self._ring()                                # what another thread waits for is not closed under it
        else:
            self._shut()

    def _shut(self) -> None:
        self._connection.close()
        self._bell.close()
        self._button.close()
        self._flow.release()

    def _ring(self) -> None:
        try:
            self._button.send(b"\0")
        except BlockingIOError:
            pass                                        # it rings already

    def _silence(self) -> None:
        try:
            self._bell.recv(_RINGS_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass


def _check(call: Call) -> None:
    """Return if this call was answered by the peer."""
    if call.error is not None:
        # A fresh object: one error may wake many threads, and each adds its own traceback.
        raise from_code(call.error.code, call.error.text)


def _closed() -> UsageError:
    return UsageError("the session is closed")
