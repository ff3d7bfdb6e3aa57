"""BFCL: the calls of models, the functions on offer, and the answers that are right."""

from __future__ import annotations

import ast
import json
import re
import warnings
from pathlib import Path
from typing import Any

from bench.public_data import read_rows
from bench.public_traces import JudgedTrace, make_turn
from loop.domain.turns import (
    ExpectedCall,
    SessionTrace,
    TokenUsage,
    ToolCall,
    ToolDefinition,
    ToolEvidence,
)

_QUESTION_CATEGORIES = {
    "simple": "simple_python",
    "multiple_function": "multiple",
    "parallel_function": "parallel",
    "parallel_multiple_function": "parallel_multiple",
    "java": "simple_java",
    "javascript": "simple_javascript",
    "relevance": "irrelevance",
}
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}
"""Types of BFCL's that JSON Schema has under another name, or not at all."""
_TEXTUAL = ("simple_java", "simple_javascript")
"""Categories in which every value is wanted as a text of source code, whatever its type."""


def bfcl_calls(data: Path) -> list[JudgedTrace]:
    """The answers to BFCL questions, with the checker's verdict.

    Held: the calls, and the functions on offer and the answers that are right where the question is
    at hand. Missing: results; nothing was carried out. Names are compared with "." read as "_", as
    function-calling interfaces write them. An answer that holds no readable call is a text.
    """
    questions = {
        row["id"]: row
        for row in read_rows(data, "bfcl/questions.parquet")
        if row["category"] in _QUESTION_CATEGORIES.values() and row["functions_json"]
    }
    judged = []
    for row in read_rows(data, "bfcl/model_calls_2024_08.parquet"):
        name = f"{row['id']}.{row['model']}"
        category = _QUESTION_CATEGORIES.get(row["category"], "")
        question = questions.get(f"{category}_{row['id'].rsplit('_', 1)[1]}")
        answer = json.loads(row["result_json"])
        calls = read_calls(answer)
        tools = [
            ToolEvidence(ToolCall(f"{name}.{place}", function), arguments, "present")
            for place, (function, arguments) in enumerate(calls)
        ]
        usage = TokenUsage(row["input_tokens"] or 0, row["output_tokens"] or 0)
        turn = make_turn(name, 0, text="" if calls else str(answer), tools=tools, usage=usage)
        judged.append(
            JudgedTrace(
                SessionTrace(
                    name,
                    (turn,),
                    tools=_definitions(question) if question else (),
                    expected_calls=_expected(question, category) if question else None,
                ),
                bool(row["valid"]),
                row["id"],
                {
                    "output tokens": float(row["output_tokens"] or 0),
                    "duration": float(row["latency_s"] or 0.0),
                },
                {
                    "category": row["category"],
                    "error": row["error_type"] or "",
                    "functions known": "yes" if question else "no",
                },
            )
        )
    return judged


def _definitions(question: dict[str, Any]) -> tuple[ToolDefinition, ...]:
    functions = json.loads(question["functions_json"])
    names = [item["name"].replace(".", "_") for item in functions]
    if question["category"] in _TEXTUAL:
        return tuple(map(ToolDefinition, names))
    schemas = [
        json.dumps({**_schema(item["parameters"]), "additionalProperties": False})
        for item in functions
    ]
    return tuple(map(ToolDefinition, names, schemas))


def _schema(stated: Any) -> Any:
    """BFCL's notation as JSON Schema; a type that has no counterpart there allows anything."""
    if not isinstance(stated, dict):
        return stated
    kept = {key: value for key, value in stated.items() if key in ("required", "enum")}
    kind = stated.get("type")
    kind = _TYPES.get(str(kind), kind)
    if kind in ("object", "array", "string", "number", "integer", "boolean"):
        kept["type"] = kind
    if isinstance(stated.get("properties"), dict):
        kept["properties"] = {name: _schema(value) for name, value in stated["properties"].items()}
    if isinstance(stated.get("items"), dict):
        kept["items"] = _schema(stated["items"])
    return kept


def _expected(question: dict[str, Any], category: str) -> tuple[ExpectedCall, ...] | None:
    if category == "irrelevance":
        return ()
    if not question["possible_answer_json"]:
        return None
    return tuple(
        ExpectedCall(
            name.replace(".", "_"),
            {key: tuple(values) for key, values in arguments.items()},
        )
        for item in json.loads(question["possible_answer_json"])
        for name, arguments in item.items()
    )


_DROPPED = re.compile(r"[ ,./\-_*^]")


def same_text(one: str, other: str) -> bool:
    """Equal as BFCL's checker compares texts."""
    return _fold(one) == _fold(other)


def _fold(text: str) -> str:
    return _DROPPED.sub("", text).lower().replace("'", '"')


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, RecursionError, MemoryError, SyntaxError, TypeError):
        return ast.unparse(node)


def read_calls(answer: object) -> list[tuple[str, str]]:
    """Names and arguments of the calls in an answer: objects, or calls in Python's notation."""
    if isinstance(answer, list):
        return [
            (
                name.replace(".", "_"),
                arguments if isinstance(arguments, str) else json.dumps(arguments),
            )
            for item in answer
            if isinstance(item, dict)
            for name, arguments in item.items()
        ]
    if not isinstance(answer, str):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # odd escapes in what models write
            tree = ast.parse(answer.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    items = tree.elts if isinstance(tree, ast.List) else [tree]
    if not all(isinstance(item, ast.Call) for item in items):
        return []
    return [
        (
            ast.unparse(item.func).replace(".", "_"),
            json.dumps({key.arg or "": _literal(key.value) for key in item.keywords}, default=str),
        )
        for item in items
        if isinstance(item, ast.Call)
    ]
