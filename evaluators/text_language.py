"""Is a text written in another language than English?

The claim grammar reads English only. A text in another language must be told from one that claims
nothing; a text of which that can't be told (short, mostly code) counts as English. By script, and
by the commonest function words of languages that share English's script: no model, and no guess at
which language it is.
"""

from __future__ import annotations

import re

READ_CHARS = 4_000
MIN_WORDS = 6
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|[\w./-]+\.\w{1,5}\b|[\w.]*[/_]\w[\w./]*", re.S
)
_WORD = re.compile(r"[^\W\d_]+")
_OTHER_SCRIPT = re.compile(
    "[\u0370-\u052f\u0590-\u06ff\u0900-\u0dff\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
_ENGLISH = frozenset(
    """
    the and of to in is are was it that this with for on as be have has i you we now all not from by
    no or at an its were which been will
    """.split()  # noqa: SIM905
)
_OTHERS = frozenset(
    """
    der die das und ist nicht ein eine mit für auf den dem wurde wurden sind habe alle ich auch
    jetzt het een niet zijn van voor deze naar werd nu aan ook
    le la les des une est dans pour avec sur sont qui que tous toutes aux du cette mais plus
    el los las una para con por del ahora todas todos está están fue han más pero como se
    os uma não foi são agora você mas com ao da dos
    il gli una per sono è nel della che ho ora tutti tutte adesso questo
    och att det som är på av för jag har inte og på er ikke
    nie się jest są wszystkie oraz został została teraz że jsem jsou byl byla všechny nyní
    ve bir için bu tüm olarak değil şimdi dan yang untuk dengan semua sudah telah ini
    các đã và không của được cho
    """.split()  # noqa: SIM905
)  # German, Dutch, Romance, Scandinavian, Slavic, Turkish, Indonesian, Vietnamese


def is_foreign(text: str) -> bool:
    """Is ``text``, code left out, surely not English?"""
    prose = _CODE.sub(" ", text[:READ_CHARS])
    letters = sum(map(str.isalpha, prose))
    if letters and len(_OTHER_SCRIPT.findall(prose)) > 0.3 * letters:
        return True
    words = [word.lower() for word in _WORD.findall(prose)]
    if len(words) < MIN_WORDS:
        return False
    english = sum(word in _ENGLISH for word in words)
    others = sum(word in _OTHERS for word in words)
    return others >= 3 and others > 3 * english and others > 0.1 * len(words)
