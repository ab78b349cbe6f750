"""A lease's sealed link: messages in, messages out, over one framed stream.

Purity: shell. Spec: docs/spec/sealing.md.
"""

from __future__ import annotations

import trio

from cocoon.p2p.streams import PeerStream
from cocoon.privacy.link import SEALED_FRAME_BYTES, SealedReader, SealedWriter
from cocoon.wire.schema import Message, pack, unpack


class WorkLink:
    """One sealed connection of one lease. One reader task, any number of senders."""

    def __init__(self, stream: PeerStream, writer: SealedWriter, reader: SealedReader) -> None:
        self._stream = stream
        self._writer = writer
        self._reader = reader
        self._sending = trio.Lock()

    async def send(self, message: Message) -> None:
        """Seal and send one message; whole messages leave in the order of the calls."""
        async with self._sending:
            # Half a message would end the link for every task of the lease; the stream bounds the wait.
            with trio.CancelScope(shield=True):
                for frame in self._writer.seal(pack(message)):
                    await self._stream.send(frame)

    async def receive(self, *expected: type[Message]) -> Message:
        """The next message, which must be of an expected kind.

        Raises:
            StreamClosed: the other side is gone.
            PeerFault: bytes that are no such message, or do not open.
        """
        while True:
            frame = await self._stream.receive(SEALED_FRAME_BYTES)
            message = self._reader.feed_frame(frame)
            if message is not None:
                return unpack(message, *expected)

    async def close(self) -> None:
        """Close the stream; a blocked ``receive`` ends with ``StreamClosed``."""
        await self._stream.close()
