"""``turnwise judge`` and ``turnwise labels``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from loop.domain.errors import BadInput
from loop.service.api_client import ApiClient
from loop.service.commands import reads
from loop.service.printing import (
    Column,
    plain,
    print_json,
    print_lines,
    print_rows,
    show,
    talk,
)

LABELS_AT_ONCE = 500
WORK = "/v1/lake/work"
_COUNTS = ("considered", "not_sampled", "judged_before", "no_consent", "nothing")


@click.group()
def judge() -> None:
    """A model that judges sessions by a rubric, and how far it can be believed."""


@judge.command("run")
@click.option("--rubric", "rubrics", multiple=True, help="Which ones (default: all).")
@click.option("--session", "sessions", multiple=True, help="Only these, in place of a sample.")
@click.option("--limit", type=int, help="At most so many calls for each rubric.")
@click.option("--now", is_flag=True, help="Wait for the answers; else a batch at half the price.")
@click.option("--dry-run", is_flag=True, help="Say how many sessions and what cost; send nothing.")
@click.option(
    "--count-tokens", is_flag=True, help="With --dry-run: let the API count some requests' tokens."
)
@reads
def run_judge(
    client: ApiClient,
    rubrics: tuple[str, ...],
    sessions: tuple[str, ...],
    limit: int | None,
    now: bool,
    dry_run: bool,
    count_tokens: bool,
    as_json: bool,
) -> None:
    """Judge the sessions of the sample that have ended and are not judged yet.

    Says how many sessions were left out for which reason, and how many stay unjudged where the
    day's budget ends. JSON: {"rows": [{rubric, version, considered, not_sampled, judged_before,
    no_consent, nothing, planned, sent, judged, unscored, left_unjudged, stopped_by,
    estimated_microusd, set_aside_microusd, cost_microusd, batches}], "next": null}.
    """
    document: dict[str, Any] = {
        "sessions": list(sessions),
        "limit": limit,
        "now": now,
        "dry_run": dry_run,
        "count_tokens": count_tokens,
    }
    if rubrics:
        document["rubrics"] = list(rubrics)
    answer = client.watch("/v1/judge", document, talk.print, WORK)
    if as_json:
        return print_json(answer)
    for row in answer["rows"]:
        print_lines(*_told(row))
    return None


def _told(row: dict[str, Any]) -> Iterator[str]:
    yield f"{row['rubric']} by {row['model']} ({row['version']})"
    left = ", ".join(f"{row[name]:,} {name.replace('_', ' ')}" for name in _COUNTS if row[name])
    yield f"  sessions: {left or 'none considered'}"
    if row["dry_run"]:
        yield (
            f"  would send {row['planned']:,} requests for about {money(row['estimated_microusd'])}"
            f" (at most {money(row['set_aside_microusd'])}); nothing was sent"
        )
        return
    yield f"  sent {row['sent']:,}, answered {row['judged']:,} for {money(row['cost_microusd'])}"
    if row["batches"]:
        yield f"  as batches, which `turnwise judge collect` takes in: {', '.join(row['batches'])}"
    for failure, count in sorted(row["unscored"].items()):
        yield f"  unscored: {count:,} {failure.replace('_', ' ')}"
    if row["stopped_by"]:
        yield f"  {row['left_unjudged']:,} left unjudged: stopped by {plain(row['stopped_by'])}"


@judge.command("status")
@reads
def show_status(client: ApiClient, as_json: bool) -> None:
    """Whether anything is judged, and what it cost today.

    JSON: {model, off_because, day, spent_microusd, budget_microusd, left_microusd, by_path,
    on_its_way, quality_measure, labels: [{rubric, source, labels, sessions, labellers, mean,
    newest_at_us}]}.
    """
    answer = client.get("/v1/judge")
    if as_json:
        return print_json(answer)
    print_lines(
        f"model {answer['model']}: " + (answer["off_because"] or "on"),
        f"{answer['day']}: {money(answer['spent_microusd'])} of "
        f"{money(answer['budget_microusd'])} spent or set aside; {answer['on_its_way']} on the way",
        f"quality is measured by {answer['quality_measure']}",
        *(
            f"{row['labels']:,} labels of {row['rubric']} on {row['sessions']:,} sessions "
            f"from {plain(row['source'])}"
            for row in answer["labels"]
        ),
    )
    return None


@judge.command("collect")
@reads
def collect_batches(client: ApiClient, as_json: bool) -> None:
    """Take in the batches that have ended. JSON: {"settled", "on_its_way"}."""
    answer = client.post("/v1/judge/collect")
    if as_json:
        return print_json(answer)
    print_lines(f"{answer['settled']} answers taken in, {answer['on_its_way']} on the way.")
    return None


@judge.command("calibration")
@reads
def show_calibration(client: ApiClient, as_json: bool) -> None:
    """How far each judge agrees with people, the corrected means, and whether it may decide.

    JSON: {"rows": [{rubric, version, agreement, mean, by_arm, drift, unscored, refusals,
    may_decide}], "limits", "next": null}.
    """
    answer = client.get("/v1/judge/calibration")
    if as_json:
        return print_json(answer)
    if not answer["rows"]:
        print_lines("Nothing has been judged yet.")
    for row in answer["rows"]:
        print_lines(*_calibrated(row))
    return None


def _calibrated(row: dict[str, Any]) -> Iterator[str]:
    agreement, drift = row["agreement"], row["drift"]
    yield (
        f"{row['rubric']} {row['version']}: {row['judged_sessions']:,} sessions judged for "
        f"{money(row['cost_microusd'])}"
    )
    unscored = ", ".join(f"{count:,} {name}" for name, count in sorted(row["unscored"].items()))
    if unscored:
        yield f"  unscored: {unscored.replace('_', ' ')}"
    if agreement["items"]:
        kappa = agreement["kappa"]
        words = "undefined" if kappa is None else _interval(kappa)
        yield (
            f"  kappa {words} on {agreement['items']:,} items of {agreement['sessions']:,} "
            f"sessions; people call {agreement['bad_share']:.1%} bad, the judge "
            f"{agreement['judged_bad_share']:.1%}"
        )
    if row["mean"]:
        mean = row["mean"]
        yield (
            f"  mean {_interval(mean['mean'])} corrected by {mean['labelled_sessions']:,} labelled "
            f"sessions (labels alone {_interval(mean['labels_only'])}, judge alone "
            f"{mean['judge_only']:.3f}, lambda {mean['power']:.2f})"
        )
    for arm, mean in row["by_arm"].items():
        words = _interval(mean["mean"]) if mean else "too few labels"
        yield f"    arm {plain(arm) or '(none)'}: {words}"
    if drift["passes"]:
        yield (
            f"  anchors: {drift['passes']} passes, {drift['flips']} of {drift['items']} items "
            f"otherwise than at first{', ALARM' if drift['is_alarm'] else ''}"
        )
    if row["may_decide"]:
        yield "  may decide: it has agreed with people enough"
    for refusal in row["refusals"]:
        yield f"  may not decide: {refusal}"


def money(microusd: int) -> str:
    return show(microusd, "money")


def _interval(interval: dict[str, float]) -> str:
    return f"{interval['estimate']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


@judge.command("anchors")
@click.option("--rubric", required=True, help="Of which rubric.")
@click.option("--freeze", is_flag=True, help="Make the labelled sessions the anchors first.")
@click.option("--as", "actor", help="Who freezes them.")
@click.option("--now", is_flag=True, help="Wait for the answers; else a batch at half the price.")
@reads
def judge_anchors(
    client: ApiClient, rubric: str, freeze: bool, actor: str | None, now: bool, as_json: bool
) -> None:
    """Judge the anchors once more, to see whether the judge is still the same.

    JSON: {"frozen", "rows": [as `judge run` has it], "next": null}.
    """
    frozen = None
    if freeze:
        document = {"rubric": rubric, "actor": actor}
        frozen = client.post("/v1/judge/anchors", document)["anchors"]
    asked = {"rubrics": [rubric], "anchors": True, "now": now}
    answer = client.watch("/v1/judge", asked, talk.print, WORK) | {"frozen": frozen}
    if as_json:
        return print_json(answer)
    if frozen is not None:
        print_lines(f"{frozen} sessions are anchors of {rubric} now.")
    for row in answer["rows"]:
        print_lines(*_told(row))
    return None


@click.group()
def labels() -> None:
    """What people say of sessions and of single claims."""


@labels.command("import")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--as", "actor", required=True, help="Who labelled, where a row does not say.")
@reads
def import_labels(client: ApiClient, path: Path, actor: str, as_json: bool) -> None:
    """Import labels from a CSV or JSONL file.

    Columns: session_id, rubric, value (0 to 1, good, bad, or a verdict of the rubric), and where
    wanted item (or turn_id and claim), labeller, note, probability. JSON: {"rows", "new"}.
    """
    rows = list(read_rows(path))
    total = {"rows": 0, "new": 0}
    for start in range(0, len(rows), LABELS_AT_ONCE):
        part = rows[start : start + LABELS_AT_ONCE]
        answer = client.post("/v1/labels", {"actor": actor, "rows": part, "source": path.name[:40]})
        total = {name: total[name] + answer[name] for name in total}
        talk.print(f"{total['rows']:,} of {len(rows):,} labels")
    if as_json:
        return print_json(total)
    print_lines(f"{total['rows']:,} labels read, {total['new']:,} of them new.")
    return None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Raises :class:`BadInput` naming the line that can't be read."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                if None in row or None in row.values():
                    raise BadInput(f"{path}, line {reader.line_num}: not as many cells as columns.")
                yield {name: cell for name, cell in row.items() if cell != ""}
            return
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                document = json.loads(line)
            except ValueError as error:
                raise BadInput(f"{path}, line {number} is no JSON.", why=str(error)) from error
            if not isinstance(document, dict):
                raise BadInput(f"{path}, line {number} is no object.")
            yield document


@labels.command("list")
@click.option("--rubric", help="Of one rubric only.")
@reads
def list_labels(client: ApiClient, rubric: str | None, as_json: bool) -> None:
    """The labels in force. JSON: {"rows": [...], "next": null}."""
    answer = client.get("/v1/labels", rubric=rubric)
    if as_json:
        return print_json(answer)
    columns = [
        Column("session_id", "session"),
        Column("rubric", "rubric"),
        Column("item", "item"),
        Column("value", "value", "score"),
        Column("labeller", "by"),
        Column("note", "note"),
    ]
    print_rows(answer["rows"], columns, "No labels yet: `turnwise labels import FILE`.")
    return None
