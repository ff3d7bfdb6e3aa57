"""The documents name everything that there is: settings, commands, routes and table columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from starlette.routing import Route

from loop.lake.schemas import TABLES
from loop.service.assemble import assemble
from loop.service.command_line import turnwise
from loop.service.http_api import api_app
from loop.service.settings import knobs, load_settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text()


def commands(group: click.Command, path: str) -> Iterator[str]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, f"{path} {name}")
    else:
        yield path


@pytest.mark.parametrize("knob", knobs(), ids=lambda knob: knob.name)
def test_each_setting_is_documented_as_it_is(knob: Any) -> None:
    text = read("settings.md")
    assert f"| `{knob.metadata['env']}` | `{knob.name}` |" in text
    assert knob.metadata["doc"] in text


def test_no_setting_is_documented_that_is_gone() -> None:
    named = set(re.findall(r"^\| `([A-Z0-9_]+)`", read("settings.md"), re.MULTILINE))
    assert named == {knob.metadata["env"] for knob in knobs()}


def test_the_commands_are_those_documented() -> None:
    named = set(re.findall(r"^\| `(turnwise[a-z -]+)`", read("command-line.md"), re.MULTILINE))
    assert named == set(commands(turnwise, "turnwise"))


@pytest.mark.parametrize("path", sorted(commands(turnwise, "turnwise")))
def test_each_command_says_what_it_does(path: str) -> None:
    command: click.Command = turnwise
    for name in path.split()[1:]:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts[0]} has no help"


def test_the_routes_are_those_documented(tmp_path: Path) -> None:
    app = api_app(assemble(load_settings({}, data_dir=tmp_path)))
    served = {
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith(("/v1/", "/healthz", "/readyz"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    named = set(re.findall(r"^\| `((?:GET|POST) [^`]+)`", read("http-api.md"), re.MULTILINE))
    assert named == served


@pytest.mark.parametrize("schema", TABLES, ids=lambda schema: schema.name)
def test_each_column_of_each_table_is_documented(schema: Any) -> None:
    text = read("turn-table.md")
    for column in schema.columns:
        assert re.search(rf"^\| `{column.name}` \|", text, re.MULTILINE), column.name
        assert column.description in text


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
