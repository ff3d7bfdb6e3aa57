"""What is known of sessions beside their turns, for estimates: quality, waiting time, language."""

from __future__ import annotations

from loop.domain.scores import QUALITY
from loop.lake import Lake

LANGUAGES = {
    "c": "C", "cc": "C++", "cpp": "C++", "cs": "C#", "css": "CSS", "dart": "Dart", "ex": "Elixir",
    "go": "Go", "h": "C", "hpp": "C++", "html": "HTML", "java": "Java", "js": "JavaScript",
    "jsx": "JavaScript", "kt": "Kotlin", "lua": "Lua", "md": "Markdown", "php": "PHP",
    "py": "Python", "r": "R", "rb": "Ruby", "rs": "Rust", "scala": "Scala", "sh": "Shell",
    "sql": "SQL", "swift": "Swift", "tf": "Terraform", "ts": "TypeScript", "tsx": "TypeScript",
    "vue": "Vue", "yaml": "YAML", "yml": "YAML",
}  # fmt: skip
"""Languages by the ending of a file's name."""


def read_quality(lake: Lake) -> dict[str, float]:
    """The quality of every scored session."""
    rows = lake.query(
        "SELECT session_id, value FROM scores WHERE evaluator = ? AND value IS NOT NULL", [QUALITY]
    )
    return {row["session_id"]: row["value"] for row in rows}


def read_wait_seconds(lake: Lake) -> dict[str, float]:
    """How long the requests of each session took in all, where all of them say so."""
    rows = lake.query(
        "SELECT session_id, sum(duration_ms) / 1000.0 AS seconds FROM turns "
        "GROUP BY session_id HAVING count(*) = count(duration_ms)"
    )
    return {row["session_id"]: row["seconds"] for row in rows}


def read_languages(lake: Lake) -> dict[str, str]:
    """The language of the files that each session's tools read or edited most often; sessions
    whose texts are not stored, or that touched no file of a known kind, have none."""
    rows = lake.query(
        """
        SELECT session_id, lower(regexp_extract(text, '"file_path"\\s*:\\s*"[^"]*\\.(\\w+)"', 1))
            AS ending, count(*) AS uses
        FROM contents WHERE kind = 'tool_input' GROUP BY session_id, ending
        HAVING ending <> ''
        ORDER BY session_id, uses, ending
        """
    )
    return {
        row["session_id"]: LANGUAGES[row["ending"]] for row in rows if row["ending"] in LANGUAGES
    }


def labels_of(lake: Lake) -> dict[str, dict[str, str]]:
    """Names of sessions to slice estimates by, by dimension."""
    return {"language": read_languages(lake)}
