"""Every setting in one table: name, type, default, bounds, meaning.

Order of origin: default < ``config.toml`` < environment ``COCOON_*`` < flag.
Names carry their units. The table is the class ``Settings``; its reference
page docs/reference/config.md is generated from it.

Purity: pure. Spec: docs/reference/config.md.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from cocoon.config.hours import read_hours
from cocoon.config.network import LEDGERS, NAME_PATTERN, check_address
from cocoon.core import limits
from cocoon.core.errors import BadConfig, BadLink
from cocoon.core.units import GIB, MIB, MILLISECOND_NS
from cocoon.core.values import Value

ENV_PREFIX = "COCOON_"
#: Variables with our prefix that are no settings: the demo's model, and what the project's tests read.
OTHER_VARIABLES = ("COCOON_MAGIKA", "COCOON_ORACLE", "COCOON_ORACLE_SEED")
#: Upper bound of any amount: ten million coins, far from the edge of 64 bits.
_MOST_NANOTON = 10**16
_DAY_MS = 86_400_000
SettingValue = bool | int | str | tuple[str, ...]


class Rule(Value):
    """Meaning and bounds of one setting; ``low`` and ``high`` are inclusive."""

    doc: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    shape: str = "text"
    in_file: bool = True


def _flag(default: bool, doc: str) -> Any:
    return field(default=default, metadata={"rule": Rule(doc, shape="flag")})


def _count(default: int, low: int, high: int, doc: str) -> Any:
    return field(default=default, metadata={"rule": Rule(doc, low, high, shape="count")})


def _word(default: str, choices: tuple[str, ...], doc: str) -> Any:
    return field(default=default, metadata={"rule": Rule(doc, choices=choices, shape="choice")})


def _name(default: str, doc: str) -> Any:
    return field(default=default, metadata={"rule": Rule(doc, shape="name")})


def _list(default: tuple[str, ...], doc: str, shape: str, most: int) -> Any:
    return field(default=default, metadata={"rule": Rule(doc, high=most, shape=shape)})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a peer, checked."""

    home: str = field(
        default="",
        metadata={
            "rule": Rule(
                "The only state directory. Default: that of the user (XDG).", shape="path", in_file=False
            )
        },
    )
    role: str = _word("peer", ("peer", "bootstrap"), "`bootstrap` only helps others to find each other.")
    network_name: str = _name("local", "Name of the network that is made when the home belongs to none.")
    ledger: str = _word(
        "ton", LEDGERS, "Ledger of a network that is made: `ton` starts a devnet beside this peer; `none` has no money."
    )
    devnet_block_ms: int = _count(500, 20, 60_000, "Time between blocks of a devnet that this peer started.")
    listen: tuple[str, ...] = _list(
        ("/ip4/127.0.0.1/tcp/0",), "Multiaddresses to listen on; port 0 takes a free one.", "listen", 8
    )
    direct_links: bool = _flag(
        True, "Give each lease a TCP connection of its own where one comes about; else it shares the peers' connection."
    )
    direct_port: int = _count(
        0, 0, 65_535, "A provider's port for these connections, on the first address of `listen`; 0 takes a free one."
    )
    bootstraps: tuple[str, ...] = _list(
        (), "Peers to dial besides those of the network: `/ip4/.../tcp/N/p2p/12D3KooW...`.", "peers", 16
    )
    provide: bool = _flag(False, "Sell runs on this machine.")
    price_setup_nanoton: int = _count(
        0, 0, _MOST_NANOTON, "Price of loading a model, once a lease, in nanoton. 0 on a network without ledger."
    )
    price_run_nanoton: int = _count(
        0, 0, _MOST_NANOTON, "Price of 1,000 runs, in nanoton. 0 on a network without ledger."
    )
    price_token_nanoton: int = _count(
        0, 0, _MOST_NANOTON,
        "Price of 1,000 tokens that a decoder makes, in nanoton; four of its prompt count as one. "
        "While it is 0 and runs cost something, no decoder is run here.",
    )
    price_embed_token_nanoton: int = _count(
        0, 0, _MOST_NANOTON,
        "Price of 1,000 tokens of texts that an encoder makes vectors of, in nanoton. "
        "While it is 0 and runs cost something, none is run here.",
    )
    floor_setup_nanoton: int = _count(
        0, 0, _MOST_NANOTON, "Lowest bid for loading a model, whatever the discount."
    )
    floor_run_nanoton: int = _count(0, 0, _MOST_NANOTON, "Lowest bid for 1,000 runs, whatever the discount.")
    floor_token_nanoton: int = _count(0, 0, _MOST_NANOTON, "Lowest bid for 1,000 tokens, whatever the discount.")
    floor_embed_token_nanoton: int = _count(
        0, 0, _MOST_NANOTON, "Lowest bid for 1,000 tokens of texts, whatever the discount."
    )
    floor_hour_nanoton: int = _count(
        0, 0, _MOST_NANOTON,
        "What an hour of a worker must earn: the lowest bid for a model follows from what its runs took here. "
        "Where the price would earn less there is no bid.",
    )
    idle_discount_ppm: int = _count(
        0, 0, 1_000_000, "Share of the room between floor and price that an idle provider takes off its bids."
    )
    deny_models: tuple[str, ...] = _list((), "Ids of models that are never run here.", "models", 64)
    allow_models: tuple[str, ...] = _list(
        (), "Ids of the only models that are run here, if there are any; private ones then are not.", "models", 64
    )
    deny_licences: tuple[str, ...] = _list(
        (), "Licences (SPDX names) whose models are never run here; `none` is that of a model without one.",
        "licences", 64,
    )
    allow_licences: tuple[str, ...] = _list(
        (), "The only licences whose models are run here, if there are any.", "licences", 64
    )
    leased_models_bytes: int = _count(
        limits.LEASED_MODELS_BYTES, 0, 1 << 50,
        "Disk for public models that leases brought; the one that was unused longest goes first.",
    )
    tranche_nanoton: int = _count(
        limits.TRANCHE_NANOTON, 1, _MOST_NANOTON,
        "Most unpaid work that is risked on one lease, or one unit if that costs more.",
    )
    strangers_nanoton: int = _count(
        limits.CREDIT_STRANGERS_NANOTON, 0, _MOST_NANOTON,
        "Most unpaid work that is risked for all buyers together whose lane is not on chain yet; 0 gives no credit.",
    )
    lane_cap_nanoton: int = _count(
        0, 0, _MOST_NANOTON, "Least that is locked for one provider; 0 takes what the network's fees suggest."
    )
    wallet_hour_nanoton: int = _count(
        limits.WALLET_HOUR_NANOTON, 0, _MOST_NANOTON, "Most that the wallet signs away within an hour."
    )
    wallet_day_nanoton: int = _count(
        limits.WALLET_DAY_NANOTON, 0, _MOST_NANOTON, "Most that the wallet signs away within a day."
    )
    threads: int = _count(1, 1, 1_024, "CPU threads of one worker process.")
    memory_limit_bytes: int = _count(
        limits.MEMORY_BYTES, 64 * MIB, 1_024 * GIB, "Memory of one model above the worker's own size."
    )
    model_limit_bytes: int = _count(
        limits.MODEL_BYTES, 1, limits.MODEL_BYTES, "Largest model that is accepted."
    )
    payload_limit_bytes: int = _count(
        limits.PAYLOAD_BYTES,
        1_024,
        limits.PAYLOAD_BYTES,
        "Largest encoded tensors of one run, one direction.",
    )
    run_limit_ms: int = _count(
        limits.RUN_NS // MILLISECOND_NS, 1, _DAY_MS, "A run that takes longer is killed with its process."
    )
    max_leases: int = _count(
        limits.LEASES_SOLD, 1, 256, "Leases sold at once; each may hold a worker process."
    )
    max_leases_per_requester: int = _count(
        limits.LEASES_PER_REQUESTER, 1, 256, "Leases sold to one requester at the same time."
    )
    sell_hours: str = field(default="", metadata={"rule": Rule(
        "Hours of the local day in which leases are sold, such as `22:00-07:30`; empty is always.", shape="hours",
    )})
    yield_ppm: int = _count(
        0, 0, 1_000_000,
        "Sell nothing new while other programs use this share of the processors, or of the card (Linux); 0: never.",
    )
    power_limit_w: int = _count(
        0, 0, 2_000,
        "Have the driver hold the card to so much power while the peer runs (needs root); 0: as it is.",
    )
    warm_ms: int = _count(
        limits.WARM_NS // MILLISECOND_NS, 0, _DAY_MS,
        "A public model that nobody runs stays loaded for this, while there is memory.",
    )
    lease_idle_ms: int = _count(
        limits.LEASE_IDLE_NS // MILLISECOND_NS,
        0,
        _DAY_MS,
        "A warm lease without a run is given back after this.",
    )
    drain_ms: int = _count(
        limits.DRAIN_NS // MILLISECOND_NS, 0, 3_600_000, "From SIGTERM until running work is cut."
    )
    journal_limit_bytes: int = _count(
        0,
        0,
        1_024 * GIB,
        "Disk that the journal may take; 0 is all there is. Below 1 MiB it is raised to 1 MiB.",
    )
    log_level: str = _word(
        "info", ("debug", "info", "warning", "error"), "Least severe lines that are logged."
    )
    log_to: str = _word("file", ("file", "stderr"), "`file` is `log/peer.jsonl` in the home.")
    log_file_bytes: int = _count(8 * MIB, 64 * 1_024, GIB, "A log file larger than this is rotated.")
    log_files: int = _count(4, 1, 64, "Rotated log files that are kept.")


class Setting(Value):
    """One row of the table, as documentation and `cocoon config show` need it."""

    name: str
    default: SettingValue
    rule: Rule

    @property
    def env(self) -> str:
        """Name of its environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Spelling on the command line, where a command offers it."""
        return "--" + self.name.replace("_", "-")


class Origin(Value):
    """Where a value comes from: ``default``, ``file``, ``env`` or ``flag``; ``where`` is the exact place."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}".strip()


DEFAULT = Origin("default")


class Resolved(Value):
    """Checked settings and the origin of every one of them, by name."""

    settings: Settings
    origins: Mapping[str, Origin]


def _table() -> dict[str, Setting]:
    rows = {}
    for item in fields(Settings):
        assert item.default is not MISSING
        rows[item.name] = Setting(item.name, item.default, item.metadata["rule"])
    return rows


#: Every setting by name, in the order of the reference page.
SETTINGS: Mapping[str, Setting] = _table()


def resolve(
    *,
    file_text: str | None = None,
    file_name: str = "config.toml",
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Resolved:
    """Lay defaults, file, environment and flags over each other.

    Args:
        file_text: Content of ``config.toml``; None if there is none.
        file_name: How messages call that file.
        env: The environment; names without ``COCOON_`` are not looked at.
        flags: Values of the command line by setting name; None means not given.

    Raises:
        BadConfig: unknown name (with the nearest known one), wrong type, out
            of bounds; names the file with its line, the variable or the flag.
    """
    values: dict[str, SettingValue] = {}
    origins = dict.fromkeys(SETTINGS, DEFAULT)
    layers = (_from_file(file_text, file_name), _from_env(env or {}), _from_flags(flags or {}))
    for layer in layers:
        for name, (raw, origin) in layer.items():
            values[name] = _checked(SETTINGS[name], raw, origin)
            origins[name] = origin
    return Resolved(Settings(**values), origins)  # type: ignore[arg-type]


def check_prices(resolved: Resolved, ledger: str) -> None:
    """Refuse a price above 0 on a network that cannot carry money.

    Raises:
        BadConfig: names the setting and where it comes from.
    """
    prices = (name for name in SETTINGS if name.startswith("price_"))
    for name in prices:
        amount = getattr(resolved.settings, name)
        if ledger == LEDGERS[0] and amount:
            raise BadConfig(
                f"{resolved.origins[name]}: {name} is {amount}, but this network has no ledger; set 0"
            )


_Layer = dict[str, tuple[object, Origin]]


def _from_file(text: str | None, file_name: str) -> _Layer:
    if text is None:
        return {}
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{file_name}: no valid TOML: {error}") from None
    layer: _Layer = {}
    for key, raw in table.items():
        origin = Origin("file", f"{file_name}:{_line_of(text, key)}")
        name = _known(key, origin)
        if not SETTINGS[name].rule.in_file:
            raise BadConfig(f"{origin.where}: {name} cannot stand in a file; use {SETTINGS[name].env}")
        layer[name] = (raw, origin)
    return layer


def _from_env(env: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for variable in sorted(env):
        if variable.startswith(ENV_PREFIX) and variable not in OTHER_VARIABLES:
            origin = Origin("env", variable)
            layer[_known(variable.removeprefix(ENV_PREFIX).lower(), origin)] = (env[variable], origin)
    return layer


def _from_flags(flags: Mapping[str, object]) -> _Layer:
    layer: _Layer = {}
    for key, raw in flags.items():
        origin = Origin("flag", "--" + key.replace("_", "-"))
        if raw is not None:
            layer[_known(key, origin)] = (raw, origin)
    return layer


def _known(key: str, origin: Origin) -> str:
    if key in SETTINGS:
        return key
    near = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.0)
    raise BadConfig(f"{origin.where}: there is no setting {key[:64]!r}; the nearest is {near[0]!r}")


def _line_of(text: str, key: str) -> int:
    """Line of a top-level key, from 1; 0 if only TOML knows (an escaped spelling)."""
    pattern = re.compile(rf"\s*(\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return 0


def _checked(setting: Setting, raw: object, origin: Origin) -> SettingValue:
    try:
        return _CHECKS[setting.rule.shape](setting.rule, raw)
    except ValueError as error:
        raise BadConfig(f"{origin.where}: {setting.name} {error}") from None


_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def _check_flag(rule: Rule, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word in _TRUE + _FALSE:
        return word in _TRUE
    raise ValueError(f"must be true or false, not {_shown(raw)}")


def _check_count(rule: Rule, raw: object) -> int:
    if isinstance(raw, str) and re.fullmatch(r"[0-9](_?[0-9]){0,18}", raw.strip(), re.ASCII):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError(f"must be a whole number without unit, not {_shown(raw)}")
    if not rule.low <= raw <= rule.high:
        raise ValueError(f"must lie between {rule.low} and {rule.high}, not at {raw}")
    return raw


def _check_choice(rule: Rule, raw: object) -> str:
    if isinstance(raw, str) and raw in rule.choices:
        return raw
    raise ValueError(f"must be one of {', '.join(rule.choices)}, not {_shown(raw)}")


def _check_name(rule: Rule, raw: object) -> str:
    if isinstance(raw, str) and re.fullmatch(NAME_PATTERN, raw):
        return raw
    raise ValueError(f"must be 1 to 32 of a-z, 0-9 and '-', not {_shown(raw)}")


def _check_path(rule: Rule, raw: object) -> str:
    if isinstance(raw, str) and 0 < len(raw) <= 4_096 and raw.isprintable():
        return raw
    raise ValueError(f"must be a directory, not {_shown(raw)}")


def _check_hours(rule: Rule, raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"must be hours such as 22:00-07:30, not {_shown(raw)}")
    if raw:
        read_hours(raw)
    return raw


def _check_listen(rule: Rule, raw: object) -> tuple[str, ...]:
    return _addresses(rule, raw, with_peer=False)


def _check_peers(rule: Rule, raw: object) -> tuple[str, ...]:
    return _addresses(rule, raw, with_peer=True)


def _check_models(rule: Rule, raw: object) -> tuple[str, ...]:
    items = _items(rule, raw, "model ids")
    for item in items:
        if not re.fullmatch("[0-9a-f]{64}", item):
            raise ValueError(f"holds {_shown(item)}; a model id has 64 hex digits")
    return tuple(items)


def _check_licences(rule: Rule, raw: object) -> tuple[str, ...]:
    items = _items(rule, raw, "licences")
    for item in items:
        if not re.fullmatch(r"[A-Za-z0-9.:-]{1,64}", item):
            raise ValueError(f"holds {_shown(item)}; a licence is one SPDX name, such as Apache-2.0, or none")
    return tuple(items)


def _items(rule: Rule, raw: object, what: str) -> list[str]:
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if not isinstance(raw, (list, tuple)) or not all(isinstance(item, str) for item in raw):
        raise ValueError(f"must be a list of {what}, not {_shown(raw)}")
    if len(raw) > rule.high:
        raise ValueError(f"must have at most {rule.high} {what}, not {len(raw)}")
    return list(raw)


def _addresses(rule: Rule, raw: object, *, with_peer: bool) -> tuple[str, ...]:
    items = _items(rule, raw, "addresses")
    try:
        return tuple(check_address(item, with_peer=with_peer) for item in items)
    except BadLink as error:
        raise ValueError(f"holds a bad address: {error.text}") from None


def _shown(raw: object) -> str:
    return ascii(raw)[:64]


_CHECKS: Mapping[str, Callable[[Rule, object], SettingValue]] = {
    "flag": _check_flag,
    "count": _check_count,
    "choice": _check_choice,
    "name": _check_name,
    "path": _check_path,
    "hours": _check_hours,
    "listen": _check_listen,
    "peers": _check_peers,
    "models": _check_models,
    "licences": _check_licences,
}
