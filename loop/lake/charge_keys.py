"""The day, the organization path, the developer and the model of a charge in one text.

Sums by these four are asked for more than any others. A settled file's rows have few combinations,
so its dictionary encodes them in one column, and DuckDB then looks a combination up once per row
group instead of hashing four texts per row. What separates the parts is escaped inside of them: no
two combinations share a text.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

CHARGE_KEY = "charge_key"

_SEPARATOR, _ESCAPE = "\x1f", "\x1e"
_ESCAPED = {_ESCAPE: f"{_ESCAPE}0", _SEPARATOR: f"{_ESCAPE}1"}  # in this order


def _part(place: int) -> str:
    text = f"parts[{place}]"
    for plain, escaped in reversed(_ESCAPED.items()):
        text = f"replace({text}, chr({ord(_ESCAPE)}) || '{escaped[1:]}', chr({ord(plain)}))"
    return text


KEY_PARTS = f"string_split({CHARGE_KEY}, chr({ord(_SEPARATOR)})) AS parts"
KEY_COLUMNS = {
    "day": "parts[1]",
    "org_path": _part(2),
    "developer": _part(3),
    "model": _part(4),
}
"""SQL that takes a key apart: what it says of each column, from its ``KEY_PARTS``."""


def with_charge_key(turns: pa.Table, day: str) -> pa.Table:
    """Turns of one day in the stored schema, each with the key that its other columns give."""
    org_path, developer, served, requested = (
        pc.fill_null(turns[name].cast(pa.string()), "")
        for name in ("org_path", "developer", "served_model", "requested_model")
    )
    model = pc.if_else(pc.equal(served, ""), requested, served)
    parts = [org_path, developer, model]
    for plain, escaped in _ESCAPED.items():
        parts = [pc.replace_substring(part, plain, escaped) for part in parts]
    key = pc.binary_join_element_wise(pa.scalar(day), *parts, _SEPARATOR)
    names = turns.column_names
    if CHARGE_KEY not in names:
        return turns.append_column(CHARGE_KEY, key)
    return turns.set_column(names.index(CHARGE_KEY), CHARGE_KEY, key)
