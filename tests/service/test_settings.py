from __future__ import annotations

import json
from pathlib import Path

import pytest

from loop.domain.errors import BadInput
from loop.service.listening import check_exposure
from loop.service.settings import is_loopback, knobs, load_settings, parse_address


def test_the_command_line_rules_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"channel": "from-file", "http": "127.0.0.1:1", "edge": "off"}))
    environment = {"TURNWISE_CHANNEL": "from-env", "TURNWISE_HTTP": "127.0.0.1:2"}
    settings = load_settings(environment, file, http="127.0.0.1:3")
    assert (settings.channel, settings.http, settings.edge) == ("from-env", "127.0.0.1:3", "off")
    origin = {row["name"]: row["from"] for row in settings.rows()}
    assert origin["channel"] == "TURNWISE_CHANNEL"
    assert origin["http"] == "command line"
    assert origin["edge"] == str(file)
    assert origin["otlp_http"] == "default"


def test_secrets_are_shown_as_set() -> None:
    settings = load_settings({"TURNWISE_API_TOKEN": "hunter2"})
    shown = {row["name"]: row["value"] for row in settings.rows()}
    assert shown["api_token"] == "set"
    assert shown["database_url"] == ""
    assert "hunter2" not in json.dumps(settings.rows())
    assert all(row["meaning"] for row in settings.rows())


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"TURNWISE_DRAIN_INTERVAL_MS": "soon"}, "TURNWISE_DRAIN_INTERVAL_MS"),
        ({"TURNWISE_DRAIN_INTERVAL_MS": "0"}, "TURNWISE_DRAIN_INTERVAL_MS"),
        ({"TURNWISE_EVALUATE_INTERVAL_SECONDS": "-1"}, "TURNWISE_EVALUATE_INTERVAL_SECONDS"),
        ({"TURNWISE_SETTINGS": "/nowhere/settings.json"}, "/nowhere/settings.json"),
    ],
)
def test_a_bad_value_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        load_settings(environment)


@pytest.mark.parametrize("content", ['{"colour": "red"}', "[]", "{"])
def test_a_bad_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(content)
    with pytest.raises(BadInput):
        load_settings({}, file)


@pytest.mark.parametrize("address", ["8080", ":8080", "host:", "host:port", "host:70000"])
def test_an_address_needs_host_and_port(address: str) -> None:
    with pytest.raises(BadInput, match="no address"):
        parse_address(address, "http")


def test_addresses_are_read() -> None:
    assert parse_address("127.0.0.1:0", "http") == ("127.0.0.1", 0)
    assert parse_address("[::1]:4318", "http") == ("::1", 4318)
    assert is_loopback("127.8.9.10")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")


def test_only_loopback_goes_without_a_token() -> None:
    names = ("http", "otlp_http")
    check_exposure(load_settings({}), names)
    with pytest.raises(BadInput, match="otlp_http"):
        check_exposure(load_settings({}, otlp_http="0.0.0.0:4318"), names)
    check_exposure(load_settings({"TURNWISE_API_TOKEN": "t"}, otlp_http="0.0.0.0:4318"), names)


def test_every_setting_has_an_environment_name_of_its_own() -> None:
    names = [knob.metadata["env"] for knob in knobs()]
    assert len(names) == len(set(names))
