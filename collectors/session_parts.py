"""Incremental assembly: of a session that grows, only the parts that new events belong to.

Assembling a session is a pure function of the set of its events, and it takes as long as the
session is. But events meet only where they name the same thing: a request, a tool call, a prompt,
a trace, an agent. So a session's events fall into *parts* (connected by what they name), and
assembling each part alone gives the same turns and texts as assembling all of them: that is what
the tests hold this module to. Adding events costs what their parts cost, whatever else is there.

What looks at a session as a whole is kept out: a session is *whole*, and assembled as such, once it
has a transcript, a raw body, an outcome that names no request (it is paired by time), records under
several credentials, or records that disagree about who works where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from collectors.attribution import Attribution, EqualOwners, NamedOwner, Owners
from collectors.claude_code_turns import AssembledSession, assemble, assemble_metered
from collectors.conventions.convention_turns import is_foreign
from collectors.event_fields import integer, text
from collectors.event_identity import identity_hash, ruling_events
from collectors.metric_turns import is_told, told_ends
from collectors.raw_bodies import context_results
from collectors.session_facts import (
    BLOCKED,
    INTERACTION,
    LLM_REQUEST,
    OUTCOMES,
    TOOL,
    TOOL_EXECUTION,
)
from collectors.token_metrics import DELTA, METERED
from loop.domain.turns import Content, Event, Turn

_ANSWER, _PROMPT = "claude_code.assistant_response", "claude_code.user_prompt"
_TOOL_LOGS = ("claude_code.tool_decision", "claude_code.tool_result")
_AGENT_ENDED = "claude_code.subagent_completed"
_READ_LOGS = frozenset((*OUTCOMES, _ANSWER, _PROMPT, *_TOOL_LOGS, _AGENT_ENDED))
_READ_SPANS = frozenset((LLM_REQUEST, TOOL, TOOL_EXECUTION, BLOCKED, INTERACTION))
_RAW_BODIES = ("claude_code.api_request_body", "claude_code.api_response_body")
_NAMES_REQUEST = frozenset((*OUTCOMES, _ANSWER))
_NO_PROMPT = "p:"
_LATE_US = 1 << 53  # after every event that can be stored
_NOTHING = -1  # what an event says of its owner that is not looked at


@dataclass(slots=True)
class SessionChanges:
    """What differs since the last time: all turns and texts of the turn ids in ``listed`` (``""``
    for the texts of no turn); what is listed and not there is gone."""

    turns: list[Turn]
    contents: list[Content]
    listed: set[str]
    ends_moved: bool = False  # a turn of before is gone, or ended at another time


@dataclass(slots=True)
class _Part:
    events: list[Event] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    turns: dict[str, Turn] = field(default_factory=dict)
    contents: dict[str, list[Content]] = field(default_factory=dict)
    are_distinct: bool = True  # no two of the events are of one identity
    said: set[int] = field(default_factory=set)  # what they say of their owner


class SessionParts:
    """The parts of one session. ``whole`` says that it can't be parted, and stays true."""

    def __init__(self, attribution: Attribution) -> None:
        self.whole = False
        self._attribution = attribution
        self._parts: dict[int, _Part] = {}
        self._part_of: dict[str, int] = {}
        self._changed: set[int] = set()
        self._numbers = count()
        self._claims = _Claims(attribution)
        self._metered = _Metered()

    def add(self, event: Event, identity: int | None = None, *, is_distinct: bool = False) -> None:
        """Adds an event that was not added before.

        Where they are known already: ``identity``, a number that is equal for events of one
        identity, and ``is_distinct``, that none of its identity was added before.
        """
        if self.whole:
            return
        if is_foreign(event):
            self.become_whole()
            return
        before = self._claims.events
        said = self._claims.add(event)
        if said is None:
            self.become_whole()
            return
        if self._claims.events is not before:
            # What the session knows of itself fills in what a turn's own records leave open.
            self._changed.update(self._parts)
            self._metered.change_all()
        keys = keys_of(event, identity_hash(event) if identity is None else identity)
        if keys is None:
            self.become_whole()
        elif keys:
            part = self._place(event, keys)
            part.are_distinct = part.are_distinct and is_distinct
            if said != _NOTHING:
                part.said.add(said)
        if event.kind == "decision" or (event.kind == "metric" and event.name in METERED):
            self._metered.add(event)

    def take_changes(self) -> SessionChanges:
        """Assembles the parts that changed. Raises what assembly raises for odd data."""
        changes = SessionChanges([], [], set())
        for number in sorted(self._changed):
            part = self._parts[number]
            events = [*part.events, *self._claims.events]
            assembled = assemble(
                events,
                self._attribution,
                owners=self._claims.owners_of(part.said),
                are_distinct=part.are_distinct,
            )
            self._compare(part, assembled, changes)
        self._changed.clear()
        if self._metered.depends_on(changes):
            ended = told_ends(turn for part in self._parts.values() for turn in part.turns.values())
            self._metered.take_changes(ended, self._claims.events, self._attribution, changes)
        if "" in changes.listed:
            changes.contents += [
                content for part in self._parts.values() for content in part.contents.get("", ())
            ]
        return changes

    def everything(self) -> AssembledSession:
        """All turns and texts as of the last :meth:`take_changes`."""
        parts = self._parts.values()
        return AssembledSession(
            (*(turn for part in parts for turn in part.turns.values()), *self._metered.turns()),
            tuple(text for part in parts for texts in part.contents.values() for text in texts),
        )

    @staticmethod
    def _compare(part: _Part, assembled: AssembledSession, changes: SessionChanges) -> None:
        turns = {turn.turn_id: turn for turn in assembled.turns}
        contents: dict[str, list[Content]] = {}
        for content in assembled.contents:
            contents.setdefault(content.turn_id, []).append(content)
        for turn_id in part.turns.keys() | part.contents.keys() | turns.keys() | contents.keys():
            turn, texts = turns.get(turn_id), contents.get(turn_id)
            if turn == part.turns.get(turn_id) and texts == part.contents.get(turn_id):
                continue
            changes.listed.add(turn_id)
            before = part.turns.get(turn_id)
            if before is not None and (
                turn is None
                or (turn.ended_at_us, turn.usage_source)
                != (before.ended_at_us, before.usage_source)
            ):
                changes.ends_moved = True
            if turn is not None:
                changes.turns.append(turn)
            if texts is not None and turn_id:
                changes.contents += texts
        part.turns, part.contents = turns, contents

    def _place(self, event: Event, keys: Iterable[str]) -> _Part:
        number_of = self._part_of.get
        numbers = {number for key in keys if (number := number_of(key)) is not None}
        if len(numbers) == 1:
            (number,) = numbers
        elif numbers:
            number = max(numbers, key=lambda number: len(self._parts[number].events))
            for other in numbers - {number}:
                self._join(number, other)
        else:
            number = next(self._numbers)
            self._parts[number] = _Part()
        part = self._parts[number]
        part.events.append(event)
        for key in keys:
            if key not in self._part_of:
                self._part_of[key] = number
                part.keys.append(key)
        self._changed.add(number)
        return part

    def _join(self, number: int, other: int) -> None:
        part, joined = self._parts[number], self._parts.pop(other)
        self._changed.discard(other)
        part.events += joined.events
        part.keys += joined.keys
        part.are_distinct = part.are_distinct and joined.are_distinct
        part.said |= joined.said
        for key in joined.keys:
            self._part_of[key] = number
        part.turns |= joined.turns
        for turn_id, texts in joined.contents.items():
            part.contents[turn_id] = part.contents.get(turn_id, []) + texts

    def become_whole(self) -> None:
        """From now on the session is assembled whole."""
        self.whole = True
        self._parts.clear()
        self._part_of.clear()
        self._changed.clear()


def keys_of(event: Event, identity: int) -> set[str] | None:
    """What an event names, such that events without a common name never meet in assembly. Empty
    for an event that no turn depends on; ``None`` for one that may meet any other."""
    if event.kind == "metric":
        return set()
    if event.kind == "log":
        return _keys_of_log(event, identity)
    if event.kind == "span":
        return _keys_of_span(event)
    if event.kind == "decision":
        return {f"r:{text(event, 'decision_id')}"}
    return None


def _keys_of_log(event: Event, identity: int) -> set[str] | None:
    name = event.name
    if name in _RAW_BODIES or not name.startswith("claude_code."):
        return None
    on_span = text(event, "otel.span_id")
    if name not in _READ_LOGS and not on_span:
        return set()
    keys = _named(event)
    if on_span:
        trace_id = text(event, "otel.trace_id")
        if not trace_id:
            return None
        keys.add(f"t:{trace_id}")
    if name in _NAMES_REQUEST and not text(event, "request_id"):
        return None
    if prompt_id := text(event, "prompt.id"):
        keys.add(f"p:{prompt_id}")
    elif name == _PROMPT:
        keys.add(f"p:{text(event, 'message.uuid') or event.event_id}")
    else:
        keys.add(_NO_PROMPT)
    if name != OUTCOMES[0]:  # records that disagree are compared with each other
        keys.add(f"i:{identity}")
    return keys


def _keys_of_span(event: Event) -> set[str] | None:
    trace_id = text(event, "otel.trace_id")
    if not trace_id or not text(event, "otel.span_id") or not event.name.startswith("claude_code."):
        return None
    keys = _named(event)
    keys.add(f"t:{trace_id}")
    if event.name == LLM_REQUEST:
        keys.update(f"u:{result.tool_use_id}" for result in context_results(event))
    return keys


def _named(event: Event) -> set[str]:
    value_of = event.attributes.get
    return {
        mark + value
        for mark, name in _NAMES
        if (value := value_of(name)) and isinstance(value, str)
    }


_NAMES = (
    ("r:", "request_id"),
    ("r:", "gen_ai.response.id"),
    ("u:", "tool_use_id"),
    ("u:", "gen_ai.tool.call.id"),
    ("a:", "agent_id"),
)


class _Metered:
    """Turns from metric points, which stand only for intervals in which no other turn ended.

    Points of different times of ending never meet while they count what was new since the last;
    running sums do, so with one of these all points are one group.
    """

    def __init__(self) -> None:
        self._groups: dict[int, list[Event]] = {}
        self._turns: dict[int, dict[str, Turn]] = {}
        self._decisions: list[Event] = []
        self._changed: set[int] = set()
        self._has_sums = False

    def add(self, event: Event) -> None:
        if event.kind == "decision":
            self._decisions.append(event)
            self._changed.update(number for number, turns in self._turns.items() if turns)
            return
        if not self._has_sums and integer(event, "otel.temporality") != DELTA:
            self._has_sums = True
            self._groups = {0: [one for group in self._groups.values() for one in group]}
            self._turns = {0: {key: turn for turns in self._turns.values()
                               for key, turn in turns.items()}}  # fmt: skip
            self._changed = set()
        number = 0 if self._has_sums else event.at_us
        self._groups.setdefault(number, []).append(event)
        self._changed.add(number)

    def change_all(self) -> None:
        self._changed.update(self._groups)

    def turns(self) -> Iterator[Turn]:
        for turns in self._turns.values():
            yield from turns.values()

    def depends_on(self, changes: SessionChanges) -> bool:
        """Whether anything may be different after those changes of other turns."""
        if changes.ends_moved:
            self.change_all()
        elif changes.turns:  # an interval that made no turn makes none after more have ended
            self._changed.update(number for number, turns in self._turns.items() if turns)
        return bool(self._changed)

    def take_changes(
        self,
        ended: list[int],
        claims: Iterable[Event],
        attribution: Attribution,
        changes: SessionChanges,
    ) -> None:
        decisions = ruling_events(self._decisions)
        for number in sorted(self._changed):
            found: dict[str, Turn] = {}
            if not self._is_told(number, ended):
                points = sorted(
                    ruling_events(self._groups[number]),
                    key=lambda event: (event.at_us, event.event_id),
                )
                events = [*points, *decisions, *claims]
                metered = assemble_metered(events, ended, attribution)
                found = {turn.turn_id: turn for turn in metered}
            before = self._turns.get(number, {})
            for turn_id in before.keys() | found.keys():
                if before.get(turn_id) != found.get(turn_id):
                    changes.listed.add(turn_id)
                    if turn_id in found:
                        changes.turns.append(found[turn_id])
            self._turns[number] = found
        self._changed.clear()

    def _is_told(self, number: int, ended: list[int]) -> bool:
        """Whether a turn ended in the shortest interval of a group's points, and so in all."""
        if self._has_sums:
            return False
        starts = [integer(event, "otel.started_at_us") or number for event in self._groups[number]]
        return is_told(min(max(starts), number), number, ended)


class _Claims:
    """Whom a session's records name as its owner, as long as they agree."""

    def __init__(self, attribution: Attribution) -> None:
        self._owner = NamedOwner(attribution)
        self._names = self._owner.attributes
        self._credential: str | None = None
        self._attribution = attribution
        self._resource: Mapping[str, object] | None = None
        self._by_resource: dict[tuple[object, ...], dict[tuple[object, ...], int]] = {}
        self._numbers: dict[tuple[object, ...], int] = {}  # by what is said beside the resource
        self._claims: list[Event] = []  # by number
        self._owners: dict[int, Owners] = {}
        self.events: tuple[Event, ...] = ()
        """Say whom the records name and nothing else: for a part whose own events do not."""

    def add(self, event: Event) -> int | None:
        """A number for what the event says of its owner, equal for all that say the same; ``None``
        where it disagrees with those before it."""
        if self._credential is None:
            self._credential = event.credential
        elif event.credential != self._credential:
            return None
        if event.kind == "decision":
            return _NOTHING
        attributes, resource = event.attributes, event.resource
        if resource is not self._resource:  # one resource speaks for many records
            said = tuple(map(resource.get, self._names))
            try:
                self._numbers = self._by_resource.setdefault(said, {})
            except TypeError:  # a list where a text should be
                return None
            self._resource = resource
        said = tuple(map(attributes.get, self._names))
        try:
            number = self._numbers.get(said)
        except TypeError:
            return None
        if number is not None:
            return number
        number = self._numbers[said] = len(self._claims)
        claim = replace(
            event,
            event_id=f"claim {number}",
            kind="log",
            name="",
            at_us=_LATE_US,
            attributes={name: attributes[name] for name in self._names if name in attributes},
            resource={name: resource[name] for name in self._names if name in resource},
        )
        self._claims.append(claim)
        is_first = self._owner.takes(claim)
        if is_first:
            self.events = (*self.events, claim)
            self._owners.clear()
        return None if is_first is None else number

    def owners_of(self, said: set[int]) -> Owners | None:
        """The owners of turns whose records say that of them; ``None`` where it is not one
        thing."""
        if len(said) != 1:
            return None
        (number,) = said
        owners = self._owners.get(number)
        if owners is None:
            owners = EqualOwners(self._claims[number], self.events, self._attribution)
            self._owners[number] = owners
        return owners
