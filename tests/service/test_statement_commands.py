"""``turnwise spend statement`` and ``reconcile`` on a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from collectors.journal import Journal
from loop.service.command_line import turnwise
from tests.fakes.admin_api import KEY, fake_admin_api
from tests.service.service_process import NOW_US, api_request, clean_environment

TODAY = datetime.fromtimestamp(NOW_US / 1e6, UTC).date().isoformat()
MONTH = TODAY[:7]
LAST_MONTH = (datetime.fromisoformat(f"{MONTH}-01") - timedelta(days=1)).strftime("%Y-%m")
MODEL = "claude-opus-4-7"


def run(folder: Path, line: str, *more: str, **environment: str) -> Result:
    values = clean_environment(folder, **environment)
    return CliRunner(env=values).invoke(turnwise, [*line.split(), *more])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Journal(tmp_path / "data" / "journal") as journal:
        for number in range(2):
            journal.append_sync("logs", "protobuf", api_request("s1", number, 1_000_000))
    return tmp_path / "data"


def test_a_statement_equals_spend_in_every_format(folder: Path) -> None:
    spent: Any = json.loads(run(folder, "spend by org --json").stdout)["rows"]
    printed = run(folder, f"spend statement --month {MONTH} --json")
    assert printed.exit_code == 0, printed.output
    document = json.loads(printed.stdout)
    assert document["totals"]["cost_microusd"] == sum(row["cost_microusd"] for row in spent) > 0
    assert (document["state"], document["statement_id"]) == ("draft", "draft")
    dollars = f"{document['totals']['cost_microusd'] / 1e6:.6f}"
    for kind, head in (("table", "Statement"), ("csv", "section,month"), ("html", "<!doctype")):
        shown = run(folder, f"spend statement --month {MONTH} --format {kind}")
        assert shown.stdout.startswith(head)
        assert dollars in shown.stdout
    refused = run(folder, "spend statement --month 2999-01 --close")
    assert (refused.exit_code, "is not over" in refused.stderr) == (3, True)
    closed = run(folder, f"spend statement --month {LAST_MONTH} --close --as ada --json")
    assert json.loads(closed.stdout)["closed_by"] == "ada"
    again = run(folder, f"spend statement --month {LAST_MONTH} --json")
    assert again.stdout_bytes == closed.stdout_bytes
    assert run(folder, f"spend statement --month {LAST_MONTH} --close").exit_code == 3
    assert run(folder, "spend statement --month soon").exit_code == 2


def test_a_report_is_compared_and_shown_in_the_statement(folder: Path, tmp_path: Path) -> None:
    assert run(folder, f"spend reconcile --month {MONTH}").exit_code == 2  # no report yet
    file = tmp_path / "cost.csv"
    head = "usage_date_utc,model,token_type,cost_usd,cost_type\n"
    line = f"{TODAY},Claude Opus 4.7"
    file.write_text(f"{head}{line},input_no_cache,10,token\n{line},output,0.0005,token\n")
    good = run(folder, f"spend reconcile --month {MONTH} --json --report {file}")
    assert good.exit_code == 0, good.output
    answer = json.loads(good.stdout)
    assert (answer["residual_microusd"], answer["exceeded"]) == (0, False)
    file.write_text(f"{head}{line},input_no_cache,12,token\n{line},output,0.0005,token\n")
    bad = run(folder, f"spend reconcile --month {MONTH} --report {file}")
    assert bad.exit_code == 1
    assert "residual   $2.0000" in bad.stdout
    assert run(folder, f"spend reconcile --month {MONTH} --limit 0.5").exit_code == 0
    document = json.loads(run(folder, f"spend statement --month {MONTH} --json").stdout)
    assert document["billed"]["residual_microusd"] == 2_000_000
    assert "10.000500" in run(folder, f"spend statement --month {MONTH}").stdout
    part = json.loads(
        run(folder, f"spend statement --month {MONTH} --org unattributed --json").stdout
    )
    assert part["billed"] is None


def test_both_reports_are_fetched(folder: Path) -> None:
    with fake_admin_api() as api:
        api.usage(TODAY, MODEL, input_tokens=2_000_000, output_tokens=20)
        api.cost(TODAY, MODEL, "uncached_input_tokens", "1000")
        api.cost(TODAY, MODEL, "output_tokens", "0.05")
        environment = {"TURNWISE_BILLING_BASE_URL": api.url, "ANTHROPIC_ADMIN_KEY": KEY}
        line = f"spend reconcile --month {MONTH} --fetch --json"
        answer = run(folder, line, **environment)
        assert answer.exit_code == 0, answer.output
        document = json.loads(answer.stdout)
        assert (document["residual_microusd"], document["usage_days"] > 27) == (0, True)
        assert KEY not in run(folder, "settings show", **environment).output
    away = run(folder, line, "--limit", "0")
    assert (away.exit_code, "no key of the Admin API" in away.stderr) == (2, True)
