"""The public routing sets, read into one form: prompts with the outcomes of two models each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.public_data import read_rows
from bench.public_routers import RoutingSet

GPT_4, MIXTRAL = "gpt-4-1106-preview", "mixtral-8x7b-instruct"
GEMINI_FLASH, HAIKU_3 = "gemini-2.0-flash-001", "claude-3-haiku-20240307"


def routellm(data: Path, bench: str) -> RoutingSet:
    """One of RouteLLM's benchmarks (``mmlu``, ``gsm8k``), repeated prompts left out."""
    rows = [
        row
        for row in read_rows(data, "routellm/data.parquet")
        if row["bench"] == bench and not row["duplicate"]
    ]
    return _routing_set(
        f"routellm {bench}",
        (GPT_4, MIXTRAL),
        rows,
        prompt="prompt",
        domain="domain",
        strong=lambda row: float(row["strong_correct"]),
        weak=lambda row: float(row["weak_correct"]),
    )


def routerbench(data: Path) -> RoutingSet:
    """RouterBench's strongest of the eleven models beside a cheap one, where both have a score."""
    strong, weak = "gpt-4-1106-preview|score", "mistralai/mixtral-8x7b-chat|score"
    rows = read_rows(
        data, "routerbench/data.parquet", ["sample_id", "prompt", "eval_name", strong, weak]
    )
    return _routing_set(
        "routerbench",
        (GPT_4, MIXTRAL),
        [row for row in rows if row[strong] is not None and row[weak] is not None],
        prompt="prompt",
        domain="eval_name",
        strong=lambda row: float(row[strong]),
        weak=lambda row: float(row[weak]),
    )


def routerarena(data: Path) -> RoutingSet:
    """Questions that both models answered; the stronger one is the better on average."""
    by_item: dict[str, dict[str, Any]] = {}
    for row in read_rows(data, "routerarena/data.parquet"):
        item = by_item.setdefault(row["item_id"], dict(row))
        item[row["model"]] = row["score"]
    rows = [
        item
        for item in by_item.values()
        if item.get(GEMINI_FLASH) is not None and item.get(HAIKU_3) is not None
    ]
    return _routing_set(
        "routerarena",
        (GEMINI_FLASH, HAIKU_3),
        rows,
        prompt="question",
        domain="dataset",
        strong=lambda row: float(row[GEMINI_FLASH]),
        weak=lambda row: float(row[HAIKU_3]),
    )


def all_sets(data: Path) -> list[RoutingSet]:
    return [
        routellm(data, "mmlu"),
        routellm(data, "gsm8k"),
        routerbench(data),
        routerarena(data),
    ]


def _routing_set(
    name: str,
    models: tuple[str, str],
    rows: list[dict[str, Any]],
    *,
    prompt: str,
    domain: str,
    strong: Callable[[dict[str, Any]], float],
    weak: Callable[[dict[str, Any]], float],
) -> RoutingSet:
    return RoutingSet(
        name=name,
        strong=models[0],
        weak=models[1],
        prompt_chars=np.array([len(row[prompt] or "") for row in rows], np.int64),
        domains=np.array([row[domain] or "" for row in rows], object),
        strong_quality=np.array([strong(row) for row in rows]),
        weak_quality=np.array([weak(row) for row in rows]),
    )
