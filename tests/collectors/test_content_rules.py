"""Which mode a record is stored in: its credential's node bounds what its labels can choose."""

from __future__ import annotations

import io
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.content_rules import ContentModes, parse_modes
from collectors.screening import Screen
from collectors.transcripts import import_lines
from loop.access.attribution_rules import AttributionRule
from loop.access.credentials import Credential
from loop.access.directory import Directory
from loop.access.verbs import ALL_VERBS
from loop.domain.content_modes import CONTENT_MODES, ContentMode
from loop.domain.organization_changes import NodeRow
from loop.domain.organization_csv import MemberRow
from loop.service.assemble import assemble
from loop.service.settings import load_settings
from tests.access.organization_rows import ADA, FIRST_DAY, NODES, small_tree
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import Body, log_body
from tests.collectors.test_screening import every_byte

IDS = [row.node_id for row in NODES]
LABELS = ["platform", "products", "checkout", "search", "cc-100", "cc-200", "acme", "nowhere", ""]
TEXT = "hello world"
# What stands in place of the text in each mode.
STORED = {"full": TEXT.encode(), "redacted": TEXT.encode(), "hashed": b"[HASHED:", "none": b"[NOT"}


def modes_of(
    settings: tuple[str, ...] = (),
    default: ContentMode = "full",
    members: dict[str, str] | None = None,
    rules: tuple[AttributionRule, ...] = (),
    **by_node: ContentMode,
) -> ContentModes:
    """Over the small tree, with a credential ``of-NODE`` for every node."""
    credentials = {
        f"of-{node_id}": Credential(f"of-{node_id}", "t", node_id, "", ALL_VERBS, "", 0, "ada")
        for node_id in IDS
    }
    directory = Directory(
        small_tree(),
        credentials,
        [MemberRow(name, node_id, FIRST_DAY) for name, node_id in (members or {}).items()],
        rules,
        content_modes={name.replace("_", "-"): mode for name, mode in by_node.items()},
    )
    by_path = parse_modes(settings, "content_modes")
    return ContentModes(default, by_path, hash_key=b"k", directory=directory)


def mode(modes: ContentModes, credential: str = "", **labels: str) -> ContentMode:
    names = {name.replace("_", "."): value for name, value in labels.items()}
    return modes.treatment(credential, lambda name: names.get(name, "")).mode


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_a_label_outside_of_the_credentials_node_chooses_no_mode(form: str) -> None:
    modes = modes_of(bu_1="none", bu_2="full", su_1="hashed")
    screen = Screen(lambda: modes)

    def stored(credential: str, label: str) -> bytes:
        body = log_body("s", prompt=TEXT, department=label)
        if form == "protobuf":
            body = Body("s", "logs", "json", body).as_protobuf()
        return screen.screen("logs", form, body, credential)  # type: ignore[arg-type]

    assert STORED["none"] in stored("of-bu-1", "products")
    assert STORED["none"] in stored("of-bu-1", "acme")
    assert STORED["hashed"] in stored("of-bu-1", "checkout")
    assert STORED["hashed"] in stored("of-su-1", "platform")
    assert STORED["full"] in stored("of-bu-2", "platform")
    assert STORED["none"] in stored("of-acme", "platform")
    assert STORED["full"] in stored("of-acme", "nowhere")


@given(
    st.dictionaries(st.sampled_from(IDS), st.sampled_from(CONTENT_MODES)),
    st.sampled_from(IDS),
    st.lists(st.sampled_from(LABELS), max_size=3),
    st.sampled_from(["ada@acme.example", ""]),
    st.sampled_from(CONTENT_MODES),
)
def test_the_mode_is_that_of_a_node_on_or_below_the_credentials(
    by_node: dict[str, ContentMode],
    node_id: str,
    labels: list[str],
    email: str,
    default: ContentMode,
) -> None:
    named = {node.replace("-", "_"): value for node, value in by_node.items()}
    modes = modes_of(default=default, members={"ada@acme.example": "su-2"}, **named)
    names = dict(zip(("department", "team_id", "cost_center"), labels, strict=False))
    chosen = mode(modes, f"of-{node_id}", user_email=email, **names)
    tree, day = small_tree(), FIRST_DAY
    possible = set()
    for below in IDS:
        if tree.is_within(below, node_id, day):
            lineage = [span.node_id for span in reversed(tree.lineage(below, day))]
            possible.add(next((by_node[node] for node in lineage if node in by_node), default))
    assert chosen in possible


def test_modes_are_inherited_and_the_nearest_node_decides() -> None:
    modes = modes_of(acme="hashed", su_1="full")
    assert mode(modes, "of-bu-1") == mode(modes, "of-cc-2") == "hashed"
    assert mode(modes, "of-cc-1") == "full"
    assert modes.of_node("cc-1", FIRST_DAY) == ("full", "su-1")
    assert modes.of_node("bu-2", FIRST_DAY) == ("hashed", "acme")
    assert modes_of(default="redacted", su_1="full").of_node("bu-2", FIRST_DAY) == (
        "redacted",
        "settings",
    )


def test_the_directory_and_the_rules_place_a_record_as_they_do_for_charges() -> None:
    rule = AttributionRule(1, (("user.email_domain", "*.example"),), "bu-1", valid_from=FIRST_DAY)
    modes = modes_of(
        members={"ada@acme.example": "su-2"}, rules=(rule,), bu_1="none", su_2="hashed"
    )
    assert mode(modes, user_email="Ada@acme.example") == "hashed"
    assert mode(modes, user_email="bob@acme.example") == "none"
    assert mode(modes, user_email="bob@acme.org") == "full"
    assert mode(modes, "of-bu-1", user_email="ada@acme.example") == "none"


def test_paths_of_the_settings_are_those_of_nodes_and_only_tighten_where_no_node_has_them() -> None:
    modes = modes_of(("checkout=none", "elsewhere=hashed"), su_2="full", acme="redacted")
    assert mode(modes, "of-cc-1") == "none"
    assert mode(modes, "of-bu-1", department="checkout") == "none"
    assert mode(modes, "of-bu-2", department="checkout") == "redacted"
    assert mode(modes, "of-cc-2", department="elsewhere") == "hashed"
    stricter = modes_of(("elsewhere=full",), acme="none")
    assert mode(stricter, "of-bu-1", department="elsewhere") == "none"


def test_session_files_are_stored_in_the_mode_of_their_credential(tmp_path: Path) -> None:
    modes = modes_of(bu_1="none")
    line = {
        "type": "user", "uuid": "u1", "sessionId": "s1", "timestamp": "2026-06-01T10:00:00.000Z",
        "department": "products", "message": {"role": "user", "content": TEXT},
    }  # fmt: skip
    with pipeline(tmp_path) as parts:
        parts.journal.screen.modes = lambda: modes
        import_lines("a.jsonl", io.BytesIO(orjson.dumps(line)), parts.journal, credential="of-bu-1")
        parts.drainer.drain_once()
        assert all(TEXT.encode() not in content for _, content in every_byte(tmp_path))
        import_lines("b.jsonl", io.BytesIO(orjson.dumps(line)), parts.journal, credential="of-bu-2")
        assert any(TEXT.encode() in content for _, content in every_byte(tmp_path))


@pytest.mark.parametrize("kind", ["decisions", "refusals", "reassembly"])
def test_what_holds_no_content_passes_in_every_mode(kind: str) -> None:
    screen = Screen(lambda: ContentModes("none"))
    body = orjson.dumps([{"reason": "too large", "records": 3}])
    assert screen.screen(kind, "json", body) == body  # type: ignore[arg-type]


def test_a_change_holds_in_other_processes_within_seconds(tmp_path: Path) -> None:
    settings = load_settings({"TURNWISE_DATA_DIR": str(tmp_path)})
    collector, other = assemble(settings), assemble(settings)
    collector.callers.start()

    def stored() -> bytes:
        return collector.journal.screen.screen("logs", "json", log_body("s", prompt=TEXT), token_id)

    try:
        node = NodeRow("acme", "acme", "org")
        other.organization.import_nodes([node], other.organization.today(), ADA)
        _, made = other.credentials.create("ci", ["ingest"], ADA, node_id="acme")
        token_id = made.token_id
        assert STORED["full"] in stored()
        assert other.content_mode_store.set_mode("acme", "hashed", ADA)
        assert not other.content_mode_store.set_mode("acme", "hashed", ADA)
        deadline = time.monotonic() + 10
        while STORED["full"] in stored() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert STORED["hashed"] in stored()
        last = other.access_log.records()[-1]
        assert (last.verb, last.subject) == ("content-mode.set", "acme")
        assert last.details == {"before": None, "after": "hashed"}
        other.access_log.verify()
    finally:
        collector.close()
        other.close()
