"""Random logs and policies for the property tests of the optimizers."""

from __future__ import annotations

from hypothesis import strategies as st

from loop.domain.money import Price, PriceBook, Rates, Terms
from loop.domain.policies import (
    MEASURES,
    NUMBER_FIELDS,
    UNITS,
    Condition,
    Guards,
    RoutingPolicy,
    Rule,
)
from loop.domain.turns import TokenUsage, Turn

OPUS, SONNET, HAIKU = "claude-opus-4-7", "claude-sonnet-4-6", "claude-haiku-4-5"
LATE = "priced-from-midnight"
PRICED = (OPUS, SONNET, HAIKU, LATE)
MODELS = (*PRICED, "unpriced-model")
DAY_US = 86_400_000_000
MIDNIGHT_US = 20_001 * DAY_US  # 2024-10-05, the day of a price change
START_US = MIDNIGHT_US - 20 * 60_000_000
PRICES = PriceBook(
    "test",
    [
        Price(OPUS, "2024-01-01", 6_000_000, 25_000_000, 600_000, 7_500_000, 12_000_000),
        Price(OPUS, "2024-10-05", 5_000_000, 25_000_000, 500_000, 6_250_000, 10_000_000,
              speeds=(("fast", 2_000_000),), service_tiers=(("batch", 500_000),),
              inference_geos=(("us", 1_100_000),), web_search_microusd=10_000),
        Price(SONNET, "2024-01-01", 3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000,
              60_000, Rates(6_000_000, 22_500_000, 600_000, 7_500_000, 12_000_000)),
        Price(HAIKU, "2024-01-01", 1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000,
              service_tiers=(("batch", 500_000),), web_search_microusd=10_000),
        Price(LATE, "2024-10-05", 7_000_000, 9_000_000, 400_000, 8_000_000, 9_000_000),
    ],
)  # fmt: skip

_tokens = st.one_of(st.integers(0, 400), st.integers(0, 250_000))


@st.composite
def logged_turns(draw: st.DrawFn, *, max_turns: int = 14) -> list[Turn]:
    """Turns of a few sessions, agents and requested models, with ties in time."""
    turns: list[Turn] = []
    for number in range(draw(st.integers(1, max_turns))):
        agent = draw(st.sampled_from(("", "", "", "a1", "a2")))
        request_class = "subagent" if agent else draw(
            st.sampled_from(("main", "main", "main", "auxiliary"))
        )  # fmt: skip
        model = draw(st.sampled_from(MODELS))
        usage = draw(
            st.one_of(
                st.just(TokenUsage()),
                st.builds(TokenUsage, _tokens, _tokens, _tokens, _tokens, st.just(0)),
                st.builds(TokenUsage, _tokens, _tokens, _tokens, st.just(0), _tokens),
                st.builds(TokenUsage, _tokens, _tokens, _tokens, _tokens, _tokens),
            )
        )
        terms = Terms(
            draw(st.sampled_from(("", "", "", "standard", "fast"))),
            draw(st.sampled_from(("", "", "", "standard", "batch"))),
            draw(st.sampled_from(("", "", "", "global", "us"))),
            draw(st.sampled_from((0, 0, 0, 3))),
        )
        at_us = START_US + draw(st.integers(0, 40)) * 60_000_000
        cost = PRICES.cost(model, _day(at_us), usage, terms)
        turns.append(
            Turn(
                turn_id=f"req_{number:03d}",
                request_id=f"req_{number:03d}",
                session_id=draw(st.sampled_from(("s1", "s2", "s3"))),
                started_at_us=at_us,
                ended_at_us=at_us + 1,
                sequence=draw(st.integers(0, 2)),
                agent_id=agent,
                agent_name=draw(st.sampled_from(("", "Explore"))),
                request_class=request_class,  # type: ignore[arg-type]
                org_path=draw(st.sampled_from(("acme", "acme/payments", "acmex"))),
                repository=draw(st.sampled_from(("shop", ""))),
                requested_model=draw(st.sampled_from((model, model, MODELS[0]))),
                served_model=model,
                usage=usage,
                speed=terms.speed,
                service_tier=terms.service_tier,
                inference_geo=terms.inference_geo,
                web_search_requests=terms.web_search_requests,
                prompt_chars=draw(st.one_of(st.none(), st.integers(0, 90_000))),
                starts_prompt=draw(st.booleans()),
                cost_microusd=cost.microusd,
            )
        )
    return turns


def _day(at_us: int) -> str:
    return "2024-10-04" if at_us < MIDNIGHT_US else "2024-10-05"


_conditions = st.one_of(
    st.builds(
        Condition,
        st.sampled_from(NUMBER_FIELDS),
        st.sampled_from(("<", "<=", ">", ">=", "==", "!=")),
        st.one_of(st.integers(-1, 300_000), st.integers(0, 6), st.floats(0, 3e5), st.just(10**30)),
    ),
    st.builds(
        Condition,
        st.sampled_from(("requested_model", "request_class", "agent_name", "org_path")),
        st.sampled_from(("==", "!=")),
        st.sampled_from((*MODELS, "main", "subagent", "Explore", "acme", "")),
    ),
    st.builds(
        Condition,
        st.sampled_from(("requested_model", "repository")),
        st.just("in"),
        st.lists(st.sampled_from((*MODELS, "shop")), min_size=1, max_size=3).map(tuple),
    ),
)


@st.composite
def routing_policies(draw: st.DrawFn) -> RoutingPolicy:
    rules = draw(st.lists(st.lists(_conditions, max_size=2), max_size=3))
    target = st.sampled_from((*PRICED, ""))
    return RoutingPolicy(
        name="random",
        rules=tuple(
            Rule(f"r{index}", tuple(when), draw(target), draw(st.sampled_from(("", "low"))))
            for index, when in enumerate(rules)
        ),
        measure=draw(st.sampled_from(MEASURES)),
        unit=draw(st.sampled_from(UNITS)),
        default_model=draw(target),
        guards=Guards(
            draw(st.dictionaries(st.sampled_from(MODELS), st.integers(0, 300_000), max_size=3)),
            draw(st.booleans()),
            draw(st.sampled_from((0, 0, 2, 3, 5))),
        ),
    )
