"""Patience: what must be done is tried until it succeeds, however long disk, chain or network is away.

Purity: shell. Spec: docs/spec/errors.md, rule ERR-5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from cocoon.core.errors import CocoonError, Corrupt, SignerLost
from cocoon.core.retry import Backoff
from cocoon.core.units import SECOND_NS
from cocoon.telemetry.log import Log

T = TypeVar("T")


async def persist(log: Log, event: str, job: Callable[[], Awaitable[T]], **fields: object) -> T:
    """The result of ``job``, which is tried again after each failure, for ever; cancellation ends it.

    Args:
        event: Name of the log line that each failure leaves, with its code and text.
        job: May run many times. Its errors are this peer's own: it never raises one by a code that another peer sent.
        fields: Go into the log line.

    Raises:
        Corrupt, SignerLost: at once; no attempt mends them, the peer must stop.
    """
    backoff = Backoff()
    while True:
        try:
            return await job()
        except (Corrupt, SignerLost):
            raise
        except CocoonError as error:
            log.failure(event, error, **fields)
        backoff.failed()
        await trio.sleep(backoff.delay_ns() / SECOND_NS)
