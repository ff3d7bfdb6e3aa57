"""Messages of requests and answers, in every form that the conventions write them.

- the OTel form: ``[{"role", "parts": [{"type": "text", "content"}, {"type": "tool_call", …}]}]``,
- OpenAI's: ``{"role", "content", "tool_calls": [{"id", "function": {"name", "arguments"}}]}`` and
  ``{"role": "tool", "tool_call_id", "content"}``,
- OpenAI's Responses: items of ``function_call`` and ``function_call_output`` beside messages,
- Anthropic's: ``content`` as blocks of ``text``, ``tool_use`` and ``tool_result``,
- indexed attributes: ``llm.input_messages.0.message.role`` and the like.

Parts that are neither texts nor tools (images, audio, reasoning) are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from collectors.conventions.convention import AskedTool, GivenResult, Message, Text
from collectors.event_fields import state_of
from loop.domain.turns import EvidenceState

_MAX_ITEMS = 10_000
_REDACTED = ("__REDACTED__", "[REDACTED]", "redacted-by-litellm")
_WRAPPERS = ("message", "message_content", "tool_call")
_TEXT_TYPES = ("text", "input_text", "output_text")
_CALL_TYPES = ("tool_call", "tool_use", "function_call")
_RESULT_TYPES = ("tool_call_response", "tool_result", "function_call_output")
# Items of OpenAI's Responses API stand beside messages, without a role.
_ITEM_ROLES = {"function_call": "assistant", "function_call_output": "tool"}


def parse_json(value: Any) -> Any:
    """JSON text parsed; anything else, and a text that is no JSON, is returned as it is."""
    if not isinstance(value, str) or value[:1] not in '[{"':
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def told_text(value: Any) -> Text | None:
    """A value as text (JSON where it is no text) with its state; ``None`` for nothing."""
    if value is None or value == "":
        return None
    content = value if isinstance(value, str) else _dump(value)
    if content in _REDACTED:
        return Text("", "redacted")
    state: EvidenceState = state_of(content)
    return Text("" if state == "redacted" else content, state)


def read_messages(value: Any) -> tuple[Message, ...]:
    """The messages of a list, of its JSON text, or of one message alone."""
    value = parse_json(value)
    if isinstance(value, Mapping):
        inner = value.get("output")  # an answer of OpenAI's Responses API
        value = inner if isinstance(inner, list) and "role" not in value else [value]
    if not isinstance(value, list):
        return ()
    messages = (_message(item) for item in value[:_MAX_ITEMS] if isinstance(item, Mapping))
    return tuple(message for message in messages if message is not None)


def read_indexed(attributes: Mapping[str, Any], prefix: str) -> tuple[Message, ...]:
    """The messages of indexed attributes below a prefix such as ``llm.input_messages``."""
    return read_messages(nested(attributes, prefix))


def nested(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """Indexed attributes as the list that they spell: ``p.0.a.b`` is ``[{"a": {"b": …}}]``."""
    root: dict[Any, Any] = {}
    start = prefix + "."
    for name in sorted(attributes):
        if not name.startswith(start):
            continue
        node, path = root, name[len(start) :].split(".")
        if len(path) > 12 or not path[0].isdecimal():
            continue
        for key in path[:-1]:
            child = node.setdefault(_key(key), {})
            if not isinstance(child, dict):
                child = node[_key(key)] = {}
            node = child
        if not isinstance(node.get(_key(path[-1])), dict):
            node[_key(path[-1])] = attributes[name]
    listed = _listed(root)
    return listed if isinstance(listed, list) else []


def _key(part: str) -> str | int:
    return int(part) if part.isdecimal() and len(part) < 6 else part


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(key, int) for key in node):
        return [_listed(node[key]) for key in sorted(node)]
    return {key: _listed(value) for key, value in node.items()}


def _message(item: Mapping[str, Any]) -> Message | None:
    item = _unwrapped(item)
    if item.get("type") in _ITEM_ROLES and "role" not in item:
        item = {"role": _ITEM_ROLES[item["type"]], "parts": [item]}
    role = item.get("role")
    role = role.lower() if isinstance(role, str) else ""
    texts: list[Text] = []
    asked: list[AskedTool] = []
    results: list[GivenResult] = []
    call_id = item.get("tool_call_id") or (item.get("id") if role == "tool" else None)
    if isinstance(call_id, str) and call_id and "parts" not in item:
        if (output := told_text(_flat(item.get("content")))) is not None:
            results.append(GivenResult(call_id, output, _flag(item.get("is_error"))))
    else:
        for part in _parts(item):
            _read_part(part, texts, asked, results)
    for call in _items(item.get("tool_calls")):
        if (tool := _asked(_unwrapped(call))) is not None and tool not in asked:
            asked.append(tool)
    legacy = item.get("function_call")
    if isinstance(legacy, Mapping) and not asked and (tool := _asked(legacy)) is not None:
        asked.append(tool)
    if not role and not texts and not asked and not results:
        return None
    return Message(role, tuple(texts), tuple(asked), tuple(results))


def _parts(item: Mapping[str, Any]) -> Iterable[Any]:
    for name in ("parts", "contents", "content") if "text" not in item else ("text",):
        value = parse_json(item.get(name)) if name != "content" else _blocks(item.get(name))
        if isinstance(value, list):
            yield from value[:_MAX_ITEMS]
        elif value not in (None, ""):
            yield value


def _blocks(content: Any) -> Any:
    """Content that is JSON of typed blocks is read as these; any other text stays a text."""
    parsed = parse_json(content)
    if isinstance(parsed, list) and parsed and all(_is_block(block) for block in parsed):
        return parsed
    return content


def _is_block(value: Any) -> bool:
    return isinstance(value, Mapping) and (
        isinstance(value.get("type"), str) or any(name in value for name in _WRAPPERS)
    )


def _read_part(
    part: Any, texts: list[Text], asked: list[AskedTool], results: list[GivenResult]
) -> None:
    if not isinstance(part, Mapping):
        if isinstance(part, str) and (told := told_text(part)) is not None:
            texts.append(told)
        return
    part = _unwrapped(part)
    kind = part.get("type")
    if kind in _TEXT_TYPES or (kind is None and "text" in part):
        if (told := told_text(_flat(part.get("content", part.get("text"))))) is not None:
            texts.append(told)
    elif kind in _CALL_TYPES:
        if (tool := _asked(part)) is not None and tool not in asked:
            asked.append(tool)
    elif kind in _RESULT_TYPES:
        call_id = part.get("tool_use_id") or part.get("call_id") or part.get("id")
        output = told_text(_flat(_first(part, "response", "result", "output", "content")))
        if isinstance(call_id, str) and call_id and output is not None:
            results.append(GivenResult(call_id, output, _flag(part.get("is_error"))))
    elif isinstance(part.get("tool_calls"), list):
        for call in _items(part["tool_calls"]):
            if (tool := _asked(_unwrapped(call))) is not None:
                asked.append(tool)


def _asked(call: Any) -> AskedTool | None:
    if not isinstance(call, Mapping):
        return None
    call = _unwrapped(call)
    function = call.get("function")
    own = function if isinstance(function, Mapping) else {}
    call_id = call.get("call_id") or call.get("id")
    name = own.get("name", call.get("name"))
    arguments = _first(own, "arguments")
    if arguments is None:
        arguments = _first(call, "arguments", "input", "args")
    if not isinstance(name, str) or not name:
        return None
    return AskedTool(call_id if isinstance(call_id, str) else "", name, told_text(arguments))


def _unwrapped(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """``{"message": {…}}`` as its inside, with what stands beside it."""
    for name in _WRAPPERS:
        inner = item.get(name)
        if isinstance(inner, Mapping):
            return {**{key: value for key, value in item.items() if key != name}, **inner}
    return item


def _items(value: Any) -> list[Mapping[str, Any]]:
    value = parse_json(value)
    if not isinstance(value, list):
        return []
    return [item for item in value[:_MAX_ITEMS] if isinstance(item, Mapping)]


def _first(item: Mapping[str, Any], *names: str) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def _flat(content: Any) -> Any:
    """Blocks of text as one text; anything else as it is."""
    if not isinstance(content, list):
        return content
    texts = [
        block.get("text", block.get("content"))
        for block in content
        if isinstance(block, Mapping) and block.get("type", "text") in _TEXT_TYPES
    ]
    if len(texts) == len(content) and all(isinstance(item, str) for item in texts):
        return "\n".join(texts)
    return content


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _dump(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:  # too deep, an integer beyond 64 bits, half a surrogate pair
        return "[no JSON]"
