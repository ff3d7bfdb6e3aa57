"""Rows past their class's age go, held ones stay, the sums do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from loop.domain.errors import BadInput, Corrupt, NotFound, Refused
from loop.ledger.chargeback import spend
from loop.service import stages
from loop.service.assemble import Parts, assemble
from loop.service.command_line import turnwise
from loop.service.lake_keeping import LakeKeeper
from loop.service.retention_keeping import RetentionKeeper
from loop.service.settings import load_settings
from tests.lake.lake_records import NOON_US, content, decision, event, score, turn

DAY_US = 86_400_000_000
FIRST_DAY = "2025-11-23"
SECRET = "a text that nobody keeps"


def day(number: int) -> str:
    return f"2025-{11 if number < 8 else 12}-{(22 + number) % 30 + 1:02}"


@dataclass(frozen=True)
class Session:
    name: str
    days: tuple[int, ...]
    developer: str = "dana@example.com"
    org_path: str = "acme/pay"
    repository: str = "shop"


def fill(parts: Parts, sessions: list[Session]) -> None:
    """Half of them, a compaction, and the other half."""
    lake = parts.lake
    half = (len(sessions) + 1) // 2
    for position, some in enumerate((sessions[:half], sessions[half:]), 1):
        moments = [
            (session, n, NOON_US + place * DAY_US)
            for session in some
            for n, place in enumerate(session.days)
        ]
        events = [
            event(
                n,
                session.name,
                at_us=moment,
                resource={"user.email": session.developer, "session.id": session.name},
                attributes={"prompt": SECRET, "model": "m"},
            )
            for session, n, moment in moments
        ]
        turns = [
            turn(
                n,
                session.name,
                started_at_us=moment,
                developer=session.developer,
                org_path=session.org_path,
                repository=session.repository,
                cost_microusd=10 ** sessions.index(session),
            )
            for session, n, moment in moments
        ]
        texts = [content(n, s.name, at_us=moment, text=SECRET) for s, n, moment in moments]
        lake.write_events(events, journal="collectors", position=position)
        lake.write_turns(turns, texts, revision=position)
        if position == 1:
            lake.compact()
    lake.write_scores([score(session.name) for session in sessions])
    lake.write_decisions(
        [
            decision(n, session.name, at_us=NOON_US + session.days[0] * DAY_US)
            for n, session in enumerate(sessions)
        ],
        journal="j",
        position=1,
    )
    parts.charge_table.roll_up([day(number) for number in range(12)])


def open_parts(folder: Path) -> Parts:
    return assemble(load_settings({}, data_dir=folder))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(tmp_path)
    yield parts
    parts.close()


def write(parts: Parts, **change: object) -> None:
    parts.retention.append(change, actor="counsel", reason="the law")


def rule(parts: Parts, kind: str, value: str, name: str, contents: str = "") -> None:
    write(parts, kind=kind, value=value, **{"class": name}, contents_class=contents)


def class_days(parts: Parts, name: str, days: int) -> None:
    write(parts, days=days, **{"class": name})


def sessions_in(folder: Path, table: str) -> set[str]:
    """The sessions of all files that lie there, whatever version names them."""
    return {
        session
        for path in (folder / "lake" / table).rglob("day=*/*.parquet")
        for session in pq.read_table(path, columns=["session_id"], partitioning=None)[
            "session_id"
        ].to_pylist()
    }


SUMS = ((), ("org", "repo"), ("model", "day"))


def sums(parts: Parts) -> list[object]:
    def ordered(by: tuple[str, ...], from_rollup: bool) -> list[str]:
        return sorted(map(str, spend(parts.lake, by, from_rollup=from_rollup)))

    return [ordered(by, rollup) for by in SUMS for rollup in (False, True)]


names = st.sampled_from
drawn_sessions = st.lists(
    st.builds(
        Session,
        st.just(""),
        st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
        names(["dana@example.com", "lee@example.com"]),
        names(["acme/pay", "acme/risk", "acme"]),
        names(["shop", "ledger-a", "ledger-b"]),
    ),
    min_size=2,
    max_size=6,
)
targets = names(
    [
        ("org", "acme"),
        ("org", "acme/pay"),
        ("developer", "lee@example.com"),
        ("repository", "shop"),
        ("repository", "ledger-a"),
    ]
)
drawn_rules = st.lists(
    st.tuples(
        st.one_of(targets, st.just(("repository", "ledger*")), st.just(("all", ""))),
        names(["short", "default", "long"]),
        names(["", "texts", "short"]),
    ),
    max_size=3,
    unique_by=lambda drawn: drawn[0],
)
DAYS = {"texts": 2, "short": 4, "default": 6, "long": 9}


def covers(kind: str, value: str, session: Session) -> bool:
    if kind == "org":
        return f"{session.org_path}/".startswith(f"{value}/")
    if kind == "repository":
        whole = session.repository == value
        return whole or (value == "ledger*" and session.repository.startswith("ledger"))
    return kind == "all" or session.developer == value


@settings(max_examples=4, deadline=None)
@given(drawn_sessions, drawn_rules, st.lists(targets, max_size=2), st.integers(7, 12))
def test_exactly_what_is_past_its_age_and_not_held_goes(
    drawn: list[Session],
    rules: list[tuple[tuple[str, str], str, str]],
    holds: list[tuple[str, str]],
    today: int,
) -> None:
    """The model: of the rules that cover a session the longest, those on `all` only as the last."""
    sessions = [
        Session(f"session-{n}", s.days, s.developer, s.org_path, s.repository)
        for n, s in enumerate(drawn)
    ]
    gone: set[str] = set()
    without_texts: set[str] = set()
    for session in sessions:
        mine = [r for r in rules if r[0][0] != "all" and covers(*r[0], session)]
        mine = mine or [r for r in rules if r[0][0] == "all"]
        age = max((DAYS[name] for _, name, _ in mine), default=DAYS["default"])
        text_age = min(age, max((DAYS[t or name] for _, name, t in mine), default=age))
        if any(covers(*hold, session) for hold in holds):
            continue
        idle = today - max(session.days)
        if idle > age:
            gone.add(session.name)
        if idle > text_age:
            without_texts.add(session.name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = open_parts(folder)
        fill(parts, sessions)
        for class_name, days in DAYS.items():
            class_days(parts, class_name, days)
        for (kind, value), class_name, contents in rules:
            rule(parts, kind, value, class_name, contents)
        for kind, value in holds:
            parts.holds.add(kind, value, reason="case 7", placed_by="counsel")
        before = sums(parts)
        kept = [s.name for s in sessions if s.name not in gone]
        with_texts = [n for n in kept if n not in without_texts]
        turns, scores = parts.lake.turns_of(kept), parts.lake.scores_of(kept)
        texts, events = parts.lake.contents_of(with_texts), parts.lake.events_of(with_texts)
        keeper = RetentionKeeper(parts, day(today))

        planned = keeper.apply()
        done = keeper.apply(dry_run=False)

        assert [row["rows"] for row in planned["rows"]] == [row["rows"] for row in done["rows"]]
        assert done["sessions"] == len(gone)
        for table in ("turns", "events", "scores", "decisions", "charges"):
            assert sessions_in(folder, table) - {"erased"} == set(kept), table
        assert sessions_in(folder, "contents") == set(with_texts)
        assert parts.lake.turns_of([s.name for s in sessions]) == turns
        assert parts.lake.scores_of() == scores
        assert parts.lake.contents_of([s.name for s in sessions]) == texts
        assert parts.lake.events_of(with_texts) == events
        for stored in parts.lake.events_of(set(kept) - set(with_texts)).values():
            assert [e.attributes["model"] for e in stored] == ["m"] * len(stored)
            assert SECRET not in str(stored)
        assert sums(parts) == before
        assert LakeKeeper(parts).verify()["rows"] == []
        assert keeper.apply(dry_run=False)["rows"] == []
        parts.close()


OLD = [Session(f"session-{n}", (n,), repository=f"r{n % 2}") for n in range(6)]


@pytest.mark.parametrize("steps", [3, 20])
def test_a_pass_that_is_killed_is_ended_by_the_next(tmp_path: Path, steps: int) -> None:
    parts = open_parts(tmp_path)
    fill(parts, OLD)
    class_days(parts, "default", 4)
    before = sums(parts)
    parts.close()
    command = [sys.executable, "-m", "tests.service.retaining_process"]
    killed = subprocess.run(
        [*command, str(tmp_path), day(8), str(steps)], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    parts = open_parts(tmp_path)
    keeper = RetentionKeeper(parts, day(8))
    if keeper.show()["unfinished"]:
        assert any("cut off" in row["what"] for row in LakeKeeper(parts).verify()["rows"])
        parts.charge_table.roll_up([day(number) for number in range(12)])
    keeper.apply(dry_run=False)
    for table in ("turns", "contents", "events", "scores", "decisions", "charges"):
        kept = {"session-4", "session-5"}
        assert sessions_in(tmp_path, table) - {"erased"} == kept, table
    assert sums(parts) == before
    assert LakeKeeper(parts).verify()["rows"] == []
    parts.close()


def test_nothing_goes_until_somebody_writes_a_policy(parts: Parts) -> None:
    fill(parts, OLD)
    keeper = RetentionKeeper(parts)
    assert keeper.apply()["dry_run"]
    with pytest.raises(Refused, match="No retention policy"):
        keeper.apply(dry_run=False)
    stages.retain(parts)
    assert len(parts.lake.turns_of([s.name for s in OLD])) == 6
    class_days(parts, "default", 1)
    stages.retain(parts)
    assert parts.lake.turns_of([s.name for s in OLD]) == []
    assert parts.stage_log.read("retention").done > 0
    assert LakeKeeper(parts).verify()["rows"] == []


def test_a_change_is_checked_and_recorded(parts: Parts) -> None:
    for change in (
        {"class": "SOX!", "days": 3},
        {"class": "sox", "days": 0},
        {"kind": "team", "value": "x", "class": "sox"},
        {"kind": "repository", "value": " ", "class": "sox"},
        {"kind": "org", "value": "acme", "class": "none"},
        {"kind": "all", "value": "x", "class": "sox"},
    ):
        with pytest.raises(BadInput):
            write(parts, **change)
    with pytest.raises(NotFound):
        write(parts, kind="org", value="acme", end=True)
    with pytest.raises(BadInput, match="why"):
        parts.retention.append({"class": "sox", "days": 1}, actor="a", reason=" ")
    assert parts.retention.list() == []
    rule(parts, "org", "acme", "sox")
    rule(parts, "org", "acme", "hipaa")
    assert [r.class_name for r in parts.retention.policy().rules] == ["hipaa"]
    write(parts, kind="org", value="acme", end=True)
    assert parts.retention.policy().rules == ()
    with parts.engine.begin() as connection:
        connection.execute(text("UPDATE retention_records SET reason = '' WHERE sequence = 2"))
    with pytest.raises(Corrupt, match="number 2 was altered"):
        parts.retention.policy()


def test_by_the_command_line(parts: Parts, tmp_path: Path) -> None:
    fill(parts, OLD)
    parts.holds.add("repository", "r1", reason="case 7", placed_by="counsel")

    def run(*arguments: str) -> tuple[int, str, str]:
        command = ["lake", "retention", *arguments, "--data", str(tmp_path)]
        result = CliRunner().invoke(turnwise, command)
        return result.exit_code, result.stdout, result.stderr

    assert "Nobody has written a policy" in run("show")[2]
    assert run("apply", "--yes")[0] == 3
    who = ("--reason", "law", "--as", "counsel")
    assert run("set", "--class", "short", "--days", "1", *who)[0] == 0
    made = run("set", "--on", "all", "--class", "short", *who, "--json")
    assert json.loads(made[1])["rules"][0]["class_name"] == "short"
    assert run("set", "--on", "all", "--days", "3", *who)[0] == 2
    code, out, err = run("apply")
    assert (code, "Nothing was changed" in err) == (0, True)
    assert "turns" in out
    assert "holds 3 sessions" in err
    assert run("apply", "--yes")[0] == 0
    left = {row["session_id"] for row in parts.lake.query("SELECT session_id FROM turns")}
    assert left == {"session-1", "session-3", "session-5"}


@pytest.mark.parametrize("steps", [20, 60])
def test_what_a_hold_covers_after_a_crash_stays_and_counts_once(tmp_path: Path, steps: int) -> None:
    parts = open_parts(tmp_path)
    fill(parts, OLD)
    class_days(parts, "default", 4)
    before = sums(parts)
    parts.close()
    command = [sys.executable, "-m", "tests.service.retaining_process"]
    killed = subprocess.run(
        [*command, str(tmp_path), day(8), str(steps)], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    parts = open_parts(tmp_path)
    assert RetentionKeeper(parts, day(8)).show()["unfinished"]
    left = [row["session_id"] for row in parts.lake.query("SELECT session_id FROM turns")]
    held = [name for name in ("session-2", "session-3") if name in left]
    assert held
    for name in held:
        parts.holds.add("session", name, reason="case 7", placed_by="counsel")
    RetentionKeeper(parts, day(8)).apply(dry_run=False)
    assert not RetentionKeeper(parts, day(8)).show()["unfinished"]
    kept = {*held, "session-4", "session-5"}
    assert {row["session_id"] for row in parts.lake.query("SELECT session_id FROM turns")} == kept
    charged = {row["session_id"] for row in spend(parts.lake, ["session"], from_rollup=True)}
    assert charged - {"erased"} == kept
    assert sums(parts) == before
    assert LakeKeeper(parts).verify()["rows"] == []
    for hold in parts.holds.list(in_force=True):
        parts.holds.release(hold["hold_id"], released_by="counsel")
    RetentionKeeper(parts, day(8)).apply(dry_run=False)
    assert sessions_in(tmp_path, "turns") == {"session-4", "session-5"}
    assert sums(parts) == before
    parts.close()
