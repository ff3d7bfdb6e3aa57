"""The custom router for claude-code-router, loaded as it loads it, against a real service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from routing_policies.signing import TrustedKeys
from tests.fakes.policy_service import PolicyService, activate, policy_service, size_policy

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
ROUTER = ROOT / "examples" / "claude-code-router" / "turnwise-router.js"
OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """The folder that the example tells people to lay out."""
    folder = tmp_path / "router"
    folder.mkdir()
    for path in [*(ROOT / "routing_policies" / "gateways").glob("*.mjs"), ROUTER]:
        shutil.copy(path, folder)
    shutil.copy(ROOT / "routing_policies" / "model_capabilities.json", folder)
    return folder


@contextmanager
def router(modules: Path, url: str, trusted: TrustedKeys) -> Iterator[Ask]:
    node = shutil.which("node") or pytest.fail("node is missing: run `make system-packages`")
    keys = modules / "keys.json"
    keys.write_text(json.dumps(trusted.to_document()))
    settings = {
        "TURNWISE_URL": url,
        "TURNWISE_KEYS": str(keys),
        "TURNWISE_STATE": str(modules / "state.json"),
    }
    command = [str(node), str(HERE / "drive_router.cjs"), str(modules / ROUTER.name)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **settings}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(characters: int, **changes: Any) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            body = {
                "model": OPUS,
                "max_tokens": 32_000,
                "thinking": {"type": "adaptive"},
                "output_config": {"effort": "xhigh"},
                "tools": [{"name": "Read"}],
                "messages": [{"role": "user", "content": "x" * characters}],
                **changes,
            }
            headers = {"X-Claude-Code-Session-Id": "s-1", "anthropic-beta": "effort-2025-11-24"}
            process.stdin.write(json.dumps({"body": body, "headers": headers}) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield ask


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PolicyService]:
    with policy_service(tmp_path) as found:
        yield found


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_the_policy_decides_and_the_body_is_fitted(service: PolicyService, modules: Path) -> None:
    activate(service.store, size_policy(10_000))
    with router(modules, service.url, service.trusted) as ask:
        short = ask(300)
        assert short["target"] == f"anthropic,{HAIKU}"
        assert short["body"]["model"] == HAIKU
        assert short["body"]["thinking"] == {"type": "enabled", "budget_tokens": 31_999}
        assert "output_config" not in short["body"]
        assert short["headers"]["anthropic-beta"] == ""
        long = ask(100_000)
        assert long["target"] == f"anthropic,{OPUS}"
        assert long["body"]["output_config"] == {"effort": "xhigh"}
        assert ask(300, model=f"anthropic,{OPUS}")["target"] == f"anthropic,{HAIKU}"
        until(lambda: len(service.decisions) == 3)
    first, second, _ = service.decisions
    assert (first["routed_model"], first["rule_id"], first["arm"]) == (HAIKU, "short", "stable")
    assert "effort_dropped" in first["fixes"]
    assert (second["routed_model"], second["rule_id"]) == (OPUS, "default")
    assert second["total_input_tokens"] == 30_308  # 100,016 characters


def test_a_new_policy_takes_effect_without_a_restart(service: PolicyService, modules: Path) -> None:
    activate(service.store, size_policy(10_000))
    with router(modules, service.url, service.trusted) as ask:
        assert ask(10_000)["target"] == f"anthropic,{HAIKU}"
        activate(service.store, size_policy(100))
        until(lambda: ask(10_000)["target"] == f"anthropic,{OPUS}")


def test_without_the_service_the_last_good_publication_decides(
    tmp_path: Path, modules: Path
) -> None:
    with policy_service(tmp_path) as service:
        activate(service.store, size_policy(10_000))
        trusted, url = service.trusted, service.url
        with router(modules, url, trusted) as ask:
            assert ask(300)["target"] == f"anthropic,{HAIKU}"
    with router(modules, url, trusted) as ask:
        assert ask(300)["target"] == f"anthropic,{HAIKU}"


def test_it_fails_open_without_a_publication_or_with_an_untrusted_one(
    service: PolicyService, modules: Path
) -> None:
    activate(service.store, size_policy(10_000))
    with router(modules, "http://127.0.0.1:9", service.trusted) as ask:
        assert ask(300)["target"] == f"anthropic,{OPUS}"
    stranger = TrustedKeys.of([bytes(32)])
    with router(modules, service.url, stranger) as ask:
        answer = ask(300)
        assert answer["target"] == f"anthropic,{OPUS}"
        assert answer["body"]["thinking"] == {"type": "adaptive"}
        until(lambda: len(service.decisions) == 1)
    assert service.decisions[0]["rule_id"] == "passthrough:no_publication"


def test_without_its_keys_the_router_leaves_the_request_alone(
    service: PolicyService, modules: Path
) -> None:
    with router(modules, service.url, service.trusted) as ask:
        (modules / "keys.json").write_text("{}")
        assert ask(300)["target"] is None
