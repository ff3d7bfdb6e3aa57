"""A search for bodies that break a decoder, led by what they reach in it (Atheris, libFuzzer).

``python -m tests.collectors.fuzz_search SECONDS [CORPUS]``: ``make fuzz`` runs it for minutes, a
test for seconds. It ends with a code other than 0 at the first finding, which it writes beside the
corpus.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found, unused-ignore]

with atheris.instrument_imports(include=["collectors", "tests.collectors"]):
    from tests.collectors import fuzz_decoders

LARGEST_BYTES = 65_536
MEMORY_MB = 1024
LONGEST_SECONDS = 10


def main(seconds: int, corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(fuzz_decoders.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={LARGEST_BYTES}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={LONGEST_SECONDS}",
        f"-artifact_prefix={corpus}/found-",
        str(corpus),
    ]
    atheris.Setup(arguments, fuzz_decoders.check)
    atheris.Fuzz()


if __name__ == "__main__":
    given = sys.argv[2:]
    main(int(sys.argv[1]), Path(given[0] if given else tempfile.mkdtemp(prefix="turnwise-fuzz-")))
