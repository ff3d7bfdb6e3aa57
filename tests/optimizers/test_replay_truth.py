"""The replay of a log against what the same work really costs under the policy."""

from __future__ import annotations

import pytest
from api_simulator import Request, make_work, serve
from turn_strategies import HAIKU, SONNET

from loop.domain.policies import Condition, Guards, RoutingPolicy, Rule
from loop.ledger.prices import load_price_book
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_frame import TurnFrame

PRICES = load_price_book()
AS_REQUESTED = RoutingPolicy("as requested", ())
FACTS = ReplayAssumptions(blocks_per_turn=2.3)  # what the turns of this work add; no log says it


def to(model: str, unit: str, *when: Condition, lock: bool = True) -> RoutingPolicy:
    return RoutingPolicy(
        f"{model} {unit}", (Rule("rule", when, model),), unit=unit, guards=Guards({}, lock)
    )  # type: ignore[arg-type]


SMALL = Condition("input_tokens", "<", 45_000)
LARGE = Condition("input_tokens", ">", 45_000)
TO_AND_FRO = tuple(
    Rule(f"r{n}", (Condition("turn_index", "==", n),), HAIKU) for n in range(2, 50, 5)
)
POLICIES = [
    to(HAIKU, "session"),
    to(HAIKU, "agent", Condition("request_class", "==", "subagent")),
    to(HAIKU, "request", SMALL, lock=False),
    to(HAIKU, "user_turn", SMALL),
    to(SONNET, "user_turn", LARGE),
    to(HAIKU, "request", LARGE, lock=False),
    RoutingPolicy("to and fro", TO_AND_FRO, unit="request", guards=Guards({}, False)),
    RoutingPolicy("in runs of six", TO_AND_FRO, unit="request", guards=Guards({}, False, 6)),
    RoutingPolicy(
        "long stretches",
        tuple(
            Rule(
                f"r{n}", (Condition("turn_index", ">=", n), Condition("turn_index", "<", n + 9)), m
            )
            for n, m in ((4, HAIKU), (20, SONNET), (35, HAIKU))
        ),
        unit="request",
        guards=Guards({}, tool_loop_lock=False),
    ),
]


@pytest.fixture(scope="module", params=[False, True], ids=["own system", "shared system"])
def work(request: pytest.FixtureRequest) -> list[Request]:
    return make_work(7, shares_system=request.param)


@pytest.fixture(scope="module")
def replayer(work: list[Request]) -> Replayer:
    """Of the log that the work left when every request went to Opus, as asked."""
    return Replayer(TurnFrame.from_turns(serve(work, AS_REQUESTED, PRICES)), PRICES, FACTS)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_replay_is_within_two_percent_of_what_the_policy_would_cost(
    policy: RoutingPolicy, work: list[Request], replayer: Replayer
) -> None:
    truth = sum(turn.cost_microusd or 0 for turn in serve(work, policy, PRICES))
    result = replayer.replay(policy)
    assert result.unpriced_turns == 0
    assert result.rerouted_turns > 0
    assert result.candidate_cost_microusd == pytest.approx(truth, rel=0.02)


def test_the_incumbent_replays_to_what_it_cost(work: list[Request], replayer: Replayer) -> None:
    truth = sum(turn.cost_microusd or 0 for turn in serve(work, AS_REQUESTED, PRICES))
    assert replayer.replay(AS_REQUESTED).candidate_cost_microusd == truth


def test_a_replay_that_let_caches_move_along_would_be_far_off(
    work: list[Request], replayer: Replayer
) -> None:
    """Or else the tests above would hold for a replay without caches, too."""
    stretches = POLICIES[-1]
    truth = sum(turn.cost_microusd or 0 for turn in serve(work, stretches, PRICES))
    assert replayer.replay(stretches).naive_cost_microusd < 0.75 * truth
