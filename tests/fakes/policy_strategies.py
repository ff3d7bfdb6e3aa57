"""Hypothesis strategies for policies and requests: any that ``parse_policy`` accepts."""

from __future__ import annotations

from hypothesis import strategies as st

from loop.domain.policies import (
    MEASURES,
    NUMBER_FIELDS,
    TEXT_FIELDS,
    UNITS,
    Condition,
    Estimator,
    Guards,
    RouteRequest,
    RoutingPolicy,
    Rule,
)

MODELS = ("claude-opus-4-7", "claude-haiku-4-5", "claude-sonnet-4-6")
words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
texts = st.sampled_from(["", "main", "subagent", "acme", "acme/pay", *MODELS]) | words
number_conditions = st.builds(
    Condition,
    st.sampled_from(NUMBER_FIELDS),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.integers(-10, 300_000) | st.floats(-10, 300_000, allow_nan=False),
)
text_conditions = st.builds(
    Condition, st.sampled_from(TEXT_FIELDS), st.sampled_from(["==", "!="]), texts
) | st.builds(
    Condition,
    st.sampled_from(TEXT_FIELDS),
    st.just("in"),
    st.lists(words, max_size=4).map(tuple),
)
models = st.sampled_from(["", *MODELS])


@st.composite
def policies(draw: st.DrawFn) -> RoutingPolicy:
    size = draw(st.integers(0, 6))
    rules = tuple(
        Rule(
            f"rule-{number}",
            tuple(draw(st.lists(number_conditions | text_conditions, max_size=4))),
            draw(models),
            draw(st.sampled_from(["", "low", "high"])),
        )
        for number in range(size)
    )
    return RoutingPolicy(
        name=draw(words),
        rules=rules,
        measure=draw(st.sampled_from(MEASURES)),
        unit=draw(st.sampled_from(UNITS)),
        default_model=draw(models),
        description=draw(texts),
        estimator=Estimator("chars", draw(st.floats(0.5, 20)), draw(st.integers(0, 5_000))),
        guards=Guards(
            draw(st.dictionaries(st.sampled_from(MODELS), st.integers(0, 300_000))),
            draw(st.booleans()),
            draw(st.sampled_from([0, 0, 1, 2, 3, 50])),
        ),
    )


requests = st.builds(
    RouteRequest,
    requested_model=st.sampled_from(MODELS),
    session_id=words,
    agent_id=st.sampled_from(["", "a1"]),
    agent_name=texts,
    request_class=st.sampled_from(["main", "subagent", "auxiliary"]),
    org_path=texts,
    repository=texts,
    effort=st.sampled_from(["", "low", "xhigh"]),
    turn_index=st.integers(0, 100),
    total_input_tokens=st.integers(0, 300_000),
    uncached_input_tokens=st.integers(0, 300_000),
    new_tokens=st.integers(0, 300_000),
    prompt_tokens=st.integers(0, 300_000),
    starts_user_turn=st.booleans(),
    in_tool_loop=st.booleans(),
)
