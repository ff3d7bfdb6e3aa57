"""Precedence: which source names the node, and that none reaches beyond the credential's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loop.access.attribution import Claims, Owner, attribute, scope_of
from loop.access.attribution_rules import AttributionRule
from loop.access.credentials import Credential
from loop.access.directory import Directory
from loop.access.verbs import ALL_VERBS
from loop.domain.organization_csv import MemberRow
from loop.domain.turns import UNATTRIBUTED
from tests.access.organization_rows import FIRST_DAY, NODES, small_tree

DAY = "2026-05-28"
IDS = [row.node_id for row in NODES]
LABELS = ["platform", "products", "checkout", "cc-100", "cc-200", "acme", "nowhere", "cc-1", ""]


def credential(node_id: str = "", developer: str = "") -> Credential:
    return Credential("t", "t", node_id, developer, ALL_VERBS, "", 0, "ada")


def directory(
    members: tuple[tuple[str, str], ...] = (),
    rules: tuple[AttributionRule, ...] = (),
    **credentials: Credential,
) -> Directory:
    rows = [MemberRow(developer, node_id, FIRST_DAY) for developer, node_id in members]
    return Directory(small_tree(), credentials, rows, rules)


def rule(**target: str) -> AttributionRule:
    return AttributionRule(1, (("user.email_domain", "ACME.example"),), **target)


def acme_lookup(name: str) -> str:
    return "acme.example" if name == "user.email_domain" else ""


def test_the_directory_comes_before_the_label_and_the_label_before_the_credential() -> None:
    known = directory((("ada", "cc-1"),), t=credential("bu-1"))
    claims = Claims(("t",), ("Ada",), ("platform", "checkout"))
    owner = attribute(known, claims, DAY)
    assert (owner.node_id, owner.attributed_by) == ("cc-1", "directory")
    assert owner.asserted_org_path == "platform/checkout"  # less than what is charged
    owner = attribute(known, Claims(("t",), ("bob",), ("platform", "checkout")), DAY)
    assert owner == Owner("bob", "acme/platform/checkout", UNATTRIBUTED, "su-1", "label")
    owner = attribute(known, Claims(("t",), ("bob",)), DAY)
    assert owner == Owner("bob", "acme/platform", UNATTRIBUTED, "bu-1", "credential")


def test_a_label_outside_of_the_credential_is_not_believed_but_stays_visible() -> None:
    known = directory((("ada", "cc-2"),), t=credential("bu-1"))
    owner = attribute(known, Claims(("t",), ("ada",), ("products", "search")), DAY)
    assert (owner.org_path, owner.attributed_by) == ("acme/platform", "credential")
    assert owner.asserted_org_path == "products/search"


def test_a_label_is_as_good_as_the_levels_that_name_a_node() -> None:
    known = directory()
    owner = attribute(known, Claims(levels=("products", "unknown team")), DAY)
    assert (owner.node_id, owner.attributed_by) == ("bu-2", "label")
    assert owner.asserted_org_path == "products/unknown team"
    assert attribute(known, Claims(levels=("CC-200",)), DAY).node_id == "cc-2"
    assert attribute(known, Claims(levels=("nowhere",)), DAY).attributed_by == "nobody"


def test_a_credential_may_name_the_developer() -> None:
    known = directory((("ada", "cc-1"), ("bob", "cc-2")), t=credential(developer="ada"))
    owner = attribute(known, Claims(("t",), ("bob",)), DAY)
    assert (owner.developer, owner.node_id) == ("ada", "cc-1")


def test_rules_fill_only_what_is_open() -> None:
    rules = (rule(node_id="cc-1", developer="ada", repository="r"),)
    known = directory((), rules, t=credential("bu-2"))
    owner = attribute(known, Claims(lookup=acme_lookup), DAY)
    assert owner == Owner("ada", "acme/platform/checkout/cc-100", "r", "cc-1", "rule")
    claims = Claims(("t",), ("bob",), repository="mine", lookup=acme_lookup)
    assert attribute(known, claims, DAY) == Owner(
        "bob", "acme/products", "mine", "bu-2", "credential"
    )
    assert attribute(known, Claims(), DAY) == Owner()
    late = directory(
        (), (AttributionRule(1, rules[0].conditions, "cc-1", valid_from="2027-01-01"),)
    )
    assert attribute(late, Claims(lookup=acme_lookup), DAY).attributed_by == "nobody"


def test_without_a_tree_the_labels_are_the_path() -> None:
    owner = attribute(Directory(), Claims((), ("ada",), ("a/b", "", "c")), DAY)
    assert owner == Owner("ada", "a-b/c", attributed_by="label")
    assert attribute(Directory(), Claims(), DAY) == Owner()


def test_a_node_that_was_not_there_yet_is_charged_nothing() -> None:
    known = directory(t=credential("bu-1"))
    owner = attribute(known, Claims(("t",), levels=("products",)), "2025-12-31")
    assert (owner.org_path, owner.attributed_by) == (UNATTRIBUTED, "nobody")
    assert owner.asserted_org_path == "products"


def test_the_first_credential_binds_and_only_one_below_it_refines() -> None:
    known = directory(
        org=credential("acme"),
        one=credential("bu-1"),
        two=credential("bu-2"),
        cc=credential("cc-1"),
    )
    assert scope_of(known, ("one", "two"), DAY).node_id == "bu-1"
    assert scope_of(known, ("two", "one"), DAY).node_id == "bu-2"
    assert scope_of(known, ("org", "one", "two", "cc"), DAY).node_id == "cc-1"
    assert scope_of(known, ("cc", "org"), DAY).node_id == "cc-1"
    assert scope_of(known, ("", "installation"), DAY).node_id == ""


@given(
    bound=st.sampled_from(["", *IDS]),
    levels=st.lists(st.sampled_from(LABELS), max_size=3),
    member=st.sampled_from(["", *IDS]),
    target=st.sampled_from(IDS),
)
def test_nothing_that_is_claimed_leads_out_of_the_credential(
    bound: str, levels: list[str], member: str, target: str
) -> None:
    known = directory((("ada", member),), (rule(node_id=target),), t=credential(bound))
    claims = Claims(("t",), ("ada",), tuple(levels), lookup=acme_lookup)
    owner = attribute(known, claims, DAY)
    assert owner.node_id
    assert known.tree.is_within(owner.node_id, bound, DAY)
    assert owner.org_path == known.tree.path(owner.node_id, DAY)
    if owner.node_id == bound:
        assert owner.attributed_by == "credential"
