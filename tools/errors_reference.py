"""Write docs/reference/errors.md from the error classes: every code, its exit code and its remedy.

tests/tidy compares the file with what this would write. Run ``make docs``.

Purity: shell.
"""

from __future__ import annotations

from pathlib import Path

from cocoon.core import errors
from cocoon.demo import errors as demo_errors

#: Where codes may be declared: those that peers exchange, by family, and those of the demonstration.
PLACES = (
    *(f"{errors.__name__}.{family}" for family in ("families", "usage", "weather", "policy", "peer", "damage")),
    demo_errors.__name__,
)
TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference" / "errors.md"

_HEAD = """# Errors

Generated from `cocoon/core/errors/` and `cocoon/demo/errors.py` by `make docs`; do not edit.

`code` is stable: it travels between peers and stands in `--json`. The command line ends with
`exit`. The family says who is to blame:

"""


def _families() -> list[type[errors.CocoonError]]:
    return errors.CocoonError.__subclasses__()


def _line(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).replace("|", "\\|")


def render() -> str:
    """The whole page: one table of families, then one table of codes per family."""
    out = [_HEAD, "| family | who | exit | first remedy |\n|---|---|---|---|\n"]
    for family in _families():
        out.append(
            f"| `{family.code}` | {_line(family.__doc__)} | {family.exit_code} | {_line(family.remedy)} |\n"
        )
    out.append(
        f"\nAny other failure is a defect: code `{errors.CocoonError.code}`, "
        f"exit {errors.CocoonError.exit_code}, {errors.CocoonError.remedy}.\n"
    )
    for family in _families():
        rows = [
            cls
            for cls in errors.all_errors()
            if issubclass(cls, family) and cls is not family and cls.__module__ in PLACES
        ]
        if not rows:
            continue
        out.append(f"\n## {family.__name__}\n\n| code | exit | what | remedy |\n|---|---|---|---|\n")
        for cls in sorted(rows, key=lambda c: (c.exit_code, c.code)):
            out.append(f"| `{cls.code}` | {cls.exit_code} | {_line(cls.__doc__)} | {_line(cls.remedy)} |\n")
    return "".join(out)


def main() -> None:
    """Write the page."""
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
