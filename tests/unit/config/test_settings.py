"""Settings: order of origins, and refusals that say where and what is near."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.config.settings import DEFAULT, OTHER_VARIABLES, SETTINGS, Settings, check_prices, resolve
from cocoon.core.errors import BadConfig

PEER = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWMQdppMYZrbT54kohaphM51sAP2FJnyDysGSVKkMPffVZ"


def test_defaults_hold_where_nobody_says_otherwise():
    resolved = resolve()
    assert resolved.settings == Settings()
    assert set(resolved.origins.values()) == {DEFAULT}


def test_every_default_is_lawful_by_its_own_rule():
    flags = {name: row.default for name, row in SETTINGS.items() if row.default != ""}
    assert resolve(flags=flags).settings == Settings()


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default():
    text = "threads = 2\nmax_leases = 3\n\nprovide = true\n"
    env = {"COCOON_MAX_LEASES": "4", "COCOON_RUN_LIMIT_MS": "5_000", "PATH": "/bin"}
    resolved = resolve(file_text=text, file_name="c.toml", env=env, flags={"run_limit_ms": 6, "role": None})
    settings = resolved.settings
    assert (settings.threads, settings.max_leases, settings.run_limit_ms, settings.provide) == (2, 4, 6, True)
    shown = {
        name: str(resolved.origins[name])
        for name in ("threads", "max_leases", "run_limit_ms", "provide", "role")
    }
    assert shown == {
        "threads": "file c.toml:1",
        "max_leases": "env COCOON_MAX_LEASES",
        "run_limit_ms": "flag --run-limit-ms",
        "provide": "file c.toml:4",
        "role": "default",
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"file_text": "\n\nthread = 2\n"},
            "config.toml:3: there is no setting 'thread'; the nearest is 'threads'",
        ),
        ({"file_text": "[limits]\nthreads = 2\n"}, "config.toml:1: there is no setting 'limits'"),
        (
            {"env": {"COCOON_TREADS": "2"}},
            "COCOON_TREADS: there is no setting 'treads'; the nearest is 'threads'",
        ),
        (
            {"flags": {"provides": True}},
            "--provides: there is no setting 'provides'; the nearest is 'provide'",
        ),
        ({"file_text": "threads = 0\n"}, "config.toml:1: threads must lie between 1 and 1024, not at 0"),
        ({"file_text": "threads = 2.0\n"}, "threads must be a whole number without unit, not 2.0"),
        ({"file_text": "threads = true\n"}, "threads must be a whole number"),
        ({"env": {"COCOON_RUN_LIMIT_MS": "5s"}}, "COCOON_RUN_LIMIT_MS: run_limit_ms must be a whole number"),
        ({"env": {"COCOON_THREADS": "-1"}}, "COCOON_THREADS: threads must be a whole number"),
        ({"env": {"COCOON_THREADS": "٣"}}, "COCOON_THREADS: threads must be a whole number"),
        ({"env": {"COCOON_PROVIDE": "maybe"}}, "COCOON_PROVIDE: provide must be true or false"),
        ({"env": {"COCOON_LOG_LEVEL": "loud"}}, "log_level must be one of debug, info, warning, error"),
        ({"env": {"COCOON_NETWORK_NAME": "Big Net"}}, "network_name must be 1 to 32"),
        ({"file_text": 'home = "/tmp"\n'}, "config.toml:1: home cannot stand in a file; use COCOON_HOME"),
        ({"file_text": "listen = [1]\n"}, "listen must be a list of addresses"),
        ({"env": {"COCOON_LISTEN": "/ip4/127.0.0.1/udp/1"}}, "COCOON_LISTEN: listen holds a bad address"),
        ({"env": {"COCOON_BOOTSTRAPS": "/ip4/127.0.0.1/tcp/1"}}, "must end with /p2p/"),
        ({"env": {"COCOON_BOOTSTRAPS": ",".join([PEER] * 17)}}, "at most 16 addresses, not 17"),
        ({"file_text": "threads = \n"}, "config.toml: no valid TOML: .*line 1"),
        ({"file_text": "threads = 1\nthreads = 2\n"}, "config.toml: no valid TOML"),
    ],
)
def test_a_bad_setting_is_named_with_its_place(given, text):
    with pytest.raises(BadConfig, match=text):
        resolve(**given)


def test_lists_are_read_from_files_and_from_commas():
    text = f'bootstraps = ["{PEER}"]\n'
    assert resolve(file_text=text).settings.bootstraps == (PEER,)
    env = {"COCOON_LISTEN": "/ip4/127.0.0.1/tcp/0, /ip6/::1/tcp/4001"}
    assert resolve(env=env).settings.listen == ("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/4001")
    assert resolve(env={"COCOON_BOOTSTRAPS": ""}).settings.bootstraps == ()


def test_the_line_of_a_later_key_is_right_with_comments_and_quotes():
    text = '# threads = 1\n"provide" = false\n  threads=4 # four\n'
    resolved = resolve(file_text=text)
    assert str(resolved.origins["threads"]) == "file config.toml:3"
    assert str(resolved.origins["provide"]) == "file config.toml:2"


def test_a_price_on_a_network_without_ledger_is_refused_with_its_origin():
    resolved = resolve(env={"COCOON_PRICE_RUN_NANOTON": "5"})
    with pytest.raises(BadConfig, match="env COCOON_PRICE_RUN_NANOTON: price_run_nanoton is 5"):
        check_prices(resolved, "none")
    check_prices(resolved, "ton")
    check_prices(resolve(), "none")


def test_variables_of_the_demo_and_the_tests_are_no_settings():
    assert resolve(env=dict.fromkeys(OTHER_VARIABLES, "x")) == resolve()


@given(name=st.text(max_size=20), value=st.text(max_size=20))
def test_any_environment_is_taken_or_refused_typed(name, value):
    try:
        resolve(env={f"COCOON_{name}": value})
    except BadConfig as error:
        assert "\n" not in error.text


@given(st.text(max_size=200))
def test_any_file_is_taken_or_refused_typed(text):
    try:
        resolve(file_text=text)
    except BadConfig:
        pass


def test_names_of_amounts_times_and_sizes_carry_their_unit():
    """The unit is the last word of a name, unless it is a plain count."""
    counts = {"threads", "max_leases", "max_leases_per_requester", "log_files", "direct_port"}
    numbers = {field.name for field in dataclasses.fields(Settings) if type(field.default) is int}
    assert all(name.endswith(("_nanoton", "_bytes", "_ms", "_ppm", "_w")) for name in numbers - counts)
