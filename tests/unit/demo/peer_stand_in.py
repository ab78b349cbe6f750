"""A program in the place of a peer, to test how peers are started and ended; argv says how it behaves."""

import os
import signal
import subprocess
import sys
import time


def say(text: str) -> None:
    print(text, flush=True)


def forever() -> None:
    while True:
        time.sleep(3_600)


def main() -> None:
    how = sys.argv[1]
    if how == "ends":
        print("first line\nerror: no disk [storage_full]", file=sys.stderr)
        sys.exit(30)
    if how == "silent":
        forever()
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    if how == "parent":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        print(child.pid, file=sys.stderr, flush=True)
    say(f"a peer of {os.environ['COCOON_HOME']}")
    say("join with: cocoon://join/abc-DEF_123")
    say("ready")
    if how == "chatty":
        for number in range(200_000):
            say(f"line {number}")
        sys.exit(7)
    forever()


if __name__ == "__main__":
    main()
