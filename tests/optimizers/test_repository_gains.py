"""Repositories are ranked by what the model matters in them, where it matters more than chance."""

from __future__ import annotations

from randomised_logs import HAIKU, OPUS, all_to, randomised_log
from turn_strategies import PRICES

from loop.domain.policies import Condition
from optimizers.off_policy import OutcomeLog
from optimizers.policy_space import PolicySpace
from optimizers.repository_gains import repository_gains


def test_a_repository_where_the_cheap_model_fails_comes_last_and_chance_ranks_none() -> None:
    log = randomised_log(70, 600)
    arm_of = {decision.session_id: decision.arm for decision in log.decisions}
    even = {name: float(int(name[1:]) % 10 != 5) for name in log.quality}
    hurt = {name: 0.3 for name in even if int(name[1:]) % 2 and arm_of[name] == "haiku"}

    def gains(quality: dict[str, float]) -> dict[str, float]:
        asked = OutcomeLog(log.frame, log.publications, quality, all_to(OPUS))
        return repository_gains(asked, all_to(HAIKU))

    found = gains(even | hurt)
    assert found["repo-0"] < 0.1 < 0.4 < found["repo-1"]
    assert gains(dict.fromkeys(even, 1.0)) == {}
    assert gains(dict(list(even.items())[:20])) == {}  # too few to say anything
    publications = log.publications.values()
    space = PolicySpace.of_log(
        log.frame, PRICES, (OPUS, HAIKU), publications=publications, repository_gains=found
    )
    assert space.repositories == ("repo-0", "repo-1")
    guess = next(g for g in space.first_guesses if g["repositories"] == "some")
    policy = space.policy(space.complete(guess))
    assert Condition("repository", "in", ("repo-0",)) in policy.rules[0].when
    assert "in 1 repository" in policy.description
