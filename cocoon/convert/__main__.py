"""``python -m cocoon.convert SOURCE OUT``: a decoder's package from a GGUF file or a folder with safetensors.

Purity: shell.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cocoon.convert.package import write_package
from cocoon.convert.source import Source
from cocoon.core.errors import CocoonError


def main(arguments: list[str]) -> int:
    """Convert; exit status 0, or that of the error."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    source, out = map(Path, arguments)
    try:
        write_package(_read(source), out)
    except CocoonError as error:
        print(f"{error.code}: {error.text}", file=sys.stderr)
        return error.exit_code
    return 0


def _read(path: Path) -> Source:
    if path.is_dir():
        from cocoon.convert.safetensors import read_safetensors

        return read_safetensors(path)
    from cocoon.convert.ggufs import read_gguf

    return read_gguf(path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
