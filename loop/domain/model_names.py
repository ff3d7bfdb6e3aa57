"""The names that one model goes by, from the most to the least particular.

Providers and gateways spell a model in their own ways. The rules here are explicit: each strips
something that by its provider's own documentation does not change the price (a gateway's prefix, a
release date, a revision), and none looks for likeness. What does change the price stays in the
name: Amazon Bedrock's geography (``us.anthropic.…`` costs more than ``global.anthropic.…``) and
the platform (``vertex_ai/…``), so such a name is priced only where the book has it.
"""

from __future__ import annotations

import re
from functools import lru_cache

_WINDOW = re.compile(r"\[[0-9]+[km]\]\Z")  # the client's own mark of a larger context window
_RELEASE_DATE = re.compile(r"-20[0-9]{6}\Z")
_PASSED_THROUGH = ("litellm_proxy/", "anthropic/")
_BEDROCK_PREFIX = re.compile(r"\Abedrock/(?:converse/|invoke/)?(?=(?:[a-z-]+\.)?anthropic\.|arn:)")
_BEDROCK_ARN = re.compile(
    r"\Aarn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:(?:inference-profile|foundation-model)/"
)
_BEDROCK = re.compile(r"\A(?:bedrock/[a-z0-9-]+/)?(?:[a-z-]+\.)?anthropic\.")
_BEDROCK_REVISION = re.compile(r"-v[0-9]+(?::[0-9]+)?\Z")
_VERTEX_PREFIX = re.compile(r"\A(?:vertex_ai|vertex)/")
_AT_RELEASE = re.compile(r"@(?:20[0-9]{6}|default)\Z")
VERTEX = "vertex_ai/"


@lru_cache(maxsize=4096)
def names_of(model: str) -> tuple[str, ...]:
    """The names to look a model up by, in order; the first is the name as it was given.

    >>> names_of("us.anthropic.claude-haiku-4-5-20251001-v1:0")[-1]
    'us.anthropic.claude-haiku-4-5'
    >>> names_of("claude-haiku-4-5@20251001")[-1]
    'vertex_ai/claude-haiku-4-5'
    """
    name = _WINDOW.sub("", model)
    while name.startswith(_PASSED_THROUGH):
        name = name.split("/", 1)[1]
    name = _BEDROCK_ARN.sub("", _BEDROCK_PREFIX.sub("", name))
    revised = name
    if _BEDROCK.match(name):
        revised = _AT_RELEASE.sub("", _BEDROCK_REVISION.sub("", name))
    elif _VERTEX_PREFIX.match(name) or _AT_RELEASE.search(name):
        name = VERTEX + _VERTEX_PREFIX.sub("", name)
        revised = _AT_RELEASE.sub("", name)
    return tuple(dict.fromkeys((model, name, revised, _RELEASE_DATE.sub("", revised))))


def plain_name(model: str) -> str:
    """The least particular name: what the names of one model on one platform have in common."""
    return names_of(model)[-1]
