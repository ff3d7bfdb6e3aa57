"""The form by which a person labels a session, one of its claims or one of its calls.

A score is never edited: a label stands beside it, and is what judges are measured by
(``docs/judge.md``). The same said twice is one label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from loop.domain.errors import BadInput, TurnwiseError
from loop.service.web.actions import MAX_FORM_BYTES, check_same_origin
from loop.service.web.responses import SECURITY_HEADERS, path_of, render_error

AddLabel = Callable[[Mapping[str, Any]], object]
"""Takes what ``POST /v1/labels`` does, or raises a :class:`TurnwiseError`."""
VALUES = (
    ("1", "right"),
    ("0.75", "mostly right"),
    ("0.5", "half right"),
    ("0.25", "mostly wrong"),
    ("0", "wrong"),
)
WHOLE = "the session as a whole"
SOURCE = "console"
_RUBRICS = {"faithfulness": "Faithfulness", "tool_use": "Tool use"}


@dataclass(frozen=True, slots=True)
class LabelTarget:
    """What can be labelled: ``value`` is sent by the form, ``words`` are shown."""

    value: str
    words: str


def label_targets(shown: Mapping[str, Any]) -> dict[str, list[LabelTarget]]:
    """What a person may label of a shown session, by rubric: the session, the sentences that were
    judged, the calls. A call is named by turn and tool alone."""
    from evaluators.judge.questions import key_of  # no other page needs the evaluators

    findings: dict[str, list[Mapping[str, Any]]] = {
        score["evaluator"]: score["findings"] for score in shown["scores"]
    }
    # The judge's own sentences, where it was here: by those it is measured.
    claims = findings.get("judge_faithfulness") or findings.get("faithfulness") or []
    sentences = {
        key_of(finding["turn_id"], finding["claim"]): f"“{finding['claim']}”"
        for finding in claims
        if finding["turn_id"]
    }
    calls = {
        key_of(turn["turn_id"], tool["tool_use_id"]): f"turn {number}: {tool['name']}"
        for number, turn in enumerate(shown["turns"], 1)
        for tool in turn["tools"]
        if tool["tool_use_id"]
    }
    return {
        title: [
            LabelTarget(rubric, WHOLE),
            *(LabelTarget(f"{rubric}:{key}", words) for key, words in items.items()),
        ]
        for (rubric, title), items in zip(_RUBRICS.items(), (sentences, calls), strict=True)
    }


def label_words(
    shown: Mapping[str, Any], targets: Mapping[str, list[LabelTarget]]
) -> list[dict[str, Any]]:
    """The session's labels with the words of what each is on; a key that is none of the targets
    stays a key."""
    words = {target.value: target.words for group in targets.values() for target in group}
    rows = []
    for label in shown["labels"]:
        value = f"{label['rubric']}:{label['item']}" if label["item"] else label["rubric"]
        rows.append({**label, "on": words.get(value, f"item {label['item']}")})
    return rows


def label_routes(add: AddLabel) -> list[BaseRoute]:
    """``POST /sessions/{id}/labels``."""

    async def endpoint(request: Request) -> Response:
        session_id = request.path_params["session_id"]
        address = path_of("sessions", session_id)
        try:
            check_same_origin(request)
            async with request.form(max_files=0, max_fields=10) as form:
                document = _read_form(form, session_id)
            await run_in_threadpool(add, document)
        except TurnwiseError as error:
            return render_error(request, error, "sessions", back=address)
        return RedirectResponse(f"{address}#labels", 303, dict(SECURITY_HEADERS))

    path = "/sessions/{session_id:path}/labels"
    return [Route(path, endpoint, methods=["POST"], max_body_size=MAX_FORM_BYTES)]


def _read_form(form: FormData, session_id: str) -> dict[str, Any]:
    rubric, _, item = _text(form, "target").partition(":")
    row = {
        "session_id": session_id,
        "rubric": rubric,
        "item": item,
        "value": _text(form, "value"),
        "note": _text(form, "note", needed=False),
    }
    return {"actor": _text(form, "actor"), "source": SOURCE, "rows": [row]}


def _text(form: FormData, name: str, *, needed: bool = True) -> str:
    value = form.get(name)
    text = value.strip() if isinstance(value, str) else ""
    if needed and not text:
        raise BadInput(f"The {name} is missing.", fix="Fill it in: it is kept with the label.")
    return text
