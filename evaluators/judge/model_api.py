"""Anthropic's Messages and Message Batches, as the judge uses them.

The official client speaks; what it leaves open is here: every thread waits while the API says that
it is too busy, an address must be ``https`` unless it is on this machine, and nothing but the key
that is given is used to sign in.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import anthropic

from loop.domain.errors import BadInput, Refused, Unavailable
from loop.domain.turns import TokenUsage

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
TIMEOUT_SECONDS = 120.0
MAX_BATCH_REQUESTS = 100_000
MAX_BATCH_BYTES = 200_000_000  # the API takes 256 MB
T = TypeVar("T")
_LOCAL = ("127.0.0.1", "localhost", "::1")
_BUSY = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
_LIMITS = ("requests", "input-tokens", "output-tokens")


class RequestRejected(BadInput):
    """The API calls one request invalid; others may be fine."""


class AnswerLost(Unavailable):
    """A request was sent and no answer came: it may have been worked on, and charged."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request: the message as the API sent it, and its tokens."""

    message: Mapping[str, Any]
    usage: TokenUsage


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One result of a batch. Without a ``reply``, ``failure`` is ``errored``, ``expired`` or
    ``canceled``: such a request is not charged."""

    custom_id: str
    reply: Reply | None
    failure: str = ""
    error_type: str = ""


class Pacing:
    """When the next request may start, for all threads: later after each "too busy"."""

    def __init__(
        self,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._not_before = 0.0

    def wait(self) -> None:
        while True:
            with self._lock:
                left = self._not_before - self._clock()
            if left <= 0:
                return
            self._sleep(left)

    def delay(self, seconds: float) -> None:
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)


class JudgeApi:
    """A client of one key. Safe to use from several threads.

    Any method may raise :class:`Refused` for a key that may not do this, :class:`Unavailable` when
    the API does not answer after several tries.
    """

    def __init__(self, base_url: str, key: str, *, pacing: Pacing | None = None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username:
            raise BadInput(
                f"{base_url!r} is no address of an API.",
                fix="Set TURNWISE_JUDGE_BASE_URL to https://HOST.",
            )
        if parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise BadInput("The model API is spoken to by https only.", fix="Write https://.")
        if not key:
            raise BadInput(
                "There is no key of the model API: nothing can be judged.",
                fix="Set ANTHROPIC_API_KEY.",
            )
        self._pacing = pacing or Pacing()
        self._client = anthropic.Anthropic(
            api_key=key, base_url=base_url, max_retries=0, timeout=TIMEOUT_SECONDS
        )

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """Raises :class:`RequestRejected`, :class:`AnswerLost`."""
        raw = self._call(
            lambda: self._client.messages.with_raw_response.create(**body), may_be_charged=True
        )
        self._heed_limits(raw.headers)
        message: dict[str, Any] = raw.http_response.json()
        return _reply(message)

    def count_tokens(self, body: Mapping[str, Any]) -> int:
        """The API's own estimate of a request's input tokens; free of charge."""
        counted = {name: body[name] for name in ("model", "system", "messages", "output_config")}
        return self._call(lambda: self._client.messages.count_tokens(**counted)).input_tokens

    def submit(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Sends a batch of ``(custom id, body)``; its id.

        Raises :class:`RequestRejected`; :class:`AnswerLost` when it is not known whether it was
        taken.
        """
        listed: Any = [{"custom_id": name, "params": dict(body)} for name, body in requests]
        batch = self._call(
            lambda: self._client.messages.batches.create(requests=listed), may_be_charged=True
        )
        return batch.id

    def is_ended(self, batch_id: str) -> bool:
        """Whether all of a batch's results are there."""
        batch = self._call(lambda: self._client.messages.batches.retrieve(batch_id))
        return batch.processing_status == "ended"

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        """The results of an ended batch, in any order."""
        for line in self._call(lambda: self._client.messages.batches.results(batch_id)):
            result = line.result
            if result.type == "succeeded":
                yield BatchResult(line.custom_id, _reply(result.message.to_dict(mode="json")))
            elif result.type == "errored":
                yield BatchResult(line.custom_id, None, "errored", result.error.error.type)
            else:
                yield BatchResult(line.custom_id, None, result.type)

    def cancel(self, batch_id: str) -> None:
        """Asks for an end of a batch; what was worked on by then is still answered and charged."""
        self._call(lambda: self._client.messages.batches.cancel(batch_id))

    def find_batches(self, created_after_us: int) -> list[str]:
        """The ids of batches made since: to find one whose answer was lost."""
        found = []
        for batch in self._call(lambda: self._client.messages.batches.list(limit=100)):
            if batch.created_at.timestamp() * 1e6 < created_after_us:
                break
            found.append(batch.id)
        return found

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Callable[[], T], *, may_be_charged: bool = False) -> T:
        for attempt in range(ATTEMPTS):
            self._pacing.wait()
            try:
                return call()
            except anthropic.APIStatusError as error:
                problem = _problem(error)
                if error.status_code not in _BUSY:
                    raise problem from error
                if attempt == ATTEMPTS - 1:
                    raise problem from error
                self._pacing.delay(_pause(attempt, error.response.headers))
            except anthropic.APIConnectionError as error:  # also a timeout
                if may_be_charged and isinstance(error, anthropic.APITimeoutError):
                    raise AnswerLost(
                        "The model API did not answer in time.", why=str(error)
                    ) from error
                if attempt == ATTEMPTS - 1:
                    raise Unavailable("The model API can't be reached.", why=str(error)) from error
                self._pacing.delay(_pause(attempt, {}))
        raise AssertionError("unreachable")

    def _heed_limits(self, headers: Mapping[str, str]) -> None:
        """Waits for the reset of a limit of which nothing remains, instead of running into it."""
        for limit in _LIMITS:
            if headers.get(f"anthropic-ratelimit-{limit}-remaining") != "0":
                continue
            reset = headers.get(f"anthropic-ratelimit-{limit}-reset", "")
            try:
                until = datetime.fromisoformat(reset)
            except ValueError:
                continue
            left = (until - datetime.now(UTC)).total_seconds()
            self._pacing.delay(min(LONGEST_PAUSE_SECONDS, max(0.0, left)))


def _pause(attempt: int, headers: Mapping[str, str]) -> float:
    """What ``retry-after`` says, else a growing pause with some chance in it."""
    try:
        told = float(headers.get("retry-after", ""))
    except ValueError:
        told = -1.0
    if told >= 0:
        return min(told, LONGEST_PAUSE_SECONDS)
    grown = FIRST_PAUSE_SECONDS * 2.0**attempt
    return min(LONGEST_PAUSE_SECONDS, grown * random.uniform(0.75, 1.25))  # noqa: S311


def _problem(error: anthropic.APIStatusError) -> BadInput | Refused | Unavailable:
    """Messages of the API are not repeated: they may quote what was sent."""
    what = f"The model API answered {error.status_code}"
    kind = error.type or "error"
    if error.status_code in (401, 403):
        return Refused(f"{what}.", why=kind, fix="Check ANTHROPIC_API_KEY and what it may do.")
    if error.status_code in _BUSY:
        return Unavailable(f"{what} {ATTEMPTS} times.", why=kind)
    if error.status_code == 404:
        return Refused(f"{what}.", why=kind, fix="Check TURNWISE_JUDGE_MODEL.")
    if 400 <= error.status_code < 500:
        return RequestRejected(f"{what}.", why=kind)
    return Unavailable(f"{what}.", why=kind)


def _reply(message: Mapping[str, Any]) -> Reply:
    usage = message.get("usage") or {}

    def tokens(name: str) -> int:
        return int(usage.get(name) or 0)

    split = usage.get("cache_creation") or {}
    one_hour = int(split.get("ephemeral_1h_input_tokens") or 0)
    return Reply(
        message,
        TokenUsage(
            input_tokens=tokens("input_tokens"),
            output_tokens=tokens("output_tokens"),
            cache_read_tokens=tokens("cache_read_input_tokens"),
            cache_creation_5m_tokens=tokens("cache_creation_input_tokens") - one_hour,
            cache_creation_1h_tokens=one_hour,
        ),
    )
