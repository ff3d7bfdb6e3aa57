"""Changes of tree, directory and rules as they are stored and recorded."""

from __future__ import annotations

import pytest

from loop.access.attribution_rules import parse_rule
from loop.access.view import view_of
from loop.domain.errors import BadInput, Conflict, NotFound, Refused
from loop.domain.organization_csv import MemberRow
from tests.access.organization_rows import ADA, NODES, Access

TODAY = "2026-05-28"
YESTERDAY = "2026-05-27"


def test_a_tree_is_stored_as_it_was_imported(access: Access) -> None:
    lines = access.organization.import_nodes(NODES, TODAY, ADA)
    assert len(lines) == len(NODES)
    tree = access.organization.tree()
    assert tree.path("cc-2", TODAY) == "acme/products/search/cc-200"
    assert access.organization.import_nodes(NODES, TODAY, ADA) == []  # and no record
    moved = access.organization.change_node(
        "move", "su-2", {"parent_id": "bu-1"}, "2026-06-01", ADA
    )
    assert moved == ["acme/products/search (su-2) moves from acme/products to acme/platform."]
    tree = access.organization.tree()
    assert tree.path("cc-2", TODAY) == "acme/products/search/cc-200"
    assert tree.path("cc-2", "2026-06-01") == "acme/platform/search/cc-200"
    assert [record.verb for record in access.log.records()] == ["tree.import", "node.move"]
    assert access.log.verify() == 2


def test_the_past_changes_only_when_that_is_asked_for(access: Access) -> None:
    with pytest.raises(Refused, match="is past"):
        access.organization.import_nodes(NODES, YESTERDAY, ADA)
    access.organization.import_nodes(NODES, YESTERDAY, ADA, allow_past=True)
    with pytest.raises(Refused):
        access.organization.change_node("rename", "bu-1", {"name": "x"}, YESTERDAY, ADA)
    with pytest.raises(Refused):
        access.organization.assign_developers([MemberRow("ada", "bu-1", YESTERDAY)], ADA)
    assert access.organization.tree().path("bu-1", TODAY) == "acme/platform"
    access.organization.change_node(
        "rename", "bu-1", {"name": "x"}, YESTERDAY, ADA, allow_past=True
    )
    assert [record.details["past"] for record in access.log.records()] == [True, True]


def test_a_dry_run_says_the_same_and_writes_nothing(access: Access) -> None:
    told = access.organization.import_nodes(NODES, TODAY, ADA, dry_run=True)
    assert not access.organization.tree()
    assert access.log.version() == 0
    assert access.organization.import_nodes(NODES, TODAY, ADA) == told
    row = MemberRow("Ada@acme.example", "bu-1", TODAY)
    told = access.organization.assign_developers([row], ADA, dry_run=True)
    assert told == ["Ada@acme.example is in acme/platform from 2026-05-28 on."]
    assert access.organization.members() == []


def test_a_directory_knows_who_is_where_on_which_day(access: Access) -> None:
    access.organization.import_nodes(NODES, TODAY, ADA)
    rows = [
        MemberRow("Ada@acme.example", "su-1", TODAY),
        MemberRow("ada@acme.example", "su-2", "2026-06-10"),
        MemberRow("ada@acme.example", "", "2026-07-01"),
    ]
    access.organization.assign_developers(rows, ADA)
    directory = access.directories.current()
    where = [
        directory.node_of_developer("ADA@acme.example", day)
        for day in (YESTERDAY, TODAY, "2026-06-09", "2026-06-10", "2026-07-01")
    ]
    assert where == ["", "su-1", "su-1", "su-2", ""]
    assert directory.node_of_developer("grace", TODAY) == ""
    with pytest.raises(BadInput, match=r"line 7: there is no node nowhere"):
        access.organization.assign_developers([MemberRow("a", "nowhere", TODAY, 7)], ADA)


def test_a_node_ends_only_when_nothing_hangs_on_it(access: Access) -> None:
    access.organization.import_nodes(NODES, TODAY, ADA)
    _, credential = access.credentials.create("ci", ["ingest"], ADA, node_id="cc-1")
    access.organization.assign_developers([MemberRow("ada", "cc-1", TODAY)], ADA)
    with pytest.raises(Conflict, match="credential ci, ada are in it"):
        access.organization.close_node("cc-1", "2026-06-01", ADA)
    access.credentials.revoke(credential.token_id, ADA)
    access.organization.assign_developers([MemberRow("ada", "", "2026-06-01")], ADA)
    assert access.organization.close_node("cc-1", "2026-06-01", ADA)
    with pytest.raises(NotFound):
        access.organization.close_node("nobody", "2026-06-01", ADA)


def test_rules_are_asked_in_their_order_and_end(access: Access) -> None:
    access.organization.import_nodes(NODES, TODAY, ADA)
    document = {"match": {"user.email": "*@acme.example"}, "valid_from": "2026-01-01"}
    with pytest.raises(BadInput, match="no node cc-1 on 2026-01-01"):
        access.organization.add_rule(parse_rule(document | {"node_id": "cc-1"}), ADA)
    first = access.organization.add_rule(parse_rule(document | {"developer": "ada"}), ADA)
    second = access.organization.add_rule(parse_rule(document | {"repository": "r"}), ADA)
    assert [rule.rule_id for rule in access.organization.rules()] == [1, 2]
    assert first.words() == "Where user.email is *@acme.example: developer ada, from 2026-01-01."
    access.organization.end_rule(second.rule_id, TODAY, ADA)
    assert [rule.valid_to for rule in access.organization.rules()] == ["", TODAY]
    with pytest.raises(Conflict):
        access.organization.end_rule(second.rule_id, TODAY, ADA)
    with pytest.raises(NotFound):
        access.organization.end_rule(9, TODAY, ADA)
    assert access.log.verify() == 4


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"match": {}},
        {"match": {"a": "*"}, "node_id": "n"},
        {"match": {"a": 1}, "node_id": "n"},
        {"match": {"a": "b"}},
        {"match": {"a": "b"}, "node_id": 7},
        {"match": {"a": "b"}, "node_id": "n", "valid_from": "May"},
        {"match": {str(number): "b" for number in range(9)}, "node_id": "n"},
    ],
)
def test_what_is_no_rule_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        parse_rule({"valid_from": TODAY} | document)


def test_the_directory_is_read_again_only_when_something_changed(access: Access) -> None:
    first = access.directories.current()
    access.directories.expire()
    assert access.directories.current() is first
    access.organization.import_nodes(NODES, TODAY, ADA)
    assert access.directories.current().version == 1


def test_a_node_sees_what_was_charged_below_it_on_each_day(access: Access) -> None:
    access.organization.import_nodes(NODES, TODAY, ADA)
    access.organization.change_node("move", "su-2", {"parent_id": "bu-1"}, "2026-06-01", ADA)
    directory = access.directories.current()
    of_unit, of_other = view_of(directory, "bu-1"), view_of(directory, "bu-2")
    of_moved = view_of(directory, "su-2")
    before, after = "acme/products/search/cc-200", "acme/platform/search/cc-200"
    assert not of_unit.admits(before, TODAY)
    assert of_other.admits(before, TODAY)
    assert of_unit.admits(after, "2026-06-01")
    assert not of_other.admits(after, "2026-06-01")
    assert of_moved.admits(before, TODAY)
    assert of_moved.admits(after, "2026-06-01")
    assert not of_moved.admits(before, "2026-06-01")
    assert not of_unit.admits("acme/platforms", TODAY)
    assert not of_unit.admits("acme/platform", YESTERDAY)
    assert view_of(directory, "").admits("unattributed", TODAY)
    assert not view_of(directory, "nobody").admits("acme", TODAY)
