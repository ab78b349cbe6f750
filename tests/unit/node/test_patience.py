"""What must be done is tried for ever (ERR-5)."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cocoon.core.errors import CocoonError, Corrupt, SignerLost, StorageFull, Unreachable
from cocoon.core.limits import RETRY_FIRST_NS, RETRY_LAST_NS
from cocoon.core.units import SECOND_NS
from cocoon.node.patience import persist
from tests.unit.node.scripted import Clock, Heard


class Job:
    """Fails as a test says, then succeeds; notes when it was tried."""

    def __init__(self, *failures: CocoonError) -> None:
        self._failures = list(failures)
        self.at_ns: list[int] = []

    async def __call__(self) -> str:
        await trio.lowlevel.checkpoint()
        self.at_ns.append(Clock().now_ns())
        if self._failures:
            raise self._failures.pop(0)
        return "done"


async def test_a_job_is_tried_with_growing_pauses_until_it_succeeds(autojump_clock: trio.testing.MockClock) -> None:
    job, log = Job(*(StorageFull("no room") for _ in range(12))), Heard()
    assert await persist(log, "claim_waits", job, number=7) == "done"  # type: ignore[arg-type]
    pauses = [later - sooner for sooner, later in zip(job.at_ns, job.at_ns[1:], strict=False)]
    assert len(pauses) == 12 and abs(pauses[0] - RETRY_FIRST_NS) < SECOND_NS / 1_000
    assert pauses == sorted(pauses) and abs(pauses[-1] - RETRY_LAST_NS) < SECOND_NS / 1_000


async def test_each_failure_is_logged_with_its_code_and_text(autojump_clock: trio.testing.MockClock) -> None:
    log = Heard()
    await persist(log, "claim_waits", Job(StorageFull("no room"), Unreachable("nobody")), number=7)  # type: ignore[arg-type]
    assert log.named("claim_waits") == [
        {"code": "storage_full", "text": "no room", "number": 7},
        {"code": "unreachable", "text": "nobody", "number": 7},
    ]


@pytest.mark.parametrize("end", [Corrupt("a torn row"), SignerLost("it ended")])
async def test_what_no_attempt_mends_is_raised_at_once(end: CocoonError) -> None:
    job, log = Job(end), Heard()
    with pytest.raises(type(end)):
        await persist(log, "claim_waits", job)  # type: ignore[arg-type]
    assert len(job.at_ns) == 1 and not log.lines
