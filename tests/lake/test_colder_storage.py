"""The lifecycle example against the S3 server process, as far as that enforces anything."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

from loop.lake import Lake
from tests.lake.lake_records import content, event, turn

EXAMPLE = Path(__file__).parents[2] / "examples" / "lake" / "lifecycle.json"


@pytest.mark.s3
def test_the_lifecycle_example_moves_data_files_only_and_colder_files_read_as_before(
    s3_store: tuple[str, dict[str, str]],
) -> None:
    """The server keeps the rules, and does not run them: files are moved by hand here."""
    uri, options = s3_store
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=options["aws_endpoint_url"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    rules = json.loads(EXAMPLE.read_text().replace("PREFIX", prefix))
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    kept = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [(r["Filter"], r["Transitions"]) for r in kept] == [
        (r["Filter"], r["Transitions"]) for r in rules["Rules"]
    ]
    assert not any("Expiration" in rule for rule in kept)

    lake = Lake.open(uri, options)
    lake.write_events([event(1)], journal="j", position=1)
    lake.write_turns([turn(1), turn(2)], [content(1)], revision=1)
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    reached = [
        key for key in keys if any(key.startswith(rule["Filter"]["Prefix"]) for rule in kept)
    ]
    assert {key.removeprefix(f"{prefix}/").split("/")[0] for key in reached} == {
        "events",
        "turns",
        "contents",
    }
    assert all(key.endswith(".parquet") and "_delta_log" not in key for key in reached)
    for key in reached:
        client.copy_object(
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": bucket, "Key": key},
            StorageClass="STANDARD_IA",
        )
    cold = Lake.open(uri, options)
    assert cold.turns_of(["s1"]) == [turn(1), turn(2)]
    assert cold.contents_of(["s1"]) == [content(1)]
    cold.compact()
    assert cold.turns_of(["s1"]) == [turn(1), turn(2)]
