"""LEA-19 with a real provider: other programs use the machine, and it sells nothing new."""

from __future__ import annotations

import subprocess
import sys

import cocoon
from tests.loopback.paid import until
from tests.loopback.town import Town


def test_a_provider_rests_while_other_programs_use_its_machine(empty_town: Town) -> None:
    empty_town.bootstrap()
    provider = empty_town.provider(yield_ppm="100000")
    client = cocoon.connect(provider.home)
    burning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        until(lambda: "other programs use its machine" in client.status()["rests"], "the provider's rest")
    finally:
        burning.kill()
        burning.wait()
    assert '"yielding"' in provider.log()
