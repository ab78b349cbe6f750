"""The reference page is generated and current."""

from __future__ import annotations

from cocoon.config.settings import SETTINGS
from tools import config_reference


def test_the_reference_page_is_what_the_table_says():
    written = config_reference.TARGET.read_text(encoding="utf-8")
    assert written == config_reference.render(), "run `python tools/config_reference.py`"
    for row in SETTINGS.values():
        assert f"`{row.env}`" in written and row.rule.doc in written
