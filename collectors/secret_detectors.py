"""What a secret looks like: one table of detectors.

A detector has a *trigger*, an expression that all texts are scanned for at once, and a
*pattern* that is matched from where the trigger begins and says how far the secret reaches.
*Shaped* detectors know a credential by its own form (a vendor's prefix, three dotted parts, a PEM
frame); the others need a name beside it (``password=``, ``Authorization:``) and then judge the
value by its characters and its entropy. A long random text without either stays: commit hashes,
digests and ids look just like it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from collectors.secret_values import NAMES_OF_SECRETS, is_secret_value, is_token_value

_SEPARATOR = r"(?::\s{0,4}[a-z]{2,12}\s{0,4}=|:=|=>|=|:|>)"
_VALUE = rb"(?:(?:\\*[\"'`])(?P<quoted>[^\"'`\\\s]{6,})|(?P<bare>[^\s\"'`\\,;()<>&|{}\[\]]{6,}))"
_LONG_NAME = re.compile(rb"[A-Za-z0-9_.-]{0,64}\Z")
_PEM_LABEL = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PEM_PARTS = re.compile(
    rb"(?P<gap>(?:\s|\\+[nrt]|[\"',;+]|-(?!-))+)|(?P<data>[A-Za-z0-9+/=]+)"
    rb"|(?P<header>(?:Proc-Type|DEK-Info|Version|Comment): ?[^\n\\]{0,80})"
)
_PEM_DATA = 16  # characters of a line that can only be a key's


@dataclass(frozen=True, slots=True)
class Detector:
    """``find(data, start)`` gives the span of the secret whose trigger began at ``start``."""

    kind: str
    trigger: str
    find: Callable[[bytes, int], tuple[int, int] | None]
    prefixes: tuple[bytes, ...] = ()  # of a shaped secret: what its base64 is known by
    is_shaped: bool = False


@cache
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    """Compiled when it is first needed: most commands never need it."""
    return re.compile(pattern)


def _by_pattern(
    pattern: str, accepts: Callable[[bytes, re.Match[bytes]], bool] | None = None
) -> Callable[[bytes, int], tuple[int, int] | None]:
    group = "secret" if "(?P<secret>" in pattern else 0

    def find(data: bytes, start: int) -> tuple[int, int] | None:
        match = _compiled(pattern.encode()).match(data, start)
        if match is None or (accepts is not None and not accepts(data, match)):
            return None
        return match.span(group)

    return find


def _shaped(kind: str, trigger: str, pattern: str, *prefixes: str) -> Detector:
    encoded = tuple(prefix.encode() for prefix in prefixes)
    return Detector(kind, trigger, _by_pattern(pattern), encoded, is_shaped=True)


# Not inside a longer run, such as an image in base64; after the letter of an escaped newline.
_ALONE = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))"


def _find_pem(data: bytes, start: int) -> tuple[int, int] | None:
    """From ``-----BEGIN`` to the end of the key, whether or not its last line is there."""
    begin = _PEM_BEGIN.match(data, start)
    if begin is None:
        return None
    position, has_key = begin.end(), False
    while part := _PEM_PARTS.match(data, position):
        if part["data"]:
            is_short = len(part["data"]) < _PEM_DATA
            following = _PEM_GAP.match(data, part.end())
            at = following.end() if following else part.end()
            is_last = at == len(data) or _PEM_END.match(data, at) is not None
            if is_short and not is_last:
                break
            has_key = True
        position = part.end()
    end = _PEM_END.match(data, position)
    if end is not None:
        position = end.end()
    elif has_key:  # what follows the last line of a cut key is not the key's
        position -= len(data[:position]) - len(data[:position].rstrip(b" \t\r\n\"',;"))
    return (start, position) if has_key else None


def _find_pem_tail(data: bytes, start: int) -> tuple[int, int] | None:
    """The end of a key whose beginning was cut off."""
    end = _PEM_END.match(data, start)
    if end is None:
        return None
    first, has_key, position = start, False, max(0, start - 8192)
    while position < start:
        part = _PEM_PARTS.match(data, position, start)
        if part is None or part["header"]:
            first, has_key, position = start, False, (part.end() if part else position + 1)
            continue
        if part["data"]:
            if not has_key and len(part["data"]) < _PEM_DATA:
                first = start
            else:
                first = min(first, part.start())
                has_key = True
        position = part.end()
    return (first, end.end()) if has_key else None


_PEM_BEGIN = re.compile(b"-----BEGIN " + _PEM_LABEL.encode())
_PEM_END = re.compile(b"-----END " + _PEM_LABEL.encode())
_PEM_GAP = re.compile(rb"(?:\s|\\+[nrt]|[\"',;+]|-(?!-))+")


def _find_assigned(pattern: str) -> Callable[[bytes, int], tuple[int, int] | None]:
    whole = b"(?i)" + pattern.encode() + _VALUE

    def find(data: bytes, start: int) -> tuple[int, int] | None:
        match = _compiled(whole).match(data, start)
        if match is None:
            return None
        group = "quoted" if match["quoted"] else "bare"
        before = _LONG_NAME.search(data, max(0, start - 64), start)
        name = (before[0] if before else b"") + match["name"]
        value = match[group].rstrip(b".,;:!?")
        separator = match["separator"]
        is_bare = group == "bare"
        if is_bare and data[match.end() : match.end() + 1] == b"(":
            return None  # a call
        if is_bare and separator.strip() == b">" and value.startswith(b"@"):
            return None  # https://<token>@host
        if not is_bare and _JOINED.match(value):
            return None  # "token: "+name
        is_expression = is_bare and (
            data[match.end() : match.end() + 1] in (b"[", b"{")
            or b" =" in separator
            or b":=" in separator
        )
        if not separator.strip():  # prose: NAME is configured
            name = name.lower()
        if not is_secret_value(
            name.decode("latin-1"), value.decode("latin-1"), is_literal=not is_expression
        ):
            return None
        return match.start(group), match.start(group) + len(value)

    return find


_JOINED = re.compile(rb"\+\s?[A-Za-z_][A-Za-z_.]*[)\],;]*\Z")


def _is_bearer(_: bytes, match: re.Match[bytes]) -> bool:
    return is_token_value(match["secret"].decode("latin-1"))


def _is_basic(_: bytes, match: re.Match[bytes]) -> bool:
    given = match["secret"].rstrip(b"=")
    try:
        decoded = base64.b64decode(given + b"=" * (-len(given) % 4))
    except binascii.Error:
        return False
    return b":" in decoded and all(32 <= byte < 127 for byte in decoded)


def _is_url_password(_: bytes, match: re.Match[bytes]) -> bool:
    password = match["password"]
    return not (
        password.startswith((b"$", b"%", b"{", b"*", b"<"))
        or password.lower() in (b"password", b"passwd", b"pass", b"pwd", b"secret", b"token")
        or (password.isupper() and password.replace(b"_", b"").isalpha())  # NAME for a value
    )


def _find_old_openai_key(data: bytes, start: int) -> tuple[int, int] | None:
    """Keys without a prefix of their own hold the base64 of a word in their middle."""
    first = max(0, start - 96)
    for match in _OLD_OPENAI_KEY.finditer(data, first, start + 96):
        if match.start() < start < match.end():
            return match.span()
    return None


_OLD_OPENAI_KEY = re.compile(rb"sk-[A-Za-z0-9_-]{16,80}T3BlbkFJ[A-Za-z0-9_-]{16,80}")
_VENDORS = (
    (r"SG\.[\w-]{8}", r"SG\.[\w-]{16,32}\.[\w-]{16,64}"),
    (r"hf_[A-Za-z0-9]{8}", r"hf_[A-Za-z0-9]{30,}"),
    (r"do[opr]_v1_[a-f0-9]{8}", r"do[opr]_v1_[a-f0-9]{40,}"),
    (r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{8}", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32,}"),
    (r"hv[sbr]\.[\w-]{8}", r"hv[sbr]\.[\w-]{20,}"),
    (r"ATATT3[\w=-]{8}", r"ATATT3[\w=-]{20,}"),
    (r"dckr_pat_[\w-]{8}", r"dckr_pat_[\w-]{20,}"),
    (r"gls[ab]_[A-Za-z0-9_]{8}", r"gls[ab]_[A-Za-z0-9_]{20,}"),
    (r"gsk_[A-Za-z0-9]{8}", r"gsk_[A-Za-z0-9]{40,}"),
    (r"xai-[A-Za-z0-9]{8}", r"xai-[A-Za-z0-9]{40,}"),
    (r"lin_api_[A-Za-z0-9]{8}", r"lin_api_[A-Za-z0-9]{30,}"),
    (r"rubygems_[a-f0-9]{8}", r"rubygems_[a-f0-9]{40,}"),
    (r"figd_[\w-]{8}", r"figd_[\w-]{30,}"),
    (r"sntry[su]_[\w=+/-]{8}", r"sntry[su]_[\w=+/-]{30,}"),
    (r"AGE-SECRET-KEY-1[A-Z0-9]{8}", r"AGE-SECRET-KEY-1[A-Z0-9]{20,}"),
)

DETECTORS: tuple[Detector, ...] = (
    _shaped("anthropic-key", "sk-ant-", r"sk-ant-[A-Za-z0-9_\-]{16,}", "sk-ant-a", "sk-ant-o"),
    _shaped(
        "openai-key",
        r"sk-(?:proj|svcacct|admin|None)-",
        r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_\-]{20,}",
        "sk-proj-", "sk-svcacct-",
    ),
    Detector("openai-key", "T3BlbkFJ", _find_old_openai_key, is_shaped=True),
    _shaped(
        "aws-access-key",
        "A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{8}",
        r"(?<![A-Z0-9])A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}(?![A-Z0-9])",
        "AKIA", "ASIA",
    ),
    Detector(
        "aws-secret-key",
        r"A[KS]IA[A-Z0-9]{8}",
        _by_pattern(
            r"A[KS]IA[A-Z0-9]{16}[^A-Za-z0-9/+]{1,6}(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
    ),
    Detector(
        "aws-secret-key",
        r"(?i)secret_?(?:access_?)?key",
        _by_pattern(
            r"(?i:secret_?(?:access_?)?key)[\"'\\]*\s*[:=]\s*[\"'\\]*"
            r"(?P<secret>(?:[A-Za-z0-9/+=]|\\+/){40})(?![A-Za-z0-9/+=])"
        ),
    ),
    _shaped(
        "github-token", "gh[pousr]_[A-Za-z0-9]{8}", r"gh[pousr]_[A-Za-z0-9]{30,}",
        "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    ),
    _shaped(
        "github-token", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,}", "github_pat_"
    ),
    _shaped(
        "gitlab-token",
        r"gl(?:pat|ptt|dt|rt|cbt|ft|soat|agent|imt|oas|ffct)-[\w-]{8}",
        r"gl(?:pat|ptt|dt|rt|cbt|ft|soat|agent|imt|oas|ffct)-[A-Za-z0-9_\-.]{20,}",
        "glpat-",
    ),
    _shaped(
        "google-api-key", r"AIza[\w-]{8}", _ALONE + r"AIza[A-Za-z0-9_\-]{35}(?![A-Za-z0-9])",
        "AIzaSy",
    ),
    _shaped("google-token", r"ya29\.[\w-]{8}", r"ya29\.[A-Za-z0-9_\-.]{20,}", "ya29."),
    _shaped("google-token", "GOCSPX-", r"GOCSPX-[A-Za-z0-9_\-]{20,}", "GOCSPX-"),
    _shaped("google-token", r"1//0[\w-]{8}", r"1//0[A-Za-z0-9_\-]{30,}"),
    Detector(
        "google-token",
        "private_key_id",
        _by_pattern(r"private_key_id[\"'\\]*\s*:\s*[\"'\\]*(?P<secret>[0-9a-f]{40})"),
    ),
    _shaped("slack-token", r"xox[abeoprs][-.]\w", r"xox[abeoprs][-.][A-Za-z0-9.\-]{10,}",
            "xoxb-", "xoxp-"),
    _shaped("slack-token", r"xapp-\d-[A-Z0-9]", r"xapp-\d-[A-Za-z0-9\-]{20,}"),
    _shaped(
        "slack-token",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Z]",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{20,}",
    ),
    _shaped(
        "stripe-key", r"[rs]k_(?:live|test)_",
        r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}", "sk_live_", "rk_live_",
    ),
    _shaped("stripe-key", "whsec_", r"whsec_[A-Za-z0-9+/]{20,}={0,2}"),
    Detector(
        "azure-key",
        "(?:AccountKey|SharedAccessKey|SharedSecretValue)=",
        _by_pattern(
            r"(?:AccountKey|SharedAccessKey|SharedSecretValue)="
            r"(?P<secret>(?:[A-Za-z0-9+/]|\\+/){20,}={0,2})"
        ),
    ),
    Detector(
        "azure-key",
        r"[?&]sig=[A-Za-z0-9%/+]{8}",
        _by_pattern(r"[?&]sig=(?P<secret>[A-Za-z0-9%/+=]{30,})"),
    ),
    _shaped("azure-key", r"[\w~.-]{3}\dQ~", r"[\w~.-]{3}\dQ~[\w~.-]{31,34}"),
    _shaped("npm-token", "npm_[A-Za-z0-9]{8}", r"npm_[A-Za-z0-9]{30,}", "npm_"),
    _shaped("pypi-token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_\-]{16,}", "pypi-AgE"),
    _shaped(
        "jwt",
        r"eyJ[\w-]{8}",
        r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?",
    ),
    _shaped(
        "jwt",
        r"eyJ[\w-]{9}",
        r"eyJ[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]{8,}\."
        r"[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}",
    ),
    _shaped("turnwise-token", "tw_(?:live|test)_", r"tw_(?:live|test)_[A-Za-z0-9_\-]{16,}",
            "tw_live_"),
    *(_shaped("vendor-token", trigger, pattern) for trigger, pattern in _VENDORS),
    Detector("private-key", "-----BEGIN " + _PEM_LABEL, _find_pem, (b"PRIVATE KEY-----",), True),
    Detector("private-key", "-----END " + _PEM_LABEL, _find_pem_tail, (), True),
    Detector(
        "url-password",
        r"://[^\s/:@\"'\\<>\[]{0,64}:",
        _by_pattern(
            r"://(?P<secret>[^\s/:@\"'\\<>\[]{0,64}:(?P<password>[^\s/\"'\\<>]{3,256}))@",
            _is_url_password,
        ),
    ),
    Detector(
        "authorization",
        r"(?i)bearer\s",
        _by_pattern(r"(?i:bearer)\s+(?P<secret>[A-Za-z0-9._~+/\-]{12,}={0,2})", _is_bearer),
    ),
    Detector(
        "authorization",
        r"(?i)basic\s[A-Za-z0-9+/]{6}",
        _by_pattern(r"(?i:basic)\s+(?P<secret>[A-Za-z0-9+/]{8,}={0,2})", _is_basic),
    ),
    Detector(
        "authorization",
        r"\s(?:-u|--user)[ =]",
        _by_pattern(
            r"\s(?:-u|--user)[ =][\"']?(?P<secret>(?![0-9]+:[0-9]+|\+%)[^\s:\"'$]+:[^\s\"'$]{4,})"
        ),
    ),
    Detector(
        "assigned-secret",
        rf"(?i){NAMES_OF_SECRETS}[\"'\\`\]]*\s*[:=>]",
        _find_assigned(
            rf"(?P<name>{NAMES_OF_SECRETS})[\"'\\`\]]*(?P<separator>\s{{0,4}}{_SEPARATOR}\s{{0,4}})"
        ),
    ),
    Detector(  # --password hunter22
        "assigned-secret",
        rf"(?i)--[a-z0-9-]*{NAMES_OF_SECRETS}\s",
        _find_assigned(rf"--(?P<name>[a-z0-9-]{{0,24}}?{NAMES_OF_SECRETS})(?P<separator>\s)"),
    ),
    Detector(  # the password is hunter22
        "assigned-secret",
        rf"(?i){NAMES_OF_SECRETS}\s(?:is|was|to|are)[:\s]",
        _find_assigned(rf"(?P<name>{NAMES_OF_SECRETS})\s(?:is|was|to|are)(?P<separator>[:\s]{{1,3}})"),
    ),
)  # fmt: skip


SHAPED: tuple[int, ...] = tuple(
    number for number, detector in enumerate(DETECTORS) if detector.is_shaped
)
KINDS = tuple(sorted({detector.kind for detector in DETECTORS}))


def base64_literals(prefix: bytes) -> tuple[bytes, ...]:
    """How the base64 of a longer text shows that ``prefix`` is in it: one text per alignment."""
    literals = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + prefix)
        first = (before * 8 + 5) // 6
        last = (before + len(prefix)) * 8 // 6
        literals.append(encoded[first:last])
    return tuple(literals)


def base64_triggers(detectors: Iterable[Detector]) -> list[str]:
    """Expressions for the base64 of every shaped secret."""
    literals = {
        literal
        for detector in detectors
        for prefix in detector.prefixes
        for literal in base64_literals(prefix)
    }
    return [re.escape(literal.decode()) for literal in sorted(literals)]
