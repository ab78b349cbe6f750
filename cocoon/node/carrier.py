"""The frames of a link over one stream after another: one that breaks while its peer lives is replaced by the next.

Frames are numbered by their order. Each side keeps what the other has not
acknowledged, tells what it has when a stream is replaced, and sends the rest
again: the very bytes that were sealed before. Nothing above this notices.

Invariants
    Frames are handed on in order, each once, whatever breaks.
    What is kept is bounded; who has forgotten what the other lacks gives the link up.

Purity: shell. Spec: docs/spec/sealing.md, rules SEA-16 to SEA-18.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

import trio

from cocoon.core.errors import StreamClosed
from cocoon.core.limits import LINK_ACK_BYTES, LINK_KEPT_BYTES, LINK_RESUMES, RESUME_NS
from cocoon.core.pieces import Piece
from cocoon.core.turns import Turn
from cocoon.core.units import SECOND_NS
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.link import Frame

#: Given how many frames were received, the next stream and how many the other side received; or StreamClosed.
Renew = Callable[[int], Awaitable[tuple[PeerStream, int]]]
#: Frames that are given to a stream at once: two megabytes if they are full ones, which is a good millisecond of work.
CARRIED_TOGETHER = 8
#: A count of frames; no sealed frame is as short.
_ACK_BYTES = 8
_REPLACED = "the link goes on over another stream"


class Carrier:
    """One link's frames. One reader, any number of senders."""

    def __init__(
        self, stream: PeerStream, renew: Renew | None, wake: Callable[[], None], forgotten: Callable[[Frame], None]
    ) -> None:
        """
        Args:
            renew: None if the link ends with its stream.
            wake: Has somebody call ``push`` soon.
            forgotten: Told of each frame that the other side has, or that is kept no longer: it may be written over.
        """
        self._stream = stream
        self._renew = renew
        self._wake = wake
        self._forgotten = forgotten
        self._broken = False
        self._resumes_left = LINK_RESUMES
        #: Sent and not acknowledged; the first is frame ``_base``, and ``_next`` is the next to leave. Those below
        #: ``_tried`` were given to some stream, which may have delivered one though it broke.
        self._kept: deque[Frame] = deque()
        self._kept_bytes = self._base = self._next = self._tried = 0
        self._received = self._unacknowledged_bytes = 0
        self._pushing, self._renewing = Turn(), Turn()
        #: The stream that is being replaced: what it still gives was told to be missing.
        self._frozen: PeerStream | None = None

    @property
    def due(self) -> bool:
        """Whether ``push`` has something to send."""
        return not self._broken and (self._next < self._base + len(self._kept) or self._owes_word)

    @property
    def _owes_word(self) -> bool:
        return self._renew is not None and self._unacknowledged_bytes >= LINK_ACK_BYTES

    async def send(self, *frames: Frame) -> None:
        """Send these frames behind those before.

        Raises:
            StreamClosed: the stream broke, and no other one came about.
        """
        if not self._broken:
            self._kept += frames
            self._kept_bytes += sum(map(len, frames))
            await self.push()

    async def push(self) -> None:
        """Send what is due; raises as ``send``."""
        async with self._pushing:
            while self.due:
                stream = self._stream
                try:
                    if stream is self._frozen:
                        raise StreamClosed(_REPLACED)
                    await self._push_some(stream)
                except StreamClosed as error:
                    await self._go_on(stream, error)

    async def receive(self, max_bytes: int) -> Piece:
        """The next frame. May be cancelled at any time.

        Raises:
            StreamClosed: as ``send``.
            TooLarge: as ``PeerStream.take``; the link has ended.
        """
        while True:
            stream = self._stream
            try:
                frame = await stream.take(max_bytes)
            except StreamClosed as error:
                await self._go_on(stream, error)
                continue
            if stream is self._frozen or stream is not self._stream:
                await self._go_on(stream, StreamClosed(_REPLACED))
            elif len(frame) == _ACK_BYTES:
                self._forget(int.from_bytes(frame, "big"))
            else:
                self._received += 1
                self._unacknowledged_bytes += len(frame)
                if self._owes_word:
                    self._wake()
                return frame

    def give_back(self, frame: Piece) -> None:
        """As ``PeerStream.give_back``."""
        self._stream.give_back(frame)

    def replace(self) -> None:
        """The other side gave the stream up: it is to be replaced, though it looks well from here."""
        self._stream.wake("the other side gave the stream up")

    def end(self) -> None:
        """The last words are said: a stream that ends now is not replaced."""
        self._renew = None

    async def close(self) -> None:
        """Close the stream; a blocked ``receive`` ends with ``StreamClosed``."""
        self.end()
        await self._stream.close()

    async def _push_some(self, stream: PeerStream) -> None:
        if self._owes_word:
            self._unacknowledged_bytes = 0
            await stream.send(self._received.to_bytes(_ACK_BYTES, "big"))
            return
        first = self._next - self._base
        frames = list(islice(self._kept, first, first + CARRIED_TOGETHER))
        self._tried = max(self._tried, self._next + len(frames))
        await stream.send(*frames)
        # It may have been given up, or have ended for good, while these left.
        if stream is self._stream and stream is not self._frozen and not self._broken:
            self._next += len(frames)
            while self._base < self._next and (self._renew is None or self._kept_bytes > LINK_KEPT_BYTES):
                self._drop()

    async def _go_on(self, stream: PeerStream, error: StreamClosed) -> None:
        """Replace a stream that broke, unless that was done meanwhile; raises its error if it cannot be."""
        async with self._renewing:
            if self._stream is not stream:
                return
            if self._renew is None or not self._resumes_left or self._broken:
                self._break()
                raise error
            self._resumes_left -= 1
            self._frozen = stream                       # from here on what we have received is told
            stream.wake(_REPLACED)
            try:
                fresh, theirs = await self._renew(self._received)
                if not self._base <= theirs <= self._tried:
                    await fresh.reset()
                    raise StreamClosed(f"the other side has {theirs} frames, kept are {self._base} to {self._tried}")
            except StreamClosed:
                self._break()
                raise
            self._forget(theirs)
            self._stream, self._frozen, self._next = fresh, None, theirs
            self._unacknowledged_bytes = 0
        self._wake()
        await stream.reset()

    def _break(self) -> None:
        """Nothing leaves any more."""
        self._broken = True
        self._kept.clear()
        self._kept_bytes = 0

    def _forget(self, theirs: int) -> None:
        """The other side has so many frames."""
        if theirs > self._tried:
            raise StreamClosed(f"the other side acknowledges {theirs} frames of {self._tried}")
        while self._base < theirs:
            self._drop()

    def _drop(self) -> None:
        frame = self._kept.popleft()
        self._kept_bytes -= len(frame)
        self._base += 1
        # Who acknowledges what is still leaving gets its bytes mixed with those of a later one, both sealed for him.
        self._forgotten(frame)


class Awaited:
    """A provider's ``Renew``: the requester comes with the next stream, or is lost."""

    def __init__(
        self, connected: Callable[[], bool], changed: Callable[[], Awaitable[None]],
        greet: Callable[[PeerStream, int], Awaitable[None]],
    ) -> None:
        """
        Args:
            connected: Whether the requester still is.
            changed: Returns when that may be different.
            greet: Tells the requester on its new stream how many frames were received.
        """
        self._connected = connected
        self._changed = changed
        self._greet = greet
        self._offered: tuple[PeerStream, int] | None = None
        self._came = trio.Event()

    async def offer(self, stream: PeerStream, theirs: int) -> None:
        """The requester came; one that came before and was not taken is given up."""
        if self._offered is not None:
            await self._offered[0].reset()
        self._offered = stream, theirs
        self._came.set()

    async def __call__(self, received: int) -> tuple[PeerStream, int]:
        """The next stream."""
        with trio.move_on_after(RESUME_NS / SECOND_NS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_lost, nursery.cancel_scope)
                await self._came.wait()
                nursery.cancel_scope.cancel()
        if self._offered is None:
            raise StreamClosed("the requester's stream broke, and it did not come with another one")
        stream, theirs = self._offered
        self._offered, self._came = None, trio.Event()
        await self._greet(stream, received)
        return stream, theirs

    async def _until_lost(self, scope: trio.CancelScope) -> None:
        while self._connected():
            await self._changed()
        scope.cancel()
