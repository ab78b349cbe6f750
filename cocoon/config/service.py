"""Reads settings and the network of a home from disk and environment.

Purity: shell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import platformdirs

from cocoon.config import network
from cocoon.config.network import NetworkFile
from cocoon.config.settings import SETTINGS, Resolved, resolve
from cocoon.core.errors import BadConfig
from cocoon.core.limits import CONFIG_FILE_BYTES, NETWORK_FILE_BYTES

CONFIG_FILE = "config.toml"
NETWORK_FILE = "network.toml"


def load(env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None) -> Resolved:
    """Settings of this process; ``settings.home`` is filled in and absolute.

    Args:
        env: The environment; None takes ``os.environ``.
        flags: Command-line values by setting name; None values are not given.

    Raises:
        BadConfig: see ``settings.resolve``; also an unreadable file.
    """
    env = os.environ if env is None else env
    home = home_path(env, flags)
    path = home / CONFIG_FILE
    found = resolve(file_text=_read(path, CONFIG_FILE_BYTES), file_name=str(path), env=env, flags=flags)
    return Resolved(replace(found.settings, home=str(home)), found.origins)


def home_path(env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None) -> Path:
    """COCOON_HOME, absolute; it need not exist."""
    env = os.environ if env is None else env
    named = (flags or {}).get("home") or env.get(SETTINGS["home"].env)
    if named:
        return Path(str(named)).expanduser().absolute()
    return platformdirs.user_data_path("cocoon", appauthor=False)


def read_network(home: Path) -> NetworkFile | None:
    """The network this home belongs to; None if it belongs to none yet.

    Raises:
        BadConfig: ``network.toml`` is unreadable or wrong.
    """
    path = home / NETWORK_FILE
    text = _read(path, NETWORK_FILE_BYTES)
    return None if text is None else network.from_toml(text, str(path))


def _read(path: Path, max_bytes: int) -> str | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise BadConfig(f"{path}: larger than {max_bytes} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadConfig(f"{path}: is not UTF-8 text") from None
