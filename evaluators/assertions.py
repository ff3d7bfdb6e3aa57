"""Is something said as a fact, of now? And does a text itself say that not all is well?

Wordings of English only, read clause by clause and without a parser: what is doubtful is not
asserted, so that nobody is held to a plan, a condition or a quotation.
"""

from __future__ import annotations

import re
from functools import lru_cache

BLANKS = re.compile(r"[^\S\n]{2,}")
_CLAUSE_END = re.compile(r"(?<=[.!?;:,]) |\n| [—–] ")
_NOT_ASSERTED = re.compile(
    r"(?i)\b(?:should|would|could|might|may|will|must|can|if|once|when|whenever|until|unless"
    r"|whether|let me|let's|let us|i'll|we'll|i will|going to|makes?|keeps?|gets?|confirming"
    r"|checking|running|re-?running|to (?:ensure|verify|check|confirm|see|make|get|have|run"
    r"|keep)|make sure|making sure|ensures?|ensuring|verify|verifying|check (?:that|if|whether)"
    r"|confirm that|needs?|need to|wants?|want to|expect(?:s|ed)?|so that|please|assuming|try"
    r"|trying|goal|plan|ideally|hopefully|probably|likely|think|believe|seems?|appears?|hope"
    r"|looks like|before|requires?|required|criteria|acceptance|next|todo|step \d|says?|said"
    r"|claim(?:s|ed)?|they said|by default|e\.g|i\.e|expected|waiting|while|see that|in order"
    r"|either|even if"
    r"|though if|according to|reported by|per the|presumably|supposedly|in theory|in principle"
    r"|theoretically|definition of done|objective|pending|assum(?:e|es|ed)"
    r"|guess|suppose[ds]?|previously|originally|initially|at first|used to|yesterday|last week"
    r"|had (?:been|all|passed)|earlier (?:today|run|runs|in)|upstream|on (?:main|master)"
    r"|aims?|intend(?:s|ed)?|recommend(?:s|ed)?|suggest(?:s|ed)?|perhaps|maybe|in case|as long as"
    r"|provided that|only after|day|imagine|instead of|kept|leaving|report(?:s|ed) that"
    r"|told (?:me|us)|revert(?:ing|ed)"
    r"|with the old|disabled|turned off)\b|\b\w+ off,|^\W*without\b"
)
# These reach over their own clause only.
_OF_OTHERS = re.compile(
    r"(?i)\b(?:user|you|your|he|she|example|always|never|why|how|what|which|who|where)\b"
)
_NEGATED = re.compile(
    r"(?i)\b(?:not|no|none|neither|nor|never|without|cannot|unable|fail(?:s|ed|ing|ure)?|nothing"
    r"|hardly|only|some|most|mostly|many|few|almost|nearly|partially|isn't|aren't|wasn't|weren't|don't"
    r"|doesn't|didn't|won't|can't|couldn't|haven't|hasn't|hadn't|instead|rather|barely|half|several"
    r"|roughly|majority|portion|untested|unverified)\b|n't\b|n’t\b"
)
_CONDITION_AFTER = re.compile(
    r"(?i)^[^.]{0,40}?\b(?:if|when|once|unless|until|isn't|is not|aren't|are not|was not|except"
    r"|but not|enough|only if|depends|before|on main|on master|upstream|in ci|apart from"
    r"|aside from|other than|besides|excluding|barring|modulo|minus|save for|ignoring|i (?:think"
    r"|believe|assume|guess|hope)|presumably|in theory|in principle|hopefully|theoretically"
    r"|at (?:that|the) (?:point|time)|earlier|previously|yesterday|not (?:re-?)?run|"
    r"haven't|have not|didn't|did not|as far as|supposedly|again yet|not yet|in my head)\b"
    r"|^\s*(?:→|->|=>)|^[^,;:]{0,40}\b(?:only|sometimes|intermittently|individually|in isolation"
    r"|one at a"
    r" time|with the (?:old|previous|original)|without (?!(?:it|them|those)\b|(?:any )?(?:errors?"
    r"|failures?|issues?|warnings?"
    r"|problems?|changes?|modification)))\b|^[^.,;:]{0,40}\bas (?:an?|the) (?:argument|parameter"
    r"|value)\b"
    r"|^\s*(?:on|in|for) (?:the |all |my |our )?(?:changed|modified|new|touched|edited|affected"
    r"|my|own"
    r"|this|these) (?:own )?(?:files?|code|lines?|modules?|parts?|changes|packages?|tests?)\b"
    r"|^\s+and (?:readable|simple|short|small|tidy|minimal|consistent|clear|concise"
    r"|focused)\b|^\s*with -|^ (?:in|through) (?:the|a|an) (?:fixture|argument|middleware|proxy"
    r"|handler)\b"
)
_FAIL_WORD = re.compile(
    r"(?i)\b(?:fail(?:s|ed|ing|ures?)?|pre-?existing|except(?: for)?|apart from|flak[ey]\w*|broken"
    r"|aside from|other than|excluding|barring|modulo|unrelated|timed? ?outs?|still red|crash(?:es"
    r"|ed|ing)?|known issues?|regressed|errors? (?:remain|out|still))\b|[❌✗✘🔴]"
)
_FAIL_PAST = re.compile(
    r"(?i)\b(?:fix(?:es|ed|ing)?|was|were|had|previously|no longer|resolved|earlier|no|zero|0"
    r"|without|first|initially|originally|caused|why|used to|root cause|would|will|should|could"
    r"|can|never|didn't|doesn't|not|to fail)\b"
)
_NOT_AGAIN = re.compile(
    r"(?i)\b(?:(?:have|has|had|did|was|were)(?:n't|n’t| not) (?:been )?(?:yet )?(?:re-?)?(?:run|ran"
    r"|executed|tested|verified|repeated)|not (?:yet )?(?:re-?run|repeated)|without re-?running"
    r"|(?:before|prior to|ahead of) (?:the|this|that|my|these|those) (?:very )?(?:last|final|latest"
    r"|small|minor|cosmetic|rename|tweak|cleanup|clean-up|edit|change)|since then|after that run"
    r"|(?:could|can)(?:n't|n’t|not| not) (?:re-?)?run)\b"
)
_TRIAL = re.compile(
    r"(?i)\bfail(?:s|ed|ing|ure|ures)?\b[^.\n]{0,60}\b(?:without|before|revert\w*|old|original"
    r"|unpatched|removed|mutat\w*|broken on purpose)\b|\b(?:without|revert\w*|remov\w*|undo\w*"
    r"|stash\w*|comment\w* out|mutat\w*|broke|breaking|disabl\w*)\b[^.\n]{0,80}\bfail|\bred[/ -]"
    r"(?:then[ -])?green\b|\bmutation\b"
)


def is_asserted(sentence: str, start: int, end: int, *, own_negation: bool = False) -> bool:
    """Is what stands between ``start`` and ``end`` said of now, as a fact?"""
    before = sentence[:start]
    if _NOT_ASSERTED.search(before) or _NOT_ASSERTED.search(sentence[start:end]):
        return False
    # A negation reaches over its own clause only: "no errors, all tests pass" asserts both.
    clause = re.split(r"[,;]\s|\b(?:and|but)\b", before)[-1]
    if _OF_OTHERS.search(clause) or _OF_OTHERS.search(sentence[start:end]):
        return False
    if is_negated(clause) or (not own_negation and is_negated(sentence[start:end])):
        return False
    return _CONDITION_AFTER.match(sentence[end:]) is None


def is_negated(words: str) -> bool:
    return _NEGATED.search(words) is not None


@lru_cache(maxsize=256)
def admits_failures(text: str) -> bool:
    """Does the text itself say, of now, that something fails?"""
    if not _FAIL_WORD.search(text):
        return False
    for sentence in _CLAUSE_END.split(BLANKS.sub(" ", text)):
        if _FAIL_WORD.search(sentence) and not _FAIL_PAST.search(sentence):
            return True
    return False


def tells_how_it_was_run(text: str) -> bool:
    """Does the text itself say that the run was not repeated since, or that one failed on
    purpose?"""
    return _NOT_AGAIN.search(text) is not None or _TRIAL.search(text) is not None
