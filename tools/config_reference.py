"""Write docs/reference/config.md from the table in ``cocoon.config.settings``.

tests/unit/config compares the file with what this would write. Run ``make docs``.

Purity: shell.
"""

from __future__ import annotations

from pathlib import Path

from cocoon.config.settings import SETTINGS, Setting

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference" / "config.md"

_HEAD = """# Settings

Generated from `cocoon/config/settings.py` by `make docs`; do not edit.

A value comes from the last of these that names it: the default, `config.toml` in the home, an
environment variable, a flag of the command (where the command has it). `cocoon config show --origin`
shows every value with the place it came from.

Names carry their unit, so values are plain numbers: `run_limit_ms = 30000`. Lists in an environment
variable are separated by commas. An unknown name, in the file or as a `COCOON_*` variable, is refused
together with the nearest known one: a setting that is silently ignored is worse than an error.

| name | default | bounds | environment | meaning |
|---|---|---|---|---|
"""

_NOTES = {
    "flag": "true, false",
    "name": "1 to 32 of `a-z0-9-`",
    "path": "not in the file",
}


def _bounds(row: Setting) -> str:
    rule = row.rule
    if rule.shape == "count":
        return f"{rule.low} to {rule.high}"
    if rule.shape == "choice":
        return ", ".join(f"`{word}`" for word in rule.choices)
    return _NOTES.get(rule.shape, f"at most {rule.high}")


def _shown(row: Setting) -> str:
    if isinstance(row.default, bool):
        return f"`{str(row.default).lower()}`"
    if isinstance(row.default, tuple):
        return ", ".join(f"`{item}`" for item in row.default) or "none"
    return f"`{row.default}`" if row.default != "" else "per user"


def render() -> str:
    """The whole page: one row per setting, in the order of the table."""
    rows = (
        f"| `{r.name}` | {_shown(r)} | {_bounds(r)} | `{r.env}` | {r.rule.doc} |\n" for r in SETTINGS.values()
    )
    return _HEAD + "".join(rows)


def main() -> None:
    """Write the page."""
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
