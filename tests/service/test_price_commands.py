"""``turnwise prices`` on a folder of recordings, and where another process drains."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from collectors.journal import Journal
from loop.service.assemble import assemble
from loop.service.command_line import turnwise
from loop.service.drain_stage import drain_and_price
from loop.service.price_desk import PriceDesk
from loop.service.repricing_stage import PendingRepricing
from loop.service.settings import load_settings
from tests.service.service_process import api_request, clean_environment

RATES = "--input 10 --output 50 --cache-read 1 --write-5m 12.5 --write-1h 20"
SPAN = "--from 2026-01-01 --until 2027-01-01"


def run(folder: Path, line: str, *more: str) -> Result:
    return CliRunner(env=clean_environment(folder)).invoke(turnwise, [*line.split(), *more])


def ok(folder: Path, line: str, *more: str) -> Any:
    result = run(folder, line, *more, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Journal(tmp_path / "journal") as journal:
        for number in range(3):
            journal.append_sync("logs", "protobuf", api_request("s1", number, 1_000_000))
        journal.append_sync("logs", "protobuf", strange())
    return tmp_path


def strange() -> bytes:
    return api_request("s2", 9).replace(b"claude-opus-4-7", b"claude-what-9-9")


def total(folder: Path, *more: str) -> int | None:
    (row,) = ok(folder, "spend by model", "--until", "2999-01-01", *more)["rows"][:1]
    return row["cost_microusd"]


def test_prices_change_new_turns_and_a_re_pricing_the_old_ones(folder: Path) -> None:
    before = 3 * 5_000_250
    assert total(folder) == before
    answer = ok(folder, "spend by model")
    assert [row["reason"] for row in answer["unpriced"]] == ["unknown model claude-what-9-9"]
    checks = {row["check"]: row for row in json.loads(run(folder, "doctor --json").stdout)["rows"]}
    assert not checks["prices"]["ok"]
    assert "unknown model claude-what-9-9" in checks["prices"]["detail"]
    new = "claude-opus-4-7 --effective 2026-01-01 --reason list"
    assert "Nothing was changed" in run(folder, f"prices set {new} {RATES} --dry-run").output
    changed = ok(folder, f"prices set {new} {RATES}")
    assert changed["rows"][0]["words"].startswith("input $5 → $10 (+100.0 %)")
    assert ok(folder, "prices show --model claude-opus-4-7")["price_version"].startswith("v2-")
    assert total(folder) == before
    dry = ok(folder, f"prices reprice {SPAN} --dry-run")
    assert (dry["before_microusd"], dry["after_microusd"]) == (before, 2 * before)
    assert run(folder, f"prices reprice {SPAN}").exit_code == 2  # no reason
    done = ok(folder, f"prices reprice {SPAN} --reason contract")
    assert done == dry | {"charge_version": 1}
    assert total(folder) == 2 * before
    assert total(folder, "--charge-version", "0") == before
    assert run(folder, "spend by model --charge-version 7").exit_code == 2
    (row,) = ok(folder, "prices charges")["rows"]
    assert (row["reason"], row["finished_at_us"] is not None) == ("contract", True)


def test_an_exported_book_can_be_imported(tmp_path: Path) -> None:
    book = tmp_path / "book.json"
    book.write_text(run(tmp_path, "prices export").stdout)
    document = json.loads(book.read_text())
    assert ok(tmp_path, "prices import book", str(book))["changed"] == 0
    document["prices"][0]["input"] = 99
    book.write_text(json.dumps(document))
    assert ok(tmp_path, "prices import book", str(book))["changed"] == 1
    assert [row["author"] for row in ok(tmp_path, "prices list")["rows"]][1] == "turnwise"
    assert run(tmp_path, "prices show v9").exit_code == 2


def test_litellms_map_is_imported_with_what_it_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    rates = {
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 5e-06,
        "cache_read_input_token_cost": 1e-07,
        "cache_creation_input_token_cost": 1.25e-06,
        "cache_creation_input_token_cost_above_1hr": 2e-06,
        "litellm_provider": "anthropic",
    }
    half = {"input_cost_per_token": 1e-06, "litellm_provider": "anthropic"}
    file.write_text(json.dumps({"claude-haiku-9": rates, "claude-half": half}))
    answer = ok(tmp_path, "prices import litellm --effective 2026-12-01", str(file))
    assert (answer["changed"], answer["left_out"][0]["name"]) == (1, "claude-half")
    shown = run(tmp_path, "prices import litellm --effective 2026-12-01", str(file))
    assert "left out: claude-half" in shown.stderr
    bad = run(tmp_path, "prices import litellm --effective soon", str(file))
    assert bad.exit_code == 2


def test_a_drainer_that_runs_elsewhere_writes_what_is_priced_anew(folder: Path) -> None:
    environment = {"TURNWISE_DATA_DIR": str(folder)}
    drainer, asked = (assemble(load_settings(environment)) for _ in range(2))
    pending = PendingRepricing(drainer)
    drain_and_price(drainer, pending)  # holds the journal's lock from now on
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.05):
            drain_and_price(drainer, pending)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        span = {"from": "2026-01-01", "until": "2027-01-01", "actor": "ada", "reason": "r"}
        done = PriceDesk(asked).reprice(span)
        written = asked.lake.query("SELECT DISTINCT charge_version AS v FROM turns")
    finally:
        stop.set()
        thread.join()
        drainer.close()
        asked.close()
    assert (done["charge_version"], done["turns"], written) == (1, 4, [{"v": 1}])
