"""``turnwise spend``, ``session``, ``evaluate`` and ``cluster``."""

from __future__ import annotations

from typing import Any

import click

from loop.service.api_client import ApiClient
from loop.service.commands import reads
from loop.service.printing import Column, plain, print_json, print_lines, print_rows, show, talk

GROUPINGS = {
    "developer": Column("developer", "developer"),
    "session": Column("session_id", "session"),
    "repo": Column("repository", "repository"),
    "org": Column("org_path", "org path"),
    "model": Column("model", "model"),
    "day": Column("day", "day"),
}
_AMOUNTS = (
    Column("turns", "turns", "count"),
    Column("input_tokens", "input", "count"),
    Column("cache_read_tokens", "cache read", "count"),
    Column("cache_creation_5m_tokens", "write 5m", "count"),
    Column("cache_creation_1h_tokens", "write 1h", "count"),
    Column("output_tokens", "output", "count"),
    Column("cost_microusd", "cost", "money"),
    Column("unpriced_turns", "unpriced", "count"),
)


@click.group()
def spend() -> None:
    """What the turns cost."""


@spend.command("by")
@click.argument("grouping")
@click.option("--since", metavar="DAY", help="First day, YYYY-MM-DD (UTC).")
@click.option("--until", metavar="DAY", help="Day to stop before, YYYY-MM-DD (UTC).")
@click.option("--level", type=click.IntRange(1, 4), help="Cut org paths to so many levels.")
@click.option(
    "--charge-version",
    type=click.IntRange(0),
    help="As charged before later re-pricings (`turnwise prices charges`).",
)
@reads
def spend_by(client: ApiClient, grouping: str, as_json: bool, **options: Any) -> None:
    """Tokens and cost by GROUPING: developer, session, repo, org, model or day.

    Several may be given, as in "session,model". JSON: {"rows": [{<the grouping's columns>, turns,
    input_tokens, output_tokens, cache_read_tokens, cache_creation_5m_tokens,
    cache_creation_1h_tokens, cost_microusd, unpriced_turns}], "unpriced": [{reason, model,
    turns}], "next": null}. A cost of null is unpriced, never zero.
    """
    answer = client.get("/v1/spend", by=grouping, **options)
    if as_json:
        return print_json(answer)
    print_spend(answer["rows"], grouping)
    for row in answer.get("unpriced", ()):
        talk.print(f"unpriced: {row['turns']:,} turns: {plain(row['reason'])}", markup=False)
    return None


@spend.command("doubles")
@click.option("--since", metavar="DAY", help="First day, YYYY-MM-DD (UTC).")
@click.option("--until", metavar="DAY", help="Day to stop before, YYYY-MM-DD (UTC).")
@reads
def spend_doubles(client: ApiClient, as_json: bool, **options: Any) -> None:
    """Requests that are probably charged twice: by the client, and by a gateway that names nothing.

    JSON: {"rows": [{session_id, turn_id, day, org_path, model, sources, started_at_us,
    cost_microusd, of_session_id, of_turn_id, of_org_path, apart_us}], cost_microusd,
    "next": null}.
    """
    answer = client.get("/v1/spend/doubles", **options)
    if as_json:
        return print_json(answer)
    columns = [
        Column("started_at_us", "at (UTC)", "time"),
        Column("session_id", "told under"),
        Column("of_session_id", "and by session"),
        Column("model", "model"),
        Column("cost_microusd", "cost", "money"),
    ]
    print_rows(answer["rows"], columns, "No request is suspected to be charged twice.")
    if answer["rows"]:
        talk.print(
            f"{show(answer['cost_microusd'], 'money')} is probably charged twice; "
            "docs/conventions.md says how to have the gateway name the session."
        )
    return None


def print_spend(rows: list[dict[str, Any]], grouping: str) -> None:
    names = [GROUPINGS[name] for name in grouping.split(",") if name in GROUPINGS]
    print_rows(rows, [*names, *_AMOUNTS], "No turns yet.")


@click.group()
def session() -> None:
    """Sessions and their turns."""


@session.command("list")
@click.option("--limit", type=int, default=50, show_default=True, help="Rows of one page.")
@click.option("--cursor", help="The `next` of the page before.")
@click.option(
    "--sort", default="started", show_default=True, help="started, cost or quality (worst first)."
)
@click.option("--developer", help="Only this developer's.")
@click.option("--repo", "repository", help="Only of this repository.")
@click.option("--model", help="Only with turns of this model.")
@click.option("--org", help="Only of this organization path and below.")
@click.option("--cluster", help="Only of this cluster (`turnwise cluster list`).")
@click.option(
    "--disagreeing",
    is_flag=True,
    help="Only those whose logs, metrics and spans tell different sums, and why.",
)
@reads
def list_sessions(
    client: ApiClient, as_json: bool, disagreeing: bool, limit: int, **options: Any
) -> None:
    """Sessions with their cost and scores. JSON: {"rows": [...], "next": cursor or null}.

    Rows of --disagreeing hold "cross_check" too: {"agrees", "sources", "sums", "reasons"}. A page
    of it looks at 500 sessions: it may have no rows and yet a next page.
    """
    answer = client.get(
        "/v1/sessions", limit=limit, disagreeing=int(disagreeing) or None, **options
    )
    if as_json:
        return print_json(answer)
    if disagreeing:
        for row in answer["rows"]:
            print_lines(
                f"{row['session_id']}  {row['developer']}", *_check_lines(row["cross_check"])
            )
        if not answer["rows"]:
            talk.print("No session disagrees among those that were looked at.")
    else:
        print_sessions(answer["rows"])
    if answer["next"]:
        talk.print(f"More: --cursor {answer['next']}")
    return None


def print_sessions(rows: list[dict[str, Any]]) -> None:
    shown = [row | {f"score_{key}": value for key, value in row["scores"].items()} for row in rows]
    columns = [
        Column("session_id", "session"),
        Column("started_at_us", "started (UTC)", "time"),
        Column("developer", "developer"),
        Column("turns", "turns", "count"),
        Column("cost_microusd", "cost", "money"),
        Column("score_faithfulness", "faithful", "score"),
        Column("score_tool_use", "tool use", "score"),
        Column("score_code_correctness", "code", "score"),
        Column("quality", "quality", "score"),
    ]
    print_rows(shown, columns, "No sessions yet. Send some: docs/getting-started.md.")


@session.command("show")
@click.argument("session_id")
@click.option("--content", is_flag=True, help="Also the texts: prompts, answers, tool outputs.")
@reads
def show_session(client: ApiClient, session_id: str, content: bool, as_json: bool) -> None:
    """One session turn by turn, with its scores and their evidence.

    JSON: {"session", "prompts", "turns", "scores", "labels", "cross_check"}. The last holds the
    sums that logs, metrics, spans and the gateway tell: {"agrees", "sources", "sums": [{model,
    measure, by_event, by_metric, by_span, by_gateway, charged, difference}], "reasons"}.
    """
    answer = client.get(f"/v1/sessions/{session_id}", content=int(content) or None)
    if as_json:
        return print_json(answer)
    head = answer["session"]
    print_lines(
        f"session    {head['session_id']}",
        f"developer  {head['developer']}",
        f"org path   {head['org_path']}",
        f"repository {head['repository']}",
        f"cost       {show(head['cost_microusd'], 'money')}",
        *_check_lines(answer["cross_check"]),
        "",
    )
    rows = [
        row | {"tools": [_tool_words(tool) for tool in row["tools"]], "agent": row["agent_name"]}
        for row in answer["turns"]
    ]
    columns = [
        Column("started_at_us", "started (UTC)", "time"),
        Column("agent", "agent"),
        Column("model", "model"),
        Column("status", "status"),
        Column("attempts", "attempts", "count"),
        Column("input_tokens", "input", "count"),
        Column("cache_read_tokens", "cache read", "count"),
        Column("output_tokens", "output", "count"),
        Column("cost_microusd", "cost", "money"),
        Column("tools", "tools"),
    ]
    print_rows(rows, columns, "No turns.")
    if content:
        _print_content(answer)
    print_lines("")
    for score in answer["scores"]:
        _print_score(score)
    for label in answer["labels"]:
        of = f"item {label['item']}" if label["item"] else "the session"
        print_lines(
            f"{plain(label['labeller'])} says {label['value']:g} of {of} "
            f"({label['rubric']}) {plain(label['note'])}".rstrip()
        )
    return None


def _check_lines(check: dict[str, Any]) -> list[str]:
    """What logs, metrics and spans tell of the same sums, in words."""
    if check["agrees"]:
        names = " and ".join(check["sources"])
        return [f"checked    {names} tell the same sums"] if len(check["sources"]) > 1 else []
    lines = []
    for item in check["sums"]:
        if item["difference"]:
            told = ", ".join(
                f"{source} {item[f'by_{source}']:,}"
                for source in check["sources"]
                if item[f"by_{source}"] is not None
            )
            model = plain(item["model"]) or "all models"
            lines.append(
                f"differs    {model} {item['measure']}: {told}; charged {item['charged']:,}"
            )
    return [*lines, *(f"           {reason['text']}" for reason in check["reasons"])]


def _tool_words(tool: dict[str, Any]) -> str:
    if tool["inferred"]:
        return "(a call that left no event)"
    outcome = {True: "", False: " ✕", None: " ?"}[tool["success"]]
    return f"{tool['name']}{' rejected' if tool['decision'] == 'reject' else outcome}"


def _print_content(answer: dict[str, Any]) -> None:
    for prompt in answer["prompts"]:
        print_lines("", f"> {plain(prompt['text'])}")
    for turn in answer["turns"]:
        print_lines("", f"[{turn['turn_id']}]", *turn["texts"])
        for tool in turn["tools"]:
            print_lines(
                f"  {tool['name']} {tool['input']}", f"  → ({tool['output_state']})", tool["output"]
            )


def _print_score(score: dict[str, Any]) -> None:
    value = show(score["value"], "score") if score["value"] is not None else "unscored"
    reason = f"  {score['unscored_reason']}" if score["unscored_reason"] else ""
    print_lines(f"{score['evaluator']:<17} {value}{reason}")
    for finding in score["findings"]:
        evidence = f" [{', '.join(finding['evidence'])}]" if finding["evidence"] else ""
        print_lines(f"  {finding['verdict']}: {finding['claim']} — {finding['reason']}{evidence}")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Every session, not only changed ones.")
@reads
def evaluate(client: ApiClient, everything: bool, as_json: bool) -> None:
    """Score the sessions that changed since the last pass.

    JSON: {"sessions", "unscored", "revision"}.
    """
    answer = client.post("/v1/evaluate", {"everything": everything})
    if as_json:
        return print_json(answer)
    print_lines(f"{answer['sessions']} sessions evaluated, {answer['unscored']} without any score.")
    return None


@click.group()
def cluster() -> None:
    """Sessions that went badly in a similar way."""


@cluster.command("list")
@click.option("--refresh", is_flag=True, help="Cluster the low-scoring sessions anew first.")
@reads
def list_clusters(client: ApiClient, refresh: bool, as_json: bool) -> None:
    """The clusters, those that lose the most first, outliers last.

    JSON: {"rows": [...], "next": null, "scored_sessions", "unscored_sessions"}; each row as
    `cluster show`.
    """
    answer = client.post("/v1/clusters") if refresh else client.get("/v1/clusters")
    if as_json:
        return print_json(answer)
    columns = [
        Column("cluster_id", "cluster"),
        Column("shown", "label"),
        Column("state", "state"),
        Column("sessions", "sessions", "count"),
        Column("mean_score", "mean score", "score"),
        Column("lost_cost_microusd", "lost", "money"),
        Column("cost_microusd", "cost", "money"),
        Column("cost_share", "of spend", "share"),
        Column("exemplars", "exemplars"),
    ]
    rows = [
        row | {"exemplars": row["exemplars"][:2], "shown": row["name"] or row["label"]}
        for row in answer["rows"]
    ]
    print_rows(rows, columns, "No clusters yet: `turnwise cluster list --refresh` makes them.")
    if answer["unscored_sessions"]:
        talk.print(f"{answer['unscored_sessions']:,} unscored sessions are in no cluster.")
    return None


@cluster.command("show")
@click.argument("cluster_id")
@reads
def show_cluster(client: ApiClient, cluster_id: str, as_json: bool) -> None:
    """One cluster: what sets it apart, with intervals, and whether a policy version explains it.

    JSON: {cluster_id, label, name, named_by, kind, state, parents, sessions, session_ids,
    mean_score, cost_microusd, cost_share, lost_cost_microusd, stability, features, lifts, terms,
    contrast, policy_check, exemplars, clustered_at_us}.
    """
    answer = client.get(f"/v1/clusters/{cluster_id}")
    if as_json:
        return print_json(answer)
    named = f"  named by {answer['named_by']}: {answer['name']}" if answer["name"] else ""
    print_lines(
        f"{answer['cluster_id']}  {answer['label']}{named}",
        f"sessions   {answer['sessions']:,} (mean score {show(answer['mean_score'], 'score')}), "
        f"{answer['state']}{' from ' + ', '.join(answer['parents']) if answer['parents'] else ''}",
        f"lost       {show(answer['lost_cost_microusd'], 'money')} of "
        f"{show(answer['cost_microusd'], 'money')}",
    )
    if answer["stability"] is not None:
        print_lines(f"stability  {answer['stability']:.2f}")
    if answer["contrast"]:
        print_lines(f"nearest    {answer['contrast']}")
    if check := answer["policy_check"]:
        print_lines(f"policy     {check['verdict']}: {check['reason']}")
    print_lines(f"exemplars  {', '.join(answer['exemplars'])}")
    for lift in answer["lifts"]:
        print_lines(
            f"  {lift['lift']:.2f} times ({lift['low']:.2f} to {lift['high']:.2f})  "
            f"{lift['kind']}: {lift['name']}"
        )
    talk.print(f"Its sessions: turnwise session list --cluster {answer['cluster_id']}")
    return None
