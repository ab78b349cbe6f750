"""Coroutines on the heap: what a shell waits for, without trio.

A ``Scope`` owns coroutines as a nursery does; what is closed, as by a crash, takes
no further step. Nothing here draws randomness or reads a clock: a coroutine goes on
in the order in which the heap lets it.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from types import coroutine
from typing import Any, Generic, TypeVar

from sim.engine.heap import Heap

T = TypeVar("T")
#: What a coroutine hands out when it waits: it is called with what lets it go on.
Register = Callable[[Callable[[Any], None]], None]


class _Waiter:
    """Lets a coroutine go on, once. What holds it longer, as the end of its patience does, holds no coroutine."""

    __slots__ = ("_scope", "_work")

    def __init__(self, scope: Scope, work: Coroutine[Any, Any, None]) -> None:
        self._scope = scope
        self._work: Coroutine[Any, Any, None] | None = work

    def __call__(self, value: object) -> None:
        work, self._work = self._work, None
        if work is not None:
            self._scope.heap.after(0, self._scope._step, work, value)


@coroutine
def _pause(register: Register) -> Generator[Register, Any, Any]:
    """Lets go until the callable that ``register`` was given is called; the first call counts."""
    return (yield register)


@dataclass(slots=True, eq=False)
class Scope:
    """Coroutines that end together."""

    heap: Heap
    parent: Scope | None = None
    #: Nothing in here goes on.
    closed: bool = False
    _children: list[Scope] = field(default_factory=list)

    def close(self) -> None:
        """Let nothing in here go on, nor in the scopes that end with this one."""
        if self.closed:
            return
        self.closed = True
        while self._children:
            self._children[-1].close()
        if self.parent is not None:
            self.parent._children.remove(self)

    def child(self) -> Scope:
        """A scope that ends with this one."""
        child = Scope(self.heap, self, self.closed)
        if not self.closed:
            self._children.append(child)
        return child

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin at once; go on whenever what it waits for has come."""
        self.heap.hold(work)
        self._step(work, None)

    def later(self, delay_ns: int, call: Callable[..., None], *args: Any) -> None:
        """Call it then, if this scope is not closed."""
        self.heap.after(delay_ns, self._call, call, args)

    def _call(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.closed:
            call(*args)

    def _step(self, work: Coroutine[Any, Any, None], value: object) -> None:
        if self.closed:
            self.heap.release(work)
            work.close()
            return
        try:
            register = work.send(value)
        except StopIteration:
            self.heap.release(work)
            return
        register(_Waiter(self, work))


async def sleep(scope: Scope, delay_ns: int) -> None:
    """Wait so long."""
    await _pause(lambda go_on: scope.heap.after(delay_ns, go_on, None))


@dataclass(slots=True, eq=False)
class Moment(Generic[T]):
    """A value that comes once; any number may wait for it."""

    heap: Heap
    value: T | None = None
    came: bool = False
    _waiting: list[Callable[[Any], None]] = field(default_factory=list)

    def set(self, value: T) -> None:
        """It has come; a second one changes nothing."""
        if not self.came:
            self.value, self.came = value, True
            waiting, self._waiting = self._waiting, []
            for go_on in waiting:
                go_on(True)

    async def wait(self, patience_ns: int | None = None) -> bool:
        """Whether it came before patience ended."""
        if self.came:
            return True

        def register(go_on: Callable[[Any], None]) -> None:
            self._waiting.append(go_on)
            if patience_ns is not None:
                self.heap.after(patience_ns, go_on, False)

        return bool(await _pause(register))


@dataclass(slots=True, eq=False)
class Bell:
    """News that may come again and again."""

    heap: Heap
    _next: Moment[None] = field(init=False)

    def __post_init__(self) -> None:
        self._next = Moment(self.heap)

    def ring(self) -> None:
        """Wake whoever waits."""
        rung, self._next = self._next, Moment(self.heap)
        rung.set(None)

    async def wait(self, patience_ns: int | None = None) -> bool:
        """Whether there was news before patience ended."""
        return await self._next.wait(patience_ns)


@dataclass(slots=True, eq=False)
class Turn:
    """One at a time, in the order in which they came: ``async with``."""

    heap: Heap
    _held: bool = False
    _queue: deque[Moment[None]] = field(default_factory=deque)

    async def __aenter__(self) -> None:
        if self._held:
            moment: Moment[None] = Moment(self.heap)
            self._queue.append(moment)
            await moment.wait()
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        if self._queue:
            self._held = True
            self._queue.popleft().set(None)

    @property
    def held(self) -> bool:
        """Whether somebody has it."""
        return self._held


@dataclass(slots=True, eq=False)
class Work(Generic[T]):
    """Does what is put to it one by one, each to its end before the next."""

    scope: Scope
    #: Begins at once; what it returns, if anything, goes on until the item is done.
    do: Callable[[T], Awaitable[None] | None]
    _items: deque[T] = field(default_factory=deque)
    _busy: bool = False

    def put(self, item: T) -> None:
        """Do this after what was put before; at once if there is nothing."""
        if self._busy or self.scope.closed:
            self._items.append(item)
        elif (rest := self.do(item)) is not None:
            self._busy = True
            self.scope.spawn(self._run(rest))

    async def _run(self, rest: Awaitable[None] | None) -> None:
        while True:
            if rest is not None:
                await rest
            if not self._items:
                break
            rest = self.do(self._items.popleft())
        self._busy = False
