"""Spend by developer from the tables, without turnwise: DuckDB over the files that Delta names.

``python read_with_duckdb.py STORE`` needs ``deltalake`` and ``duckdb`` from PyPI, no extension.
"""

import sys

import duckdb
from deltalake import DeltaTable

files = DeltaTable(f"{sys.argv[1]}/turns").file_uris()
rows = duckdb.sql(
    """
    SELECT developer, count(*) AS turns, sum(cost_microusd)::BIGINT AS cost_microusd FROM (
        SELECT * FROM read_parquet($files, hive_partitioning = true, union_by_name = true)
        QUALIFY row_number() OVER (
            PARTITION BY session_id, turn_id ORDER BY revision DESC, "commit" DESC) = 1
    ) WHERE NOT removed GROUP BY developer ORDER BY cost_microusd DESC NULLS LAST""",
    params={"files": files},
).fetchall()
for developer, turns, cost_microusd in rows:
    print(developer, turns, cost_microusd)
