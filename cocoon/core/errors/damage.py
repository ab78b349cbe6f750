"""Our own disk or state contradicts itself.

Purity: pure. Spec: docs/spec/errors.md, rules ERR-1 to ERR-4.
"""

from __future__ import annotations

from cocoon.core.errors.families import Corrupt


class AuditFailed(Corrupt):
    """The journal and the chain disagree about money."""

    code = "audit_failed"
    exit_code = 72
    remedy = "stop the peer, keep COCOON_HOME as it is, and report the differences"
