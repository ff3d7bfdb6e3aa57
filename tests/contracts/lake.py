"""What any store of the lake must do. Subclasses give ``lake`` and ``reopen``."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from loop.domain.errors import BadInput
from loop.lake import Lake
from tests.lake.lake_records import (
    HOUR_US,
    NOON_US,
    cluster,
    content,
    decision,
    estimate,
    event,
    score,
    turn,
)


class LakeContract:
    @pytest.fixture
    def open_lake(self) -> Callable[[], Lake]:
        """Opens the same empty store each time it is called."""
        raise NotImplementedError

    @pytest.fixture
    def lake(self, open_lake: Callable[[], Lake]) -> Lake:
        return open_lake()

    def test_what_no_one_has_written_reads_as_empty(self, lake: Lake) -> None:
        assert lake.events_of(["s1"]) == {"s1": []}
        assert lake.turns_of(["s1"]) == []
        assert lake.load_traces(["s1"]) == []
        assert lake.max_revision() == -1
        assert lake.sessions_changed_since(-1) == []
        assert lake.scores_of() == lake.latest_clusters() == lake.decisions_of() == []
        assert lake.estimates_of("run") == []
        assert lake.turn_columns(["turn_id"])["turn_id"].shape == (0,)
        assert lake.query("SELECT count(*) AS n FROM turns") == [{"n": 0}]
        assert lake.versions() == {}
        assert set(lake.compact().values()) == {0}

    def test_events_come_back_as_they_went_in(self, open_lake: Callable[[], Lake]) -> None:
        strange = event(
            3, attributes={"": "\x00'\"", "emoji": "🦊", "half": "\ud800", "big": 2**70}
        )
        open_lake().write_events([event(2), event(1), strange], journal="j", position=1)
        assert open_lake().events_of(["s1", "s2"]) == {
            "s1": [event(1), event(2), strange],
            "s2": [],
        }

    def test_a_journal_position_is_written_once(self, open_lake: Callable[[], Lake]) -> None:
        lake = open_lake()
        lake.write_events([event(1)], journal="j", position=5)
        for again in (lake, open_lake()):
            again.write_events([event(2)], journal="j", position=5)
            again.write_events([event(3)], journal="j", position=4)
        assert lake.events_of(["s1"])["s1"] == [event(1)]
        open_lake().write_events([event(2)], journal="j", position=6)
        lake.write_events([event(3)], journal="other", position=1)
        assert lake.events_of(["s1"])["s1"] == [event(1), event(2), event(3)]

    def test_an_event_received_twice_is_one_event(self, lake: Lake) -> None:
        later = event(1, received_at_us=NOON_US + 99)
        lake.write_events([later, event(1)], journal="j", position=1)
        lake.write_events([later], journal="j", position=2)
        assert lake.events_of(["s1"])["s1"] == [event(1)]
        assert lake.query("SELECT count(*) AS n FROM events") == [{"n": 1}]

    def test_turns_and_contents_come_back_in_total_order(
        self, open_lake: Callable[[], Lake]
    ) -> None:
        turns = [turn(number, session) for session in ("s1", "s2") for number in range(3)]
        contents = [content(number, text="\x00'🦊\n") for number in range(3)]
        open_lake().write_turns(turns[::-1], contents[::-1], revision=7)
        lake = open_lake()
        assert lake.turns_of(["s2", "s1"]) == turns
        assert lake.contents_of(["s1"]) == contents
        assert lake.turns_of([]) == []
        assert lake.max_revision() == 7

    def test_a_later_revision_supersedes_and_removes(self, open_lake: Callable[[], Lake]) -> None:
        lake = open_lake()
        lake.write_turns([turn(1), turn(2)], [content(1), content(2)], revision=1)
        moved = turn(2, started_at_us=NOON_US - 30 * HOUR_US, cost_microusd=None)
        lake.write_turns([moved, turn(3)], [content(2, text="more")], revision=2)
        for reader in (lake, open_lake()):
            assert reader.turns_of(["s1"]) == [moved, turn(3)]
            assert reader.contents_of(["s1"]) == [content(2, text="more")]
            ids = reader.turn_columns(["turn_id"])["turn_id"].tolist()
            assert ids == [moved.turn_id, turn(3).turn_id]

    def test_an_earlier_revision_that_comes_late_changes_nothing(self, lake: Lake) -> None:
        lake.write_turns([turn(1), turn(2)], [], revision=5)
        lake.write_turns([turn(1, cost_microusd=1), turn(9)], [], revision=4)
        assert lake.turns_of(["s1"]) == [turn(1), turn(2)]
        assert lake.max_revision() == 5

    def test_the_last_write_of_one_revision_counts(self, open_lake: Callable[[], Lake]) -> None:
        for cost in (3, 2, 9, 1):
            open_lake().write_turns([turn(1, cost_microusd=cost)], [], revision=5)
        assert open_lake().turns_of(["s1"]) == [turn(1, cost_microusd=1)]

    def test_only_what_changed_is_written_and_named(self, open_lake: Callable[[], Lake]) -> None:
        lake = open_lake()
        everything = [turn(n, s) for s in ("s1", "s2", "s3") for n in range(3)]
        texts = [content(0, "s3")]
        lake.write_turns(everything, texts, revision=1)
        again = open_lake()
        again.write_turns(everything, texts, revision=2)
        assert again.query("SELECT count(*) AS n FROM turns_rows") == [{"n": 9}]
        assert again.sessions_changed_since(1) == []
        assert again.max_revision() == 2
        again.write_turns([turn(n) for n in range(4)], [], revision=3)
        again.write_turns([turn(n, "s3") for n in range(3)], [content(0, "s3")] * 2, revision=4)
        assert again.query("SELECT count(*) AS n FROM turns_rows") == [{"n": 10}]
        assert open_lake().sessions_changed_since(2) == ["s1", "s3"]
        assert open_lake().sessions_changed_since(3) == ["s3"]

    def test_the_latest_score_of_each_evaluator_is_current(self, lake: Lake) -> None:
        unscored = score(value=None, unscored_reason="no text", scored_at_us=NOON_US + 1)
        lake.write_scores([score(), score("s2"), score(evaluator="tool_use", findings=())])
        lake.write_scores([unscored])
        assert lake.scores_of(["s1"]) == [unscored, score(evaluator="tool_use", findings=())]
        assert lake.scores_of() == [*lake.scores_of(["s1"]), score("s2")]
        assert lake.scores_of([]) == []
        assert lake.query("SELECT count(*) AS n FROM scores") == [{"n": 3}]

    def test_the_latest_clustering_is_current(self, lake: Lake) -> None:
        lake.write_clusters([cluster("a", NOON_US), cluster("b", NOON_US)])
        lake.write_clusters([cluster("c", NOON_US + 1)])
        assert lake.latest_clusters() == [cluster("c", NOON_US + 1)]
        lake.write_clusters([])
        assert lake.latest_clusters() == []

    def test_decisions_are_kept_once(self, lake: Lake) -> None:
        other = decision(2, "s2", rollout_id="", upstream_status=None, fixes=())
        lake.write_decisions([decision(1), decision(1)], journal="j", position=1)
        lake.write_decisions([other], journal="j", position=1)
        lake.write_decisions([decision(1), other], journal="j", position=2)
        assert lake.decisions_of() == [decision(1), other]
        assert lake.decisions_of(["s2"]) == [other]
        assert lake.decisions_of(rollout_id="r1") == [decision(1)]

    def test_estimates_come_back_in_order(self, lake: Lake) -> None:
        first, second = estimate(), estimate("sha256:00", answerable=False)
        lake.write_estimate("run", first)
        lake.write_estimate("other", first)
        lake.write_estimate("run", second)
        assert lake.estimates_of("run") == [first, second]

    def test_columns_are_in_order_typed_and_masked(self, lake: Lake) -> None:
        lake.write_turns(
            [turn(2, "s2"), turn(2, cost_microusd=None), turn(1, starts_prompt=True)],
            [],
            revision=1,
        )
        columns = lake.turn_columns(["session_id", "cost_microusd", "starts_prompt", "sequence"])
        assert columns["session_id"].tolist() == ["s1", "s1", "s2"]
        assert columns["cost_microusd"].tolist() == [101, None, 102]
        assert columns["starts_prompt"].dtype == np.bool_
        assert columns["sequence"].dtype == np.int64
        since = NOON_US + 2 * HOUR_US
        assert lake.turn_columns(["sequence"], since_us=since)["sequence"].tolist() == [2, 2]
        assert lake.turn_columns(["sequence"], until_us=since)["sequence"].tolist() == [1]
        assert lake.turn_columns(["sequence"], where_sessions=["s2"])["sequence"].tolist() == [2]
        with pytest.raises(BadInput, match="no_such"):
            lake.turn_columns(["no_such"])

    def test_compaction_changes_no_answer(self, open_lake: Callable[[], Lake]) -> None:
        lake = open_lake()
        for revision in range(1, 9):
            lake.write_events([event(revision)], journal="j", position=revision)
            kept = [turn(n, attempts=revision) for n in range(revision // 2, revision)]
            lake.write_turns(kept, [content(n) for n in range(revision)], revision=revision)
        answers = _answers(lake)
        saved = lake.compact()
        assert saved["events"] > 0
        assert saved["turns"] > 0
        assert _answers(lake) == answers
        fresh = open_lake()
        assert _answers(fresh) == answers
        assert len(fresh.query("SELECT * FROM turns_rows")) < 30
        fresh.write_events([event(99)], journal="j", position=8)
        fresh.write_turns(kept, [content(n) for n in range(8)], revision=9)
        assert fresh.sessions_changed_since(8) == []
        assert _answers(fresh)["events"] == answers["events"]
        assert set(fresh.compact().values()) == {0}

    def test_bad_sql_is_the_callers_fault(self, lake: Lake) -> None:
        lake.write_turns([turn(1)], [], revision=1)
        with pytest.raises(BadInput):
            lake.query("SELECT no_such_column FROM turns")
        with pytest.raises(BadInput):
            lake.query("SELEKT 1")
        with pytest.raises(BadInput, match="output_tokens"):
            lake.write_turns([turn(1, usage=turn(1).usage.__class__(0, 2**63))], [], revision=2)

    def test_threads_write_and_read_at_once(self, lake: Lake) -> None:
        failures: list[BaseException] = []

        def guard(action: Callable[[int], object]) -> None:
            try:
                for number in range(6):
                    action(number)
            except BaseException as error:  # noqa: BLE001 - handed to the test's thread
                failures.append(error)

        actions: list[Callable[[int], object]] = [
            lambda n: lake.write_events([event(n)], journal="j", position=n),
            lambda n: lake.write_turns([turn(i) for i in range(n + 1)], [], revision=n),
            lambda n: lake.write_scores([score(scored_at_us=n)]),
            lambda n: lake.query("SELECT sum(cost_microusd) AS c, count(*) AS n FROM turns"),
            lambda n: lake.load_traces(["s1"]),
            lambda n: lake.compact(),
        ]
        threads = [threading.Thread(target=guard, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(lake.events_of(["s1"])["s1"]) == 6
        assert lake.turns_of(["s1"]) == [turn(n) for n in range(6)]
        assert lake.scores_of() == [score(scored_at_us=5)]


def _answers(lake: Lake) -> dict[str, object]:
    return {
        "events": lake.events_of(["s1"]),
        "turns": lake.turns_of(["s1"]),
        "contents": lake.contents_of(["s1"]),
        "revision": lake.max_revision(),
        "changed": lake.sessions_changed_since(-1),
    }
