"""The root of all errors and its five families: who is to blame.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from typing import ClassVar


class CocoonError(Exception):
    """Root. Never raised itself; catch it only at a process border."""

    code: ClassVar[str] = "cocoon"
    exit_code: ClassVar[int] = 1
    remedy: ClassVar[str] = "report this; it is a defect of Cocoon"

    @property
    def text(self) -> str:
        """What happened, with values and units; one line."""
        return " ".join(str(self.args[0] if self.args else self.__doc__ or "").split())


class UsageError(CocoonError):
    """The caller broke a documented precondition."""

    code = "usage"
    exit_code = 2
    remedy = "correct the call; --help shows the form"


class Unavailable(CocoonError):
    """Network, disk or device cannot serve now."""

    code = "unavailable"
    exit_code = 3
    remedy = "try again later"


class PolicyRefusal(CocoonError):
    """A setting of the user, or of the other side, forbids this."""

    code = "policy_refusal"
    exit_code = 4
    remedy = "change the setting that the message names"


class PeerFault(CocoonError):
    """A remote peer broke the protocol."""

    code = "peer_fault"
    exit_code = 5
    remedy = "use another provider; the message was dropped"


class Corrupt(CocoonError):
    """Our own disk or state contradicts itself."""

    code = "corrupt"
    exit_code = 6
    remedy = "stop the peer and restore COCOON_HOME from a copy"
