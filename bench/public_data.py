"""Where the public sets lie, and how their rows are read.

The sets are other people's data and are not shipped: a benchmark on them is told the folder with
``--data PATH``. Each set is a folder of its own in it, as ``docs/benchmarks`` lists them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loop.domain.errors import BadInput

RESULTS = Path(__file__).parent / "results"


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows ``--data``, which :func:`data_folder` reads."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds the public sets")
    return parser


def data_folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path:
    """The folder that was named; ends the program with a sentence if none was."""
    if options.data is None:
        parser.error(
            "name the folder that holds the public sets with --data PATH; "
            "they are not part of this project (docs/benchmarks says where they come from)"
        )
    folder: Path = options.data
    if not folder.is_dir():
        parser.error(f"{folder} is no folder")
    return folder


def read_rows(data: Path, name: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of one Parquet file of a set; raises :class:`BadInput` when it is not there."""
    import pyarrow.parquet

    path = data / name
    if not path.is_file():
        raise BadInput(
            f"{name} is not in the data folder.",
            why="Each public set has a folder of its own there.",
            fix="Name the folder that holds the sets with --data.",
        )
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    return rows


def machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "processors": os.cpu_count()}


def write_results(name: str, answer: dict[str, Any], text: str) -> None:
    """Keeps the figures as ``bench/results/<name>.json`` and the tables as ``.md``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")


def say(words: str) -> None:
    """Progress, beside the results."""
    print(words, file=sys.stderr, flush=True)
