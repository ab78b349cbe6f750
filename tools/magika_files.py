"""Take the three files that the demo needs out of the Magika wheel; the package itself is not installed.

usage: magika_files.py FOLDER   (the wheel lies in FOLDER; the files land beside it, the wheel is removed)

Purity: shell.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

WANTED = (
    "magika/models/standard_v3_3/model.onnx",
    "magika/models/standard_v3_3/config.min.json",
    "magika/config/content_types_kb.min.json",
)


def main() -> None:
    """Extract flat; a wheel without one of the files is a KeyError that names it."""
    folder = Path(sys.argv[1])
    wheel = next(folder.glob("magika-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name in WANTED:
            (folder / Path(name).name).write_bytes(archive.read(name))
    wheel.unlink()


if __name__ == "__main__":
    main()
