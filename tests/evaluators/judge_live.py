"""The judge's contract against the real model API: ``make judge-live``, with ANTHROPIC_API_KEY.

Sends a made-up session a few times, one of them as a batch, which may take up to a day. Not part of
``make test``: its name is none that pytest collects by itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from evaluators.judge.model_api import JudgeApi
from tests import conftest
from tests.contracts.judge_api import JudgeApiContract

KEY = os.environ.get("ANTHROPIC_API_KEY", "")
BASE_URL = os.environ.get("TURNWISE_JUDGE_BASE_URL", "https://api.anthropic.com")

pytestmark = pytest.mark.skipif(
    not KEY, reason="ANTHROPIC_API_KEY is not set: the real model API can't be asked."
)


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other test keeps to this machine; these can't."""
    monkeypatch.setattr(socket.socket, "connect", conftest._connect)


class TestRealApi(JudgeApiContract):
    @pytest.fixture
    def judge_api(self) -> Iterator[JudgeApi]:
        with JudgeApi(BASE_URL, KEY) as api:
            yield api

    @pytest.fixture
    def stranger(self) -> Iterator[JudgeApi]:
        with JudgeApi(BASE_URL, "sk-ant-no-key-at-all") as api:
            yield api

    @pytest.fixture
    def model(self) -> str:
        return os.environ.get("TURNWISE_JUDGE_MODEL", "claude-haiku-4-5")

    @pytest.fixture
    def patience_seconds(self) -> float:
        return 86_400.0
