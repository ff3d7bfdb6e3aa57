"""A generated corpus for redaction: texts as traces hold them, with the secrets planted in them.

Seeded: the same seed gives the same corpus. The secrets are drawn at random in the form that their
issuers document; none was ever issued. ``plant`` gives a text with one secret, ``decoy`` a text
that holds none although it looks like it.
"""

from __future__ import annotations

import base64
import json
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass

ALNUM = string.ascii_letters + string.digits
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"
HEX = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Sample:
    """``secret`` is "" for a decoy; ``kind`` is then the kind of decoy."""

    kind: str
    text: str
    secret: str = ""


def drawn(rng: random.Random, alphabet: str, size: int) -> str:
    return "".join(rng.choices(alphabet, k=size))


def _jwt(rng: random.Random) -> str:
    def part(document: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    claims = {"sub": str(rng.randrange(10**9)), "iat": rng.randrange(10**9), "name": "A. Person"}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{drawn(rng, URLSAFE, 43)}"


def _pem(rng: random.Random) -> str:
    label = rng.choice(("RSA ", "EC ", "OPENSSH ", ""))
    lines = [drawn(rng, BASE64, 64) for _ in range(rng.randrange(3, 26))]
    body = "\n".join([*lines, drawn(rng, BASE64, rng.randrange(8, 60)) + "=="])
    return f"-----BEGIN {label}PRIVATE KEY-----\n{body}\n-----END {label}PRIVATE KEY-----"


def _password(rng: random.Random) -> str:
    word = rng.choice(("Harbor", "velvet", "Tundra", "osprey", "Quartz", "maple"))
    return word + drawn(rng, string.digits, 3) + rng.choice("!#*?+~") + drawn(rng, ALNUM, 4)


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "anthropic-key": lambda rng: (
        f"sk-ant-{rng.choice(('api03', 'admin01', 'oat01'))}-{drawn(rng, URLSAFE, 93)}AA"
    ),
    "openai-key": lambda rng: rng.choice(
        (
            f"sk-proj-{drawn(rng, URLSAFE, 74)}T3BlbkFJ{drawn(rng, URLSAFE, 74)}",
            f"sk-svcacct-{drawn(rng, URLSAFE, 58)}",
            f"sk-{drawn(rng, ALNUM, 20)}T3BlbkFJ{drawn(rng, ALNUM, 20)}",
        )
    ),
    "aws-access-key": lambda rng: (
        rng.choice(("AKIA", "ASIA")) + drawn(rng, string.ascii_uppercase + "234567", 16)
    ),
    "aws-secret-key": lambda rng: drawn(rng, BASE64, 40),
    "google-api-key": lambda rng: "AIza" + "Sy" + drawn(rng, URLSAFE, 32) + rng.choice(ALNUM),
    "google-token": lambda rng: rng.choice(
        ("ya29.a0" + drawn(rng, URLSAFE, 120), "GOCSPX-" + drawn(rng, URLSAFE, 28))
    ),
    "github-token": lambda rng: rng.choice(
        (
            f"gh{rng.choice('pousr')}_{drawn(rng, ALNUM, 36)}",
            f"github_pat_{drawn(rng, ALNUM, 22)}_{drawn(rng, ALNUM, 59)}",
        )
    ),
    "gitlab-token": lambda rng: (
        f"gl{rng.choice(('pat', 'dt', 'rt', 'ptt'))}-{drawn(rng, URLSAFE, 20)}"
    ),
    "slack-token": lambda rng: (
        f"xox{rng.choice('bp')}-{drawn(rng, string.digits, 12)}-"
        f"{drawn(rng, string.digits, 12)}-{drawn(rng, ALNUM, 24)}"
    ),
    "stripe-key": lambda rng: (
        f"{rng.choice('sr')}k_{rng.choice(('live', 'test'))}_{drawn(rng, ALNUM, 24)}"
    ),
    "azure-key": lambda rng: drawn(rng, BASE64, 86) + "==",
    "npm-token": lambda rng: "npm_" + drawn(rng, ALNUM, 36),
    "pypi-token": lambda rng: "pypi-AgEIcHlwaS5vcmc" + drawn(rng, URLSAFE, 130),
    "jwt": _jwt,
    "private-key": _pem,
    "url-password": _password,
    "authorization": lambda rng: drawn(rng, ALNUM, rng.choice((24, 32, 40))),
    "assigned-secret": lambda rng: rng.choice((_password(rng), drawn(rng, ALNUM, 28))),
    "vendor-token": lambda rng: rng.choice(
        (
            f"SG.{drawn(rng, URLSAFE, 22)}.{drawn(rng, URLSAFE, 43)}",
            "hf_" + drawn(rng, string.ascii_letters, 34),
            "hvs." + drawn(rng, URLSAFE, 90),
            "dckr_pat_" + drawn(rng, URLSAFE, 27),
        )
    ),
    "turnwise-token": lambda rng: f"tw_live_{drawn(rng, ALNUM, 12)}_{drawn(rng, URLSAFE, 43)}",
}
# What must stand beside a secret that has no shape of its own.
NEEDS: dict[str, tuple[str, ...]] = {
    "aws-secret-key": (
        'aws_secret_access_key = "{}"', "AWS_SECRET_ACCESS_KEY={}", '"SecretAccessKey": "{}"',
    ),
    "azure-key": (
        "DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={};EndpointSuffix=x",
        "Endpoint=sb://shop/;SharedAccessKeyName=root;SharedAccessKey={}",
    ),
    "url-password": (
        "postgres://shop:{}@db.internal:5432/shop", "redis://:{}@cache:6379/0",
        "mongodb+srv://app:{}@cluster0.example.net/?w=majority", "https://bot:{}@git.local/x.git",
    ),
    "authorization": (
        "Authorization: Bearer {}", "curl -H 'Authorization: Bearer {}' https://api.local/v1",
        '"authorization": "Bearer {}"', "headers = {{'Authorization': 'Bearer {}'}}",
    ),
    "assigned-secret": (
        'password = "{}"', "DB_PASSWORD={}", 'api_key: "{}"', "export SMTP_PASSWORD='{}'",
        '"client_secret": "{}"', "--password {}", "the password is {}", "password: {}",
        "  secret_key: '{}'", 'const apiKey = "{}";', "SESSION_SECRET={}",
        "<password>{}</password>",
        'ENCRYPTION_KEY: "{}"', "Server=db;User Id=sa;Password={};",
    ),
}  # fmt: skip
_SURROUNDINGS = (
    "Why does this fail?\n\n{}\n\nIt worked yesterday.",
    "Please put {} into the config and run the tests.",
    "$ env | sort\nHOME=/srv/demo\n{}\nPATH=/usr/bin\n",
    "diff --git a/app.py b/app.py\n@@ -1,3 +1,4 @@\n import os\n+{}\n-pass\n",
    "2026-11-20T10:15:03Z INFO loaded settings {} in 12 ms\n",
    "```sh\n{}\n```",
    "     1→# settings\n     2→{}\n     3→debug = false\n",
    "[TOOL RESULT: toolu_01a9e8eb1eb113a90e2bf1ee]\n{}\n\n---\n",
)


def plant(kind: str, rng: random.Random) -> Sample:
    """A text with one secret of a kind, escaped as JSON up to three times or not at all."""
    secret = MAKERS[kind](rng)
    if kind in NEEDS:
        line = rng.choice(NEEDS[kind]).format(secret)
    else:
        line = rng.choice(("{}", 'KEY="{}"', "key: {}", "({})", "token={}", "run --key {}"))
        line = line.format(secret)
    text = rng.choice(_SURROUNDINGS).format(line)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        text = json.dumps({"content": text})
        secret = json.dumps(secret)[1:-1]
    return Sample(kind, text, secret)


def _lock_file(rng: random.Random) -> str:
    integrity = base64.b64encode(rng.randbytes(64)).decode()
    return (
        f'"node_modules/left-pad": {{\n  "version": "1.{rng.randrange(9)}.0",\n'
        f'  "integrity": "sha512-{integrity}",\n  "license": "MIT"\n}}'
    )


DECOYS: dict[str, Callable[[random.Random], str]] = {
    "commit": lambda rng: f"commit {drawn(rng, HEX, 40)}\nAuthor: A <a@b.c>\n\n    Fix it\n",
    "uuid": lambda rng: f"session {uuid.UUID(int=rng.getrandbits(128))} resumed",
    "request id": lambda rng: f"request_id=req_{drawn(rng, HEX, 24)} toolu_{drawn(rng, HEX, 24)}",
    "trace": lambda rng: f"traceparent: 00-{drawn(rng, HEX, 32)}-{drawn(rng, HEX, 16)}-01",
    "digest": lambda rng: f"docker pull app@sha256:{drawn(rng, HEX, 64)}",
    "lock file": _lock_file,
    "hashes": lambda rng: f"orjson==3.13 \\\n    --hash=sha256:{drawn(rng, HEX, 64)} \\\n",
    "image": lambda rng: (
        f"data:image/png;base64,iVBORw0KGgo{base64.b64encode(rng.randbytes(700)).decode()}"
    ),
    "base64 text": lambda rng: base64.b64encode(
        b"Each line of this file says one thing, and nothing of it is secret. " * 3
    ).decode(),
    "minified": lambda rng: (
        f'!function(e,t){{var n=t({rng.randrange(999)});e.token=n.token,e.key="a"===n?1:2}}(a,b);'
        f'const {drawn(rng, string.ascii_lowercase, 2)}=e=>e.password.length>8&&e.secret!==void 0;'
    ),
    "code": lambda rng: rng.choice(
        (
            "token = await client.get_token(scope)\nif not token:\n    raise AuthError",
            "def login(user: str, password: str) -> Token:\n    return check(user, password)",
            'const secret = process.env.SESSION_SECRET;\nif (!secret) throw new Error("x");',
            'password = os.environ["DB_PASSWORD"]\napi_key = settings.api_key',
            "token := strings.TrimPrefix(header, prefix)\nreturn token == expected",
            "self.access_key = access_key\nself.secret_key = config.get('secret_key')",
            'parser.add_argument("--password", required=True, help="the password to use")',
            "assert response.json()['token'] == issued_token_v2",
            "password_field: PasswordInput2 = PasswordInput2(required=True)",
            'secretKeyRef:\n  name: "db-credentials-v2"\n  key: password',
        )
    ),
    "schema": lambda rng: rng.choice(
        (
            '{"password": {"type": "string", "minLength": 8}, "token": {"type": "string"}}',
            '"password": "Password", "forgotPassword": "Forgot your password?"',
            '<input type="password" name="password" id="password1">',
            '"max_tokens": 32000, "input_tokens": 22074, "cache_read_tokens": 0',
            '"next_page_token": "CAUQAA12bcdEFGH3456", "token_type": "bearer"',
            '"stop_token": "<|endoftext|>", "pad_token": "[PAD]", "eos_token": "</s>"',
        )
    ),
    "placeholder": lambda rng: rng.choice(
        (
            "ANTHROPIC_API_KEY=your-key-here\nDB_PASSWORD=<password>",
            "export API_KEY=${API_KEY}\npassword: ${{ secrets.DB_PASSWORD }}",
            "postgres://user:password@localhost/db or postgres://${USER}:${PASS}@db/x",
            'api_key = "xxxxxxxxxxxxxxxxxxxx"  # replace me',
            "Set `sk-ant-...` as ANTHROPIC_API_KEY, and `ghp_…` as GITHUB_TOKEN.",
            "-----BEGIN PRIVATE KEY----- must be the first line; see the docs.",
            "Authorization: Bearer <token>\nAuthorization: Bearer $TOKEN",
            'password = "changeme"  # example only',
        )
    ),
    "url": lambda rng: rng.choice(
        (
            "GET http://localhost:4873/@scope/pkg 200\nhttp://127.0.0.1:8080/@me",
            f"https://github.com/acme/shop/commit/{drawn(rng, HEX, 40)}",
            "see https://example.com/reset?step=2 or mail ops@example.com",
            f"s3://bucket/path/{drawn(rng, HEX, 32)}/part-00001.parquet",
        )
    ),
    "path": lambda rng: (
        f"/srv/demo/node_modules/.pnpm/react@18.2.0/{drawn(rng, HEX, 32)}/index.js:12:5\n"
        f"/var/lib/app/{drawn(rng, ALNUM, 22)}/tokenizer.json"
    ),
    "log": lambda rng: (
        f"2026-11-20 10:15:03,{rng.randrange(999):03d} INFO worker-{rng.randrange(99)} "
        f"job={drawn(rng, HEX, 16)} took {rng.randrange(9999)} ms key=orders:{rng.randrange(10**6)}"
    ),
    "hex": lambda rng: "\n".join(
        f"{at:08x}  {' '.join(drawn(rng, HEX, 2) for _ in range(16))}" for at in range(0, 96, 16)
    ),
    "test output": lambda rng: (
        "tests/test_auth.py::test_password_is_hashed PASSED\n"
        "tests/test_auth.py::test_token_expires_after_30_days PASSED\n2 passed in 0.12s"
    ),
}  # fmt: skip


def decoy(kind: str, rng: random.Random) -> Sample:
    text = rng.choice(_SURROUNDINGS).format(DECOYS[kind](rng))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        text = json.dumps({"content": text})
    return Sample(kind, text)


def corpus(seed: int, per_kind: int) -> list[Sample]:
    """``per_kind`` samples of each kind of secret, and as many of each kind of decoy."""
    rng = random.Random(seed)
    samples = [plant(kind, rng) for kind in MAKERS for _ in range(per_kind)]
    samples += [decoy(kind, rng) for kind in DECOYS for _ in range(per_kind)]
    rng.shuffle(samples)
    return samples
