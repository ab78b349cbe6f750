"""Configuration read from a real home."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.config.network import NetworkFile, to_toml
from cocoon.config.service import home_path, load, read_network
from cocoon.config.settings import DEFAULT
from cocoon.core.errors import BadConfig


def test_the_home_comes_from_flag_then_environment_then_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    env = {"COCOON_HOME": str(tmp_path / "env")}
    assert home_path(env, {"home": str(tmp_path / "flag")}) == tmp_path / "flag"
    assert home_path(env, {"home": None}) == tmp_path / "env"
    assert home_path({}) == tmp_path / "data" / "cocoon"
    assert home_path({"COCOON_HOME": "relative"}) == Path.cwd() / "relative"


def test_values_of_a_home_carry_file_and_line(tmp_path):
    (tmp_path / "config.toml").write_text("# mine\nthreads = 7\n")
    resolved = load({"COCOON_HOME": str(tmp_path)})
    assert resolved.settings.threads == 7
    assert resolved.settings.home == str(tmp_path)
    assert str(resolved.origins["threads"]) == f"file {tmp_path / 'config.toml'}:2"
    assert str(resolved.origins["home"]) == "env COCOON_HOME"


def test_a_home_that_nobody_named_has_the_default_as_origin(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    resolved = load({})
    assert resolved.settings.home == str(tmp_path / "cocoon")
    assert resolved.origins["home"] is DEFAULT


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * 70_000], ids=["not text", "too long"])
def test_an_unreadable_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(BadConfig, match="config.toml: "):
        load({"COCOON_HOME": str(tmp_path)})


def test_a_directory_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(BadConfig, match="config.toml: "):
        load({"COCOON_HOME": str(tmp_path)})


def test_a_fresh_home_belongs_to_no_network(tmp_path):
    assert read_network(tmp_path) is None
    found = NetworkFile("local", "none", bytes(16))
    (tmp_path / "network.toml").write_text(to_toml(found))
    assert read_network(tmp_path) == found
