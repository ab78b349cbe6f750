"""What can go wrong only in the demonstration; none of it travels between peers.

Purity: pure. Spec: docs/spec/errors.md.
"""

from __future__ import annotations

from cocoon.core.errors import NotFound, Unavailable, UsageError


class PeerNotStarted(Unavailable):
    """A peer that the demonstration started ended, or was not ready in time."""

    code = "peer_not_started"
    exit_code = 32
    remedy = "`cocoon doctor` names what this machine lacks; the message ends with the peer's own last words"


class BooksNotClosed(Unavailable):
    """A lane stayed open, a promise unpaid or a receipt without anchor when the demonstration closed its books."""

    code = "books_not_closed"
    exit_code = 37
    remedy = "run it again; if it stays so, report it with what the message says"


class DemoModelMissing(NotFound):
    """The demonstration's model or its configuration is not where it was looked for."""

    code = "demo_model_missing"
    remedy = "`make demo` puts it into build/magika; or name its directory with --magika or COCOON_MAGIKA"


class DemoModelBroken(UsageError):
    """The demonstration's configuration is not that of a Magika model we know."""

    code = "demo_model_broken"
    exit_code = 38
    remedy = "remove build/magika and run `make demo` again"
