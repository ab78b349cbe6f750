"""A program that runs a crew of stand-ins until a signal comes; prints their pids and its directory."""

import signal
import sys
from pathlib import Path

from cocoon.demo.interrupts import Interrupts
from cocoon.demo.processes import crew


def main() -> int:
    interrupts = Interrupts()
    command = [sys.executable, str(Path(__file__).with_name("peer_stand_in.py"))]
    with interrupts.installed():
        try:
            with crew(interrupts, command) as members:
                peers = [members.start(name, sys.argv[1]) for name in ("one", "two", "three")]
                for peer in peers:
                    members.wait_ready(peer)
                try:
                    print(*(peer.pid for peer in peers), peers[0].home.parent, flush=True)
                    signal.pause()
                finally:
                    print("ending", flush=True)
        except KeyboardInterrupt:
            return 128 + interrupts.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
