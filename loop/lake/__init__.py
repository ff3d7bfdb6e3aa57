"""Tables in Parquet on a folder or an S3-compatible store."""

from loop.lake.charge_keys import KEY_COLUMNS, KEY_PARTS
from loop.lake.compaction import LakePolicy
from loop.lake.lake import Lake
from loop.lake.queries import Order

__all__ = ["KEY_COLUMNS", "KEY_PARTS", "Lake", "LakePolicy", "Order"]
