"""What changes something, for the API and the pages: each names who acts and why.

The stages that need scikit-learn, Optuna or the evaluators are imported where they are used: those
take long to load, and most commands never do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loop.domain.errors import BadInput, Conflict, NotFound
from loop.domain.policies import BUCKETS
from loop.domain.policy_documents import parse_policy
from loop.service import rollout_stage
from loop.service.assemble import Parts
from loop.service.documents import flag, person, reason, with_actor
from loop.service.judge_desk import JudgeDesk
from loop.service.maintenance import writing_allowed
from loop.service.readings import Readings, known_number
from routing_policies import review

SHARE_DIGITS = 4
MAX_DIGITS = 19  # of a version, as it is sent


class Actions:
    """The verbs. Each returns what the API answers."""

    def __init__(self, parts: Parts, readings: Readings) -> None:
        self._parts = parts
        self._readings = readings
        self._policy_verbs: Mapping[str, Callable[[int, dict[str, Any]], dict[str, Any]]] = {
            "gate": self._gate,
            "submit": self._submit,
            "approve": self._approve,
            "reject": self._reject,
            "publish": self._publish,
            "rollback": self._roll_back_version,
        }

    def evaluate(self, document: dict[str, Any]) -> dict[str, Any]:
        from loop.service.evaluation_stage import evaluate

        report = evaluate(self._parts, everything=flag(document, "everything"))
        return {
            "sessions": report.sessions,
            "unscored": report.unscored,
            "revision": report.revision,
        }

    def cluster(self) -> dict[str, Any]:
        from loop.service.clustering_stage import cluster_low_scoring

        with writing_allowed(self._parts.settings.data_dir) as allowed:
            if not allowed:
                raise Conflict(
                    "The lake is being maintained.",
                    why="An erasure, a restore or a retention pass is under way.",
                    fix="Try again when it has ended: `turnwise lake status` shows it.",
                )
            cluster_low_scoring(self._parts.lake, self._parts.stage_log)
        if self._parts.settings.cluster_namer:
            from loop.service.cluster_naming import name_latest_clusters

            name_latest_clusters(self._parts)
        return self._readings.list_clusters()

    def optimize(self, document: dict[str, Any]) -> dict[str, Any]:
        from loop.service.optimization_stage import start_run

        run_id = start_run(self._parts, document)
        return self._readings.show_run(run_id)

    def propose(self, document: dict[str, Any]) -> dict[str, Any]:
        policy = parse_policy(document.get("policy"))
        version = self._parts.versions.propose(
            policy, person(document), channel=self._parts.settings.channel
        )
        return self._readings.show_policy(version)

    def explore(self, document: dict[str, Any]) -> dict[str, Any]:
        """Publishes approved versions beside the active one, at random per session."""
        arms = _arms(document.get("arms"))
        publication = rollout_stage.publish_exploration(
            self._parts, arms, person(document), reason(document)
        )
        return {
            "serial": publication.serial,
            "arms": [
                {"name": arm.name, "weight": arm.weight, "policy_version": arm.policy_version}
                for arm in publication.arms
            ],
        }

    def move_policy(self, version: int, verb: str, document: dict[str, Any]) -> dict[str, Any]:
        act = self._policy_verbs.get(verb)
        if act is None:
            raise NotFound(
                f"A policy has no verb {verb!r}.", fix=f"One of {', '.join(self._policy_verbs)}."
            )
        return act(known_number(version), document)

    def steer_rollout(self, rollout_id: str, verb: str, document: dict[str, Any]) -> dict[str, Any]:
        rollout_stage.steer(self._parts, rollout_id, verb, person(document), reason(document))
        return self._readings.show_rollout(rollout_id)

    def label(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The form of a session's page. Raises :class:`NotFound` for a session that is none."""
        for row in document["rows"]:
            self._readings.show_session(row["session_id"])
        return JudgeDesk(self._parts).add_labels(with_actor(dict(document)))

    def act(
        self, verb: str, target: int | str, actor: str, reason: str, review_cycle: int | None
    ) -> object:
        """The pages' forms: a version's or a rollout's verb."""
        document = with_actor({"actor": actor, "reason": reason, "review_cycle": review_cycle})
        if isinstance(target, int):
            return self.move_policy(target, verb, document)
        return self.steer_rollout(target, verb, document)

    def _gate(self, version: int, _document: dict[str, Any]) -> dict[str, Any]:
        from loop.service.gate_stage import gate_version

        report = gate_version(self._parts, version)
        return {**report.to_document(), "lines": report.lines()}

    def _submit(self, version: int, document: dict[str, Any]) -> dict[str, Any]:
        review.submit(self._parts.versions, version, person(document), reason(document))
        return self._moved(version)

    def _approve(self, version: int, document: dict[str, Any]) -> dict[str, Any]:
        return self._decide(review.approve, version, document)

    def _reject(self, version: int, document: dict[str, Any]) -> dict[str, Any]:
        return self._decide(review.reject, version, document)

    def _decide(
        self, decision: Callable[..., object], version: int, document: dict[str, Any]
    ) -> dict[str, Any]:
        decision(
            self._parts.versions,
            version,
            person(document),
            review_cycle=self._cycle(version, document),
            reason=reason(document),
        )
        return self._moved(version)

    def _publish(self, version: int, document: dict[str, Any]) -> dict[str, Any]:
        changes = document.get("plan")
        if changes is not None and not isinstance(changes, dict):
            raise BadInput("plan must be an object: the fields of the plan that differ.")
        rollout_stage.start_rollout(
            self._parts,
            version,
            person(document),
            reason(document),
            changes=changes,
            override_quarantine=flag(document, "override_quarantine"),
        )
        return self._moved(version)

    def _roll_back_version(self, version: int, document: dict[str, Any]) -> dict[str, Any]:
        rollout_stage.roll_back_version(self._parts, version, person(document), reason(document))
        return self._moved(version)

    def _cycle(self, version: int, document: dict[str, Any]) -> int:
        """The cycle that the actor looked at; without one, the one that is under review now."""
        given = document.get("review_cycle")
        if given is None:
            return self._parts.versions.get(version).review_cycle
        if isinstance(given, bool) or not isinstance(given, int):
            raise BadInput("review_cycle must be a whole number.")
        return given

    def _moved(self, version: int) -> dict[str, Any]:
        return self._readings.show_policy(version)


def _arms(document: object) -> dict[int, float]:
    if not isinstance(document, dict) or not document:
        raise BadInput("arms must be an object of versions and their shares.")
    arms: dict[int, float] = {}
    for name, share in document.items():
        number = isinstance(share, int | float) and not isinstance(share, bool)
        version = str(name).isascii() and str(name).isdecimal() and len(str(name)) < MAX_DIGITS
        if not version or not number or not 1 / BUCKETS <= share <= 1:
            raise BadInput(f"arms: {name!r}: {share!r} is no version with a share of sessions.")
        arms[known_number(int(name))] = round(float(share), SHARE_DIGITS)
    return arms
