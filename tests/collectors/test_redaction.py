"""Secrets: replaced wherever they stand, and never in the lake."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.content_modes import Treatment
from collectors.redaction import may_hold_secrets, redact
from collectors.screened_json import screen_document
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import log_body

# Assembled from parts, so that no scanner takes this file for a leak.
SECRETS = {
    "anthropic-key": "sk-" + "ant-api03-" + "aB3_" * 20,
    "openai-key": "sk-" + "proj-" + "aB3_" * 10,
    "aws-access-key": "AK" + "IA" + "ABCDEFGH23456789",
    "github-token": "gh" + "p_" + "a1B2" * 9,
    "gitlab-token": "glp" + "at-" + "a1B2" * 5,
    "google-api-key": "AI" + "za" + "a1B2C" * 7,
    "slack-token": "xo" + "xb-" + "1234567890-abc",
    "jwt": "ey" + "Jhbm9ueW1vdXM" + ".ey" + "JzdWIiOiIxIn0" + ".c2lnbmF0dXJl",
    "private-key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\n-----END RSA " + "PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", SECRETS)
@given(
    before=st.text(alphabet="abc \n\"'(=:", max_size=20),
    after=st.text(alphabet=" \n)\"'", max_size=20),
)
def test_a_secret_is_replaced_wherever_it_stands(kind: str, before: str, after: str) -> None:
    secret = SECRETS[kind]
    text = before + " " + secret + " " + after
    assert redact(text) == before + f" [REDACTED:{kind}] " + after
    assert may_hold_secrets(text.encode())
    assert may_hold_secrets(orjson.dumps({"text": text}))


def test_a_password_in_a_url_is_replaced() -> None:
    url = "postgres://shop:" + "hunter22" + "@db.example.com/shop"
    assert redact(url) == "postgres://[REDACTED:url-password]@db.example.com/shop"
    assert may_hold_secrets(url.encode())


@given(text=st.text(alphabet="abcdefghij KLMNOP0123456789-_.\n", max_size=300))
def test_plain_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "let signing_key = ed25519_v2::SigningKey::generate(&mut OsRng);",
        "- Send mail via SendGrid when SENDGRID_API_KEY is configured",
        'os.WriteFile(file, []byte("secret: "+highEntropySecret), 0o644)',
        "a form like `https://<token>@host/path1` stays intact",
        'TIMESTAMP="$(date -u +%Y-%m-%dT%H:%M:%S.%6NZ)"',
    ],
)
def test_code_and_prose_that_name_secrets_are_left_alone(text: str) -> None:
    assert redact(text) == text


def test_lists_and_mappings_are_redacted_inside() -> None:
    secret = SECRETS["github-token"]
    assert screen_document({"a": [{"b": secret}, 3, None]}, Treatment()) == {
        "a": [{"b": "[REDACTED:github-token]"}, 3, None]
    }


@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_reaches_the_lake(tmp_path: Path, kind: str) -> None:
    secret = SECRETS[kind]
    body = log_body("s", prompt=f"use {secret} please")
    escaped = body.replace(b"sk-", b"\\u0073k-")
    with pipeline(tmp_path) as parts:
        parts.journal.append_sync("logs", "json", body)
        parts.journal.append_sync("logs", "json", escaped)
        parts.drainer.drain_once()
        (events,) = parts.lake.events_of(["s"]).values()
    for event in events:
        assert event.attributes["prompt"] == f"use [REDACTED:{kind}] please"
