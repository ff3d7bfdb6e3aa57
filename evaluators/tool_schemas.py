"""Whether a call's input is what the tool's schema asks for (JSON Schema 2020-12).

Schemas come from traces and are not to be trusted: references are never fetched, and patterns and
formats, which may take for ever, are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry

from loop.domain.turns import ToolDefinition

SCHEMA_CHARS = 64_000
INPUT_CHARS = 256_000
_UNCHECKED = ("pattern", "patternProperties", "format", "uniqueItems")
_Validator = extend(Draft202012Validator, dict.fromkeys(_UNCHECKED))


@lru_cache(maxsize=512)
def read_schema(text: str) -> Any:
    """A validator, or ``None`` where the text is no schema that can be checked against."""
    if not text or len(text) > SCHEMA_CHARS:
        return None
    try:
        schema = json.loads(text)
        if not isinstance(schema, dict):
            return None
        Draft202012Validator.check_schema(schema)
    except (ValueError, SchemaError, RecursionError):
        return None
    return _Validator(schema, registry=Registry())


def schema_violation(definition: ToolDefinition, input_text: str) -> str | None:
    """What is wrong with the input, in words without any of its values; ``None`` if nothing is, or
    if it can't be told."""
    validator = read_schema(definition.input_schema)
    if validator is None or len(input_text) > INPUT_CHARS:
        return None
    try:
        given = orjson.loads(input_text or "{}")
    except ValueError:
        return "the input is no JSON"
    try:
        error = min(validator.iter_errors(given), key=_place, default=None)
    except Exception:  # noqa: BLE001 - a reference that leads nowhere, a schema without end
        return None
    return None if error is None else _words(error)


def _place(error: ValidationError) -> tuple[int, bool, str, str]:
    """What is missing at the top is told first."""
    kind = str(error.validator)
    return len(error.absolute_path), kind != "required", kind, str(list(error.absolute_path))


def _words(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "the input"
    given = error.instance if isinstance(error.instance, Mapping) else {}
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in given]
        return f"{where} lacks {', '.join(map(str, missing))}"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
        return f"{where} has {', '.join(str(name) for name in given if name not in known)}"
    said = _RULES.get(str(error.validator))
    return f"{where} {said(error)}" if said else f"{where} breaks the rule {error.validator}"


_RULES: dict[str, Callable[[ValidationError], str]] = {
    "type": lambda error: f"is not of type {error.validator_value}",
    "enum": lambda error: "is not one of the values allowed",
    "const": lambda error: "is not the value allowed",
}
