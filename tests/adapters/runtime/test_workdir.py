"""Workers' directories do not pile up among temporary files when peers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

KILLED = (
    "import os, signal, sys; from pathlib import Path; from cocoon.runtime.workdir import working_directory\n"
    "with working_directory(Path(sys.argv[1])) as mine:\n"
    "    (mine / 'worker-1').mkdir(); os.kill(os.getpid(), signal.SIGKILL)\n"
)
ENDED = (
    "import sys; from pathlib import Path; from cocoon.runtime.workdir import working_directory\n"
    "with working_directory(Path(sys.argv[1])) as mine:\n"
    "    print(mine, oct(mine.stat().st_mode & 0o777), *mine.iterdir())\n"
)


def run(code: str, home: Path, temporary: Path, ends: int) -> str:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", code, str(home)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == ends, done.stderr
    return done.stdout


def test_what_a_killed_peer_left_goes_with_the_next_start_on_its_home_and_nobody_elses(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    for home in ("mine", "theirs"):
        run(KILLED, tmp_path / home, temporary, -signal.SIGKILL)
    left = set(temporary.iterdir())
    assert len(left) == 2
    place, mode = run(ENDED, tmp_path / "mine", temporary, 0).split()
    assert mode == "0o700" and Path(place) not in left and not Path(place).exists()
    (kept,) = temporary.iterdir()
    assert kept in left
    run(ENDED, tmp_path / "theirs", temporary, 0)
    assert list(temporary.iterdir()) == []
