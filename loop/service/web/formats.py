"""How the pages write numbers, money, times and texts that nobody vouches for.

Every value keeps its exact form in ``title``. Texts from traces, repositories and models lose
their terminal escapes and have invisible and direction-changing characters spelled out; Jinja
escapes what is left.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from loop.service.printing import plain

UNKNOWN = "–"
CUT_CHARS = 4_000
_UNSEEN = re.compile(
    "[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ud800-\udfff]"
)
_SECOND_US = 1_000_000
_STATES: Mapping[str, tuple[str, str]] = {
    "passed": ("✓", "good"),
    "failed": ("✕", "bad"),
    "inconclusive": ("?", "doubt"),
    "error": ("!", "bad"),
    "ok": ("✓", "good"),
    "refused": ("⊘", "doubt"),
    "running": ("●", "info"),
    "finished": ("✓", "good"),
    "proposed": ("○", "neutral"),
    "gate_passed": ("✓", "good"),
    "gate_failed": ("✕", "bad"),
    "gate_inconclusive": ("?", "doubt"),
    "in_review": ("◔", "info"),
    "approved": ("✓", "good"),
    "rejected": ("✕", "bad"),
    "canary": ("●", "canary"),
    "paused": ("‖", "doubt"),
    "active": ("✓", "good"),
    "superseded": ("–", "neutral"),
    "rolled_back": ("↩", "bad"),
    "promoted": ("✓", "good"),
    "starting": ("○", "info"),
    "withdrawn": ("✕", "neutral"),
    "supported": ("✓", "good"),
    "contradicted": ("✕", "bad"),
    "stale": ("?", "doubt"),
    "unverified": ("?", "doubt"),
    "narrow": ("?", "doubt"),
    "not_checkable": ("–", "neutral"),
    "noted": ("·", "neutral"),
    "applied": ("✓", "good"),
}
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def visible(text: str) -> str:
    """The text with nothing hidden: no control characters, unseen characters as ``⟦U+202E⟧``."""
    return _UNSEEN.sub(lambda match: f"⟦U+{ord(match.group()):04X}⟧", plain(text))


def finalize(value: Any) -> Any:
    """What Jinja does to every printed value: unknown is a dash, untrusted text is made plain."""
    if value is None:
        return UNKNOWN
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def dollars(microusd: int) -> str:
    """Dollars with two decimals, four below one dollar."""
    sign, amount = ("−" if microusd < 0 else ""), abs(microusd)
    decimals = 2 if amount >= _SECOND_US or amount == 0 else 4
    if amount and amount < 50:
        return f"{sign}<$0.0001"
    return f"{sign}${amount / 1e6:,.{decimals}f}"


def money(microusd: int | None, unpriced_turns: int = 0) -> Markup:
    """Micro-dollars for people; what has no price says so and is never $0."""
    if microusd is None:
        return Markup('<span class="unpriced">unpriced</span>')
    shown = Markup('<span title="{:,} micro-dollars">{}</span>').format(microusd, dollars(microusd))
    if unpriced_turns:
        note = Markup(' <span class="unpriced" title="turns without a price">+{} unpriced</span>')
        shown += note.format(unpriced_turns)
    return shown


def count(number: int | float | None) -> str:
    return UNKNOWN if number is None else f"{number:,.0f}"


def brief(number: int | float | None) -> Markup | str:
    """Three significant digits with k, M or G; the exact number in ``title``."""
    if number is None:
        return UNKNOWN
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            shown = number / limit
            decimals = 2 if abs(shown) < 10 else 1 if abs(shown) < 100 else 0
            return Markup('<span title="{:,}">{:.{}f} {}</span>').format(
                number, shown, decimals, letter
            )
    return f"{number:,}" if isinstance(number, int) else f"{number:.3g}"


def share(part: float | None) -> Markup | str:
    """A share of one as a percentage with three significant digits; nearly all is never all."""
    if part is None:
        return UNKNOWN
    percent = 100 * part
    size = abs(percent)
    decimals = 1 if size >= 10 else 2 if size >= 0.1 else 3
    if size in (0, 100):
        decimals = 0
    elif 99.95 <= size < 100:
        decimals = 3
    return Markup('<span title="{!r}">{} %</span>').format(part, _signed(percent, decimals))


def points(difference: float | None) -> str:
    """A difference of scores, 0.02 of a score being two points."""
    if difference is None:
        return UNKNOWN
    shown = round(100 * difference, 1)
    return f"{_signed(shown, 1, plus=True)} pt" if shown else "0.0 pt"


def score(value: float | None) -> Markup:
    if value is None:
        return Markup('<span class="unscored">unscored</span>')
    return Markup('<span title="{!r}">{:.2f}</span>').format(value, value)


def number(value: Any) -> str:
    """Any small number or word as it stands, floats with three significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNKNOWN if value is None else visible(str(value))
    return f"{value:,}" if isinstance(value, int) else _minus(f"{value:.3g}")


def duration(milliseconds: int | float | None) -> str:
    if milliseconds is None:
        return UNKNOWN
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1_000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1_000), 60)
    return f"{minutes} min {seconds} s"


def iso(at_us: int) -> str:
    moment = datetime.datetime.fromtimestamp(at_us / _SECOND_US, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(at_us: int | None) -> Markup | str:
    """An absolute UTC time to the second."""
    if at_us is None:
        return UNKNOWN
    stamp = iso(at_us)
    shown = stamp.replace("T", " ").removesuffix("Z")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(stamp, shown, shown)


def clock(at_us: int) -> Markup:
    """The time of the day in UTC; the whole of it in ``title``."""
    stamp = iso(at_us)
    shown = stamp.replace("T", " ").removesuffix("Z")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(stamp, shown, shown[11:])


def ago(at_us: int | None, now_us: int | None = None) -> Markup | str:
    """How long ago, in the largest unit that fits; the absolute time in ``title``."""
    if at_us is None:
        return "never"
    now_us = time.time_ns() // 1_000 if now_us is None else now_us
    seconds = (now_us - at_us) // _SECOND_US
    shown = "now"
    for size, unit in _STEPS:
        if abs(seconds) >= size:
            shown = f"{abs(seconds) // size} {unit}" + (" ago" if seconds > 0 else " ahead")
            break
    stamp = iso(at_us)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        stamp, stamp.replace("T", " ").removesuffix("Z"), shown
    )


def cut(text: str, limit: int = CUT_CHARS) -> str:
    """The beginning of a long text, with how long it was."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n… cut here: {limit:,} of {len(text):,} characters shown"


def short(identifier: str, length: int = 8) -> Markup:
    """The head of a long identifier; all of it in ``title``."""
    text = visible(identifier)
    head = text.removeprefix("sha256:")[:length]
    return Markup('<code title="{}">{}</code>').format(text, head)


def repository(name: str) -> Markup | str:
    """Owner and name of a repository's URL; the whole of it in ``title``."""
    text = visible(name)
    if "://" not in text:
        return text
    tail = "/".join(text.rstrip("/").split("/")[-2:])
    return Markup('<span title="{}">{}</span>').format(text, tail)


def words(name: str) -> str:
    """A state or a check as people read it: ``gate_passed`` is ``gate passed``."""
    return str(name).replace("_", " ")


def glyph(state: str) -> str:
    """The sign that goes with a state's word, as colour alone says nothing to some."""
    return _STATES.get(str(state), ("·", "neutral"))[0]


def tone(state: str) -> str:
    """The state's style class: good, bad, doubt, canary, info or neutral."""
    return _STATES.get(str(state), ("·", "neutral"))[1]


def is_simulated(row: Mapping[str, Any]) -> bool:
    return str(row.get("org_path") or "").startswith("simulated")


def _signed(value: float, decimals: int, *, plus: bool = False) -> str:
    return _minus(f"{value:+.{decimals}f}" if plus else f"{value:.{decimals}f}")


def _minus(text: str) -> str:
    return "−" + text[1:] if text.startswith("-") else text


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "brief": brief,
    "clock": clock,
    "count": count,
    "cut": cut,
    "duration": duration,
    "iso": iso,
    "moment": moment,
    "money": money,
    "number": number,
    "points": points,
    "repository": repository,
    "score": score,
    "share": share,
    "short": short,
    "tone": tone,
    "glyph": glyph,
    "words": words,
}
