"""Labels by the Magika package itself. Runs in .venv-oracle: nothing of Cocoon is imported.

Reads NUL-separated paths from standard input and prints one JSON list of
``[label, score]`` in the same order. One file at a time, because the scores of
this model depend on the batch (up to 1.3e-3), and a run holds one file.
"""

from __future__ import annotations

import json
import os
import sys

from magika import Magika


def main() -> None:
    magika = Magika()
    answers = []
    for raw in sys.stdin.buffer.read().split(b"\0")[:-1]:
        result = magika.identify_path(os.fsdecode(raw))
        answers.append([str(result.output.label), result.score] if result.ok else [str(result.status), 0.0])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
