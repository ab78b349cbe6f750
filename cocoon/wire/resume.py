"""The two frames that begin a further stream of a lease's link.

Purity: pure. Spec: docs/spec/messages.md, MSG-1; sealing.md, SEA-17.
"""

from __future__ import annotations

from cocoon.wire.messages import HASH
from cocoon.wire.schema import Message, field, message
from cocoon.wire.types import U64


@message(kind=16, version=1, name="link_resume")
class LinkResume(Message):
    """First frame of a stream that goes on with the link of an open lease: frames that the requester received on it."""

    lease: bytes = field(1, HASH)
    received: int = field(2, U64)


@message(kind=17, version=1, name="link_resumed")
class LinkResumed(Message):
    """The provider goes on too: frames that it received."""

    received: int = field(1, U64)
