"""Tables in Parquet on a folder or an S3-compatible store."""

from loop.lake.compaction import LakePolicy
from loop.lake.lake import Lake

__all__ = ["Lake", "LakePolicy"]
