"""The tables of a lake in an object store, which Spark and Python reach each by a client of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import drivers
import object_store
import pytest
import shop
from deltalake import DeltaTable

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.privacy import scan

pytestmark = [pytest.mark.workers, pytest.mark.slow]


def test_a_lake_in_a_store_is_as_one_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, files, folder = tmp_path / "bucket", tmp_path / "files", tmp_path / "folder"
    bucket.mkdir()
    spark = {"driver_memory": "1g", "shuffle_partitions": 2, "conf": drivers.INTERPRETED | object_store.hadoop(bucket)}
    store = {"path": f"s3a://{object_store.BUCKET}/lake", "files": str(files)}
    own = {"spark": spark, "recommend": {"models": ["popularity", "two_tower"]}}
    conf = shop.configuration(tmp_path / "a", tmp_path / "logs", lake=store, **own)
    run = ("sparkrec", "run", "--run-id", "one", "--conf")
    with object_store.served(bucket) as (environment, read):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        drivers.finish(drivers.start(*run, conf))
        lake = bucket / "lake"
        assert any(key.startswith("lake/gold/sequences/") and key.endswith(".parquet") for key in read)
        assert {path.name for path in files.iterdir()} == {".lake", "models", "reports"}, "no table"
        assert not {"models", "reports"} & {path.name for path in lake.iterdir()}

        shutil.copytree(lake, folder)
        local = shop.configuration(tmp_path / "b", tmp_path / "logs", lake={"path": str(folder)}, **own)
        drivers.finish(drivers.start(*run, local, "--from", "train_two_tower", "--until", "embed"))
        shop.assert_same_tables(lake, folder, (schemas.VECTORS_USERS, schemas.VECTORS_ITEMS))
        assert len(shop.rows(lake, schemas.RECOMMENDATIONS)) > 500

        table = DeltaTable(str(lake / schemas.VOCABULARY_USERS.name.replace(".", "/")))
        user = table.to_pyarrow_table(columns=[c.USER_ID])[c.USER_ID][0].as_py()
        file = table.file_uris()[0].replace(str(bucket), f"s3a://{object_store.BUCKET}")
        assert scan.in_file(file, scan.Needles.of([user]))[1], "the proof of an erasure reads the store's files"
