"""Pauses of used-up budgets as gateways pull them, and which requests they stop.

A gateway knows of a request what its headers and its body say: an organization path, a developer,
a repository (headers that the customer's clients are told to send), the client's device and
session ids, the model. A pause lists what it stops in these terms; the service, which knows whose
devices and sessions these are, writes the lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loop.domain.budgets import is_below

MAX_LISTED = 5_000
"""The most devices or sessions of one pause: what gateways pull must stay small."""


@dataclass(frozen=True, slots=True)
class Requester:
    """Who a request says it is from; "" where it does not say."""

    org_path: str = ""
    developer: str = ""
    repository: str = ""
    device_id: str = ""
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class BudgetPause:
    """One used-up budget. ``message`` is what the developer reads.

    ``org_path`` and ``repository`` stop what says that it is theirs; a request that says nothing
    is known by its device or session.
    """

    budget_id: str
    message: str
    everything: bool = False
    org_path: str = ""
    developer: str = ""
    repository: str = ""
    model: str = ""
    device_ids: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Without what is empty."""
        document: dict[str, Any] = {"budget_id": self.budget_id, "message": self.message}
        for name in ("everything", "org_path", "developer", "repository", "model"):
            if getattr(self, name):
                document[name] = getattr(self, name)
        for name in ("device_ids", "session_ids"):
            if getattr(self, name):
                document[name] = list(getattr(self, name))
        return document

    def stops(self, requester: Requester, routed_model: str) -> bool:
        """Whether it stops a request that would go to that model."""
        if self.everything or (self.model and self.model == routed_model):
            return True
        if self.org_path and requester.org_path:
            return is_below(requester.org_path, self.org_path)
        if self.developer and requester.developer:
            return requester.developer == self.developer
        if self.repository and requester.repository:
            return requester.repository == self.repository
        return (requester.device_id != "" and requester.device_id in self.device_ids) or (
            requester.session_id != "" and requester.session_id in self.session_ids
        )


def find_pause(
    pauses: Sequence[BudgetPause], requester: Requester, routed_model: str
) -> BudgetPause | None:
    """The first pause that stops a request."""
    return next((pause for pause in pauses if pause.stops(requester, routed_model)), None)
