"""What screening costs: per body in each content mode, per scan, and at the start of a process."""

from __future__ import annotations

import importlib
import importlib.util
import re
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from bench.ingest_load import as_json, make_bodies
from bench.redaction_corpus import Sample
from collectors.body_decoding import validate
from collectors.content_rules import ContentModes
from collectors.redaction import BODY_SCAN, TEXT_SCAN, redact
from collectors.screening import Screen
from collectors.segments import ContentType
from loop.domain.content_modes import CONTENT_MODES

BODIES = 10
START_NS = 1_790_000_000_000_000_000
_PLANTED = "use gh" + "p_" + "a1B2" * 9 + " for it"


def seconds_of(call: Callable[[], object], repeat: int = 5) -> float:
    """CPU seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(repeat):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best


def measure_speed(samples: Sequence[Sample]) -> dict[str, float]:
    """Throughput in MB/s; CPU microseconds per body of the ingest benchmark's log records."""
    plain = "\n".join(sample.text for sample in samples if not sample.secret)
    mixed = "\n".join(sample.text for sample in samples)
    made = list(islice(make_bodies(10_000, start_ns=START_NS, signals=("logs",)), BODIES))
    bodies = [body.content for body in made]
    documents = [as_json(body) for body in made]
    planted = [_plant(body) for body in bodies]

    def per_body(screen: Screen, form: ContentType, given: Sequence[bytes]) -> float:
        def run() -> None:
            for body in given:
                screen.screen("logs", form, body)

        return round(seconds_of(run) / len(given) * 1e6)

    def check() -> None:
        for body in bodies:
            validate("logs", "protobuf", body)

    speeds = {
        "redact_mb_per_s_texts_without_secrets": round(
            len(plain) / 1e6 / seconds_of(lambda: redact(plain)), 1
        ),
        "redact_mb_per_s_texts_with_secrets": round(
            len(mixed) / 1e6 / seconds_of(lambda: redact(mixed)), 1
        ),
        "records_per_body": round(sum(body.records for body in made) / len(made)),
        "body_kb": round(sum(map(len, bodies)) / len(bodies) / 1000, 1),
        "us_per_body_parsing": round(seconds_of(check) / len(bodies) * 1e6),
    }
    for mode in reversed(CONTENT_MODES):
        modes = ContentModes(mode, hash_key=b"bench")
        screen = Screen(lambda given=modes: given)  # type: ignore[misc]
        speeds[f"us_per_body_{mode}"] = per_body(screen, "protobuf", bodies)
        speeds[f"us_per_body_{mode}_with_one_secret"] = per_body(screen, "protobuf", planted)
        speeds[f"us_per_body_{mode}_json"] = per_body(screen, "json", documents)
    return speeds


def measure_scans() -> dict[str, float]:
    """CPU microseconds of ways to look for all expressions in one body, and of compiling them."""
    bodies = [
        body.content
        for body in islice(make_bodies(10_000, start_ns=START_NS, signals=("logs",)), 5)
    ]
    expressions = BODY_SCAN.expressions
    each = [re.compile(expression.encode(), re.DOTALL) for expression in expressions]
    literals = [
        re.sub(r"\\(.)", r"\1", expression).encode()
        for expression in expressions
        if re.fullmatch(r"(?:[\w-]|\\\W)+", expression)
    ]

    def per_body(look: Callable[[bytes], object], repeat: int = 3) -> int:
        def run() -> None:
            for body in bodies:
                look(body)

        return round(seconds_of(run, repeat) / len(bodies) * 1e6)

    figures: dict[str, float] = {
        "expressions": len(expressions),
        "literals": len(literals),
        "us_per_body_hyperscan": per_body(BODY_SCAN.any_in),
        "us_per_body_re_one_by_one": per_body(lambda body: [one.search(body) for one in each], 2),
        "us_per_body_literals_one_by_one": per_body(
            lambda body: [literal in body for literal in literals]
        ),
    }
    if importlib.util.find_spec("ahocorasick_rs") is not None:
        automaton: Any = importlib.import_module("ahocorasick_rs").BytesAhoCorasick(literals)
        figures["us_per_body_literals_aho_corasick"] = per_body(automaton.find_matches_as_indexes)
    for name, scan in (("bodies", BODY_SCAN), ("texts", TEXT_SCAN)):
        figures[f"ms_compiling_expressions_of_{name}"] = round(seconds_of(scan.compile, 3) * 1000)
    return figures


def _plant(body: bytes) -> bytes:
    request = ExportLogsServiceRequest.FromString(body)
    record = request.resource_logs[0].scope_logs[0].log_records[7]
    record.attributes.add(key="response").value.string_value = _PLANTED
    return request.SerializeToString()
