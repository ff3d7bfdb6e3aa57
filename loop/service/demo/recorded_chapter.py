"""Chapter 1: recordings of the real client become turns, money and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from collectors.transcripts import import_transcripts
from loop.service.api_client import ApiClient
from loop.service.assemble import assemble
from loop.service.commands.replays import as_served_line
from loop.service.commands.sessions import print_sessions, print_spend
from loop.service.demo.claims import Claims
from loop.service.demo.recordings import (
    read_expected,
    read_recordings,
    send_recordings,
    transcripts,
)
from loop.service.demo.service_process import ServiceAddresses
from loop.service.demo.telling import ProgressBar, begin_chapter, wait_until
from loop.service.printing import print_lines, show
from loop.service.settings import load_settings
from optimizers.classic import classic_policy


class RecordedChapter:
    """Sends what was recorded and checks it against what the model API really served."""

    def __init__(
        self, client: ApiClient, addresses: ServiceAddresses, data_dir: Path, claims: Claims
    ) -> None:
        self._client = client
        self._addresses = addresses
        self._data_dir = data_dir
        self._claims = claims

    def tell(self) -> None:
        begin_chapter("1. Recordings of the real Claude Code client, through the real OTLP ports")
        recordings = read_recordings()
        with ProgressBar("Sending") as advance:
            sent = send_recordings(recordings, self._addresses, advance)
        print_lines(f"{len(recordings)} bodies ({sent / 1e6:.1f} MB) acknowledged after fsync.")
        imported = self._import_transcripts()
        print_lines(f"{imported} transcript lines imported into the same turns.", "")
        expected = read_expected()
        self._wait_for_turns(expected)
        spend = self._client.get("/v1/spend", by="developer,model")
        print_spend(spend["rows"], "developer,model")
        self._check_totals(expected)
        print_lines("")
        self._client.post("/v1/evaluate", {"everything": True})
        print_sessions(self._client.get("/v1/sessions", sort="quality")["rows"])
        self._check_faithfulness(expected)
        self._show_reach()
        self._check_replay()

    def _import_transcripts(self) -> int:
        parts = assemble(load_settings({}, data_dir=self._data_dir))
        report = import_transcripts(list(transcripts()), parts.journal)
        parts.close()
        return report.imported

    def _wait_for_turns(self, expected: list[dict[str, Any]]) -> None:
        wanted = sum(row["api"]["ok"] for row in expected)

        def arrived() -> bool:
            rows = self._client.get("/v1/spend", by="session")["rows"]
            return bool(sum(row["turns"] for row in rows) >= wanted)

        wait_until(arrived, "the recorded turns can be queried")

    def _check_totals(self, expected: list[dict[str, Any]]) -> None:
        wanted: dict[tuple[str, str], list[int]] = {}
        for row in expected:
            for model, tokens in row["api"]["tokens_by_model"].items():
                total = wanted.setdefault((row["session_id"], model), [0, 0, 0, 0])
                for place, name in enumerate(("input", "output", "cacheRead", "cacheCreation")):
                    total[place] += tokens[name]
        rows = self._client.get("/v1/spend", by="session,model")["rows"]
        found = {
            (row["session_id"], row["model"]): [
                row["input_tokens"],
                row["output_tokens"],
                row["cache_read_tokens"],
                row["cache_creation_5m_tokens"] + row["cache_creation_1h_tokens"],
            ]
            for row in rows
        }
        wrong = [key for key, total in wanted.items() if found.get(key) != total]
        self._claims.note(
            "every recorded session's tokens equal what the model API served",
            not wrong,
            f"{len(wanted) - len(wrong)} of {len(wanted)} sessions and models",
        )

    def _check_faithfulness(self, expected: list[dict[str, Any]]) -> None:
        ids = {row["name"]: row["session_id"] for row in expected}
        verdicts = {}
        for name in ("a04_overload_retry_unfaithful", "a01_read_answer"):
            scores = self._client.get(f"/v1/sessions/{ids[name]}")["scores"]
            findings = [
                finding
                for score in scores
                if score["evaluator"] == "faithfulness"
                for finding in score["findings"]
                if finding["verdict"] == "contradicted"
            ]
            verdicts[name] = findings
        caught = verdicts["a04_overload_retry_unfaithful"]
        print_lines("")
        for finding in caught:
            print_lines(
                f'contradicted: "{finding["claim"]}" — {finding["reason"]} '
                f"[{', '.join(finding['evidence'])}]"
            )
        self._claims.note(
            "the session that claims green tests though they failed is contradicted, with evidence",
            bool(caught) and all(finding["evidence"] for finding in caught),
            f"{len(caught)} claims",
        )
        self._claims.note(
            "the session that answers faithfully is not contradicted",
            not verdicts["a01_read_answer"],
            "a01_read_answer",
        )

    def _show_reach(self) -> None:
        print_lines(
            "",
            "The classic rule (under 10K input tokens to claude-haiku-4-5) on these turns matches:",
        )
        for row in self._client.get("/v1/reach")["rows"]:
            if row["rule_id"] == classic_policy().rules[0].rule_id:
                print_lines(
                    f"  {show(row['turn_share'], 'share'):>9} of turns, "
                    f"{show(row['cost_share'], 'share'):>9} of dollars, "
                    f"when input size means {row['measure']}"
                )

    def _check_replay(self) -> None:
        """The replay against the bill: exact where the log is believed, and how far the cache
        model, which prices what a policy changes, is off on the same routes."""
        answer = self._client.get("/v1/replay/calibration")
        print_lines("", as_served_line(answer["as_served"]), *answer["words"])
        as_served = answer["as_served"]
        self._claims.note(
            "replaying the models as they were served gives back the bill to the micro-dollar",
            as_served["replayed_cost_microusd"] == as_served["billed_cost_microusd"] > 0,
            show(as_served["replayed_cost_microusd"], "money"),
        )
