"""A lease's sealed link: messages in, messages out, over one framed stream.

Purity: shell. Spec: docs/spec/sealing.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

import trio

from cocoon.core.errors import Unavailable
from cocoon.core.limits import LINK_UNSENT
from cocoon.core.turns import Turn
from cocoon.node.carrier import CARRIED_TOGETHER, Carrier, Renew
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.link import SEALED_FRAME_BYTES, SealedReader, SealedWriter
from cocoon.wire.bundle import bundled, unbundled
from cocoon.wire.messages import LeaseClose
from cocoon.wire.schema import Message


class WorkLink:
    """One sealed connection of one lease. One reader task, any number of senders.

    To send on a link that is gone changes nothing: its reader notices, and tells why.
    """

    def __init__(
        self, stream: PeerStream, writer: SealedWriter, reader: SealedReader, renew: Renew | None = None
    ) -> None:
        """
        Args:
            renew: Where the next stream comes from if this one breaks; None ends the link with it.
        """
        self._carrier = Carrier(stream, renew, lambda: self._news.set(), writer.give_back)
        self._writer = writer
        self._reader = reader
        self._sending = Turn()
        #: Posted and not taken for sending.
        self._posted: list[Message] = []
        #: The same, and those that are being sent.
        self._unsent = 0
        self._news, self._left = trio.Event(), trio.Event()
        #: Received and not asked for yet.
        self._heard: deque[Message] = deque()

    def post(self, message: Message) -> None:
        """Let this leave with the next ``flush``, behind what was posted before."""
        if not self._posted:                            # else whoever sends was told, and has not taken them yet
            self._news.set()
        self._posted.append(message)
        self._unsent += 1
        self._look_for_the_end(message)

    async def keep_sending(self) -> None:
        """Send whatever is posted, until cancelled: for tasks that must never wait for the other side to read.

        A reader that waits until it can send may wait for a reader that does the same.
        """
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Send what was posted; what several tasks post meanwhile leaves together."""
        if not self._posted and not self._sending.taken and not self._carrier.due:
            return                                      # else what another took with it is on its way
        async with self._sending:
            while self._posted or self._carrier.due:
                posted, self._posted = self._posted, []
                try:
                    await self._transmit(posted)
                except Unavailable:
                    pass                                # the reader, which every link has, finds the same end
                finally:
                    self._unsent -= len(posted)
                    self._left.set()
                    self._left = trio.Event()

    async def send(self, message: Message) -> None:
        """Post one message and send it, with what was posted before."""
        self.post(message)
        await self.flush()

    async def receive(self, *expected: type[Message]) -> Message:
        """The next message, which must be of an expected kind.

        Raises:
            StreamClosed: the other side is gone.
            PeerFault: bytes that are no such message, or do not open.
        """
        if not self._heard:
            self._heard += await self.receive_all(*expected)
        return self._heard.popleft()

    async def receive_all(self, *expected: type[Message]) -> list[Message]:
        """The next messages that came together, at least one; raises as ``receive``."""
        while self._unsent > LINK_UNSENT:               # who asks and asks and reads no answer is not listened to
            await self._left.wait()
        while True:
            frame = await self._carrier.receive(SEALED_FRAME_BYTES)
            packed = self._reader.feed_frame(frame)
            self._carrier.give_back(frame)
            if packed is not None:
                messages = unbundled(packed, *expected)
                self._reader.give_back(packed)          # messages hold bytes of their own
                self._look_for_the_end(messages[-1])
                return messages

    async def close(self) -> None:
        """Close the stream; a blocked ``receive`` ends with ``StreamClosed``."""
        await self._carrier.close()

    def replace(self) -> None:
        """The other side comes with another stream."""
        self._carrier.replace()

    def _look_for_the_end(self, message: Message) -> None:
        """Behind the last word of a lease nobody needs another stream."""
        if isinstance(message, LeaseClose):
            self._carrier.end()

    async def _transmit(self, messages: Sequence[Message]) -> None:
        # Half a message would end the link for every task of the lease; the stream bounds the wait.
        with trio.CancelScope(shield=True):
            for bundle in bundled(messages):
                frames = self._writer.frames(*bundle)
                while some := tuple(islice(frames, CARRIED_TOGETHER)):
                    await self._carrier.send(*some)
            await self._carrier.push()
