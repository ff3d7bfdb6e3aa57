"""``turnwise policy push-bifrost``: a version arrives in Bifrost, and what is lost is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loop.service.command_line import turnwise
from tests.fakes.asgi_server import running_server
from tests.fakes.bifrost import FakeBifrost

ROOT = Path(__file__).parents[2]


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(turnwise, ["policy", *arguments, "--data", str(data)])


def test_a_version_is_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIFROST_TOKEN", "of-a-test")
    proposed = run(tmp_path, "propose", str(ROOT / "optimizers" / "classic_policy.json"), "--json")
    assert proposed.exit_code == 0, proposed.output
    version = str(json.loads(proposed.stdout)["version"])
    fake = FakeBifrost(token="of-a-test")
    with running_server(fake.app) as url:
        dry = run(tmp_path, "push-bifrost", version, "--url", url, "--dry-run")
        assert dry.exit_code == 0, dry.output
        assert fake.rules == {}
        pushed = run(tmp_path, "push-bifrost", version, "--url", url, "--json")
        assert pushed.exit_code == 0, pushed.output
        again = run(tmp_path, "push-bifrost", version, "--url", url)
        scoped = run(tmp_path, "push-bifrost", version, "--url", url, "--scope", "team")
    answer = json.loads(pushed.stdout)
    assert answer["created"] == len(answer["rules"]) == len(fake.rules) > 0
    assert "0 created" in again.stdout
    assert "not said: Parameters are not fitted" in again.stdout
    assert scoped.exit_code == 2
