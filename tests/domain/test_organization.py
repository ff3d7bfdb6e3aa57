"""The tree of an organization: what changes, from which day, and what never does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput, Conflict, NotFound, TurnwiseError
from loop.domain.organization import KINDS, NodeSpan, OrganizationTree, check_day
from loop.domain.organization_changes import (
    NodeRow,
    add_nodes,
    change_node,
    close_node,
    describe_change,
)
from loop.domain.organization_csv import read_members, read_nodes, write_nodes
from tests.access.organization_rows import FIRST_DAY, NODES, small_tree

DAYS = [f"2026-{month:02d}-{day:02d}" for month in (1, 2, 3) for day in (1, 11, 21)]
IDS = [row.node_id for row in NODES]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, str, str, str]]:
    """Changes to try, in order of their days: (verb, node, value, day)."""
    count = draw(st.integers(1, 8))
    days = sorted(draw(st.lists(st.sampled_from(DAYS), min_size=count, max_size=count)))
    return [
        (
            draw(st.sampled_from(["parent_id", "name", "owner", "close"])),
            draw(st.sampled_from(IDS)),
            draw(st.sampled_from([*IDS, "x", "y", "z"])),
            day,
        )
        for day in days
    ]


def applied(tree: OrganizationTree, change: tuple[str, str, str, str]) -> OrganizationTree:
    verb, node_id, value, day = change
    try:
        if verb == "close":
            return close_node(tree, node_id, day)
        return change_node(tree, node_id, {verb: value}, day)
    except TurnwiseError:
        return tree


def said(tree: OrganizationTree, node_id: str, day: str) -> NodeSpan:
    """What is said of a node on a day, without the days on which it begins and ends."""
    node = tree.node(node_id, day)
    assert node is not None
    return replace(node, valid_from="", valid_to="")


@settings(max_examples=40)
@given(histories())
def test_a_change_leaves_every_earlier_day_as_it_was(
    changes: list[tuple[str, str, str, str]],
) -> None:
    tree = small_tree()
    for change in changes:
        after = applied(tree, change)
        for day in [day for day in DAYS if day < change[3]]:
            assert after.on(day).keys() == tree.on(day).keys()
            for node_id in tree.on(day):
                assert after.path(node_id, day) == tree.path(node_id, day)
                assert said(after, node_id, day) == said(tree, node_id, day)
        assert after.check() is after
        tree = after


@settings(max_examples=40)
@given(histories())
def test_a_path_has_the_names_of_its_lineage_and_names_one_node(
    changes: list[tuple[str, str, str, str]],
) -> None:
    tree = small_tree()
    for change in changes:
        tree = applied(tree, change)
    for day in DAYS:
        paths = [tree.path(node_id, day) for node_id in tree.on(day)]
        assert len(set(paths)) == len(paths)
        for node_id in tree.on(day):
            line = tree.lineage(node_id, day)
            path = tree.path(node_id, day)
            assert path == "/".join(node.name for node in line)
            assert 1 <= len(line) <= len(KINDS)
            assert tree.named(node_id, day)
            assert node_id in tree.named(path, day)
            for above in line:
                assert tree.is_within(node_id, above.node_id, day)
                over = tree.path(above.node_id, day)
                assert f"{path}/".startswith(f"{over}/")


@settings(max_examples=40)
@given(histories())
def test_the_paths_of_a_node_cover_the_days_on_which_it_is_in_force(
    changes: list[tuple[str, str, str, str]],
) -> None:
    tree = small_tree()
    for change in changes:
        tree = applied(tree, change)
    for node_id in IDS:
        for day in ["2025-12-31", *DAYS]:
            said = [
                span.path
                for span in tree.paths_of(node_id)
                if span.valid_from <= day and (not span.valid_to or day < span.valid_to)
            ]
            assert said == ([tree.path(node_id, day)] if tree.path(node_id, day) else [])


def test_a_move_holds_from_its_day_on() -> None:
    tree = change_node(small_tree(), "su-1", {"parent_id": "bu-2"}, "2026-03-01")
    assert tree.path("cc-1", "2026-02-28") == "acme/platform/checkout/cc-100"
    assert tree.path("cc-1", "2026-03-01") == "acme/products/checkout/cc-100"
    assert [span.valid_to for span in tree.spans_of("su-1")] == ["2026-03-01", ""]


def test_a_change_holds_until_the_next_change_of_the_same_field() -> None:
    tree = change_node(small_tree(), "su-1", {"parent_id": "bu-2"}, "2026-03-01")
    tree = change_node(tree, "su-1", {"name": "basket"}, "2026-02-01")
    assert tree.path("su-1", "2026-01-31") == "acme/platform/checkout"
    assert tree.path("su-1", "2026-02-01") == "acme/platform/basket"
    assert tree.path("su-1", "2026-03-01") == "acme/products/basket"
    tree = change_node(tree, "su-1", {"name": "cart"}, "2026-01-11")
    assert tree.path("su-1", "2026-01-11") == "acme/platform/cart"
    assert tree.path("su-1", "2026-02-01") == "acme/platform/basket"


def test_what_is_no_tree_is_refused_with_every_fault() -> None:
    tree = small_tree()
    with pytest.raises(BadInput, match="can't lie under a cost_center"):
        change_node(tree, "su-1", {"parent_id": "cc-2"}, FIRST_DAY)
    with pytest.raises(BadInput, match="both called 'products'"):
        change_node(tree, "bu-1", {"name": "Products"} | {"name": "products"}, FIRST_DAY)
    with pytest.raises(BadInput, match=r"nowhere.*is not there"):
        change_node(tree, "bu-1", {"parent_id": "nowhere"}, FIRST_DAY)
    for name in ("", " ", "a/b", "=1+1", "-1", "a\nb", "unattributed", "x" * 101):
        with pytest.raises(BadInput, match="name"):
            change_node(tree, "bu-1", {"name": name}, FIRST_DAY)
    with pytest.raises(NotFound):
        change_node(tree, "bu-1", {"name": "x"}, "2025-12-31")
    twice = [NodeSpan("a", "a", "org", "", "", day) for day in ("2026-01-01", "2026-02-01")]
    with pytest.raises(BadInput, match="two things"):
        OrganizationTree(twice).check()


def test_a_node_ends_only_with_nothing_below_it() -> None:
    tree = small_tree()
    with pytest.raises(Conflict, match="cc-1"):
        close_node(tree, "su-1", "2026-02-01")
    tree = close_node(close_node(tree, "cc-1", "2026-02-01"), "su-1", "2026-02-01")
    assert tree.path("su-1", "2026-01-31") == "acme/platform/checkout"
    assert tree.path("su-1", "2026-02-01") == ""
    again = add_nodes(tree, [NodeRow("su-1", "checkout", "sub_unit", "bu-2")], "2026-03-01")
    assert again.path("su-1", "2026-02-15") == ""
    assert again.path("su-1", "2026-03-01") == "acme/products/checkout"


def test_a_change_reads_in_words() -> None:
    before = small_tree()
    rows = [
        NodeRow("su-1", "basket", "sub_unit", "bu-2"),
        NodeRow("cc-9", "cc-900", "cost_center", "su-1"),
    ]
    after = add_nodes(before, rows, "2026-02-01")
    assert describe_change(before, after, "2026-02-01") == [
        "acme/products/basket/cc-900 (cc-9) is new: a cost center.",
        "acme/platform/checkout (su-1) moves from acme/platform to acme/products.",
        "acme/platform/checkout (su-1) is called basket.",
        "acme/platform/checkout (su-1) belongs to nobody.",
    ]
    assert describe_change(before, before, "2026-02-01") == []


@settings(max_examples=40)
@given(histories())
def test_an_export_imports_as_no_change(changes: list[tuple[str, str, str, str]]) -> None:
    tree = small_tree()
    for change in changes:
        tree = applied(tree, change)
    day = "2026-03-22"
    again = add_nodes(tree, read_nodes(write_nodes(tree, day)), day)
    assert again.spans == tree.spans
    fresh = add_nodes(OrganizationTree(), read_nodes(write_nodes(tree, day)), day)
    assert write_nodes(fresh, day) == write_nodes(tree, day)


def test_faults_of_a_file_are_named_by_line() -> None:
    with pytest.raises(BadInput, match=r"name is missing, 'title' is unknown"):
        read_nodes("node_id,title,kind,parent_id\n")
    with pytest.raises(BadInput, match=r"line 3: 'team' is no kind.*line 4: node_id and name"):
        read_nodes("node_id,name,kind,parent_id\na,a,org,\nb,b,team,a\n,x,org,\n")
    with pytest.raises(BadInput, match="line 2: it has not 4 cells"):
        read_nodes("node_id,name,kind,parent_id\na,a,org\n")
    with pytest.raises(BadInput, match="line 1"):
        add_nodes(OrganizationTree(), [NodeRow("a", "a", "org", line=1)] * 2, FIRST_DAY)
    rows = read_nodes("node_id,name,kind,parent_id\na,a,org,\nb,b,sub_unit,c\n")
    with pytest.raises(BadInput, match=r"b is line 3"):
        add_nodes(OrganizationTree(), rows, FIRST_DAY)
    with pytest.raises(BadInput, match="line 2: from='May' is no day"):
        read_members("developer,node_id,from\nada,a,May\n", FIRST_DAY)
    members = read_members("\ufeffdeveloper,node_id\nada,a\n", FIRST_DAY)
    assert [(row.developer, row.valid_from) for row in members] == [("ada", FIRST_DAY)]


@pytest.mark.parametrize("text", ["", "2026-1-1", "20260101", "2026-02-30", "today"])
def test_only_days_are_days(text: str) -> None:
    with pytest.raises(BadInput):
        check_day(text)
