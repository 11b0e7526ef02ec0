"""Row groups are dealt out once each, evenly."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import object_store
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError
from hypothesis import given
from hypothesis import strategies as st

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.training.manifest import Manifest, Piece, deal, of_table, open_file, read

PIECES = st.lists(st.integers(0, 1000), max_size=30).map(
    lambda rows: [Piece(f"f{i % 3}", i // 3, n) for i, n in enumerate(rows)]
)


@pytest.mark.unit
@given(pieces=PIECES, ranks=st.integers(1, 6))
def test_every_row_group_goes_to_one_rank_and_none_is_overloaded(pieces, ranks):
    hands = deal(pieces, ranks)
    assert len(hands) == ranks
    assert sorted((p for hand in hands for p in hand), key=str) == sorted(pieces, key=str)
    loads = [sum(p.rows for p in hand) for hand in hands]
    assert max(loads) - min(loads) <= max((p.rows for p in pieces), default=0)


@pytest.mark.unit
def test_a_manifest_survives_json():
    manifest = Manifest("gold.sequences", 4, deal([Piece("a", 0, 5), Piece("a", 1, 3)], 3))
    assert Manifest.load(json.loads(json.dumps(asdict(manifest)))) == manifest
    assert manifest.rows == 8


@pytest.mark.unit
@pytest.mark.parametrize("folder", ["plain", "with a blank", "grün", "100%", "a?b#c"])
def test_files_are_found_whatever_their_folder_is_called(tmp_path, folder):
    """deltalake encodes the names of the folders above a table, and not those of its own partitions."""
    table, parts = tmp_path / folder / "table", ["x y", "50%"]
    table.mkdir(parents=True)
    write_deltalake(table, pa.table({"number": [1, 2], "part": parts}), partition_by=["part"])
    pieces = [piece for hand in of_table(str(table), 0, "gold.sequences", 2).ranks for piece in hand]
    numbers = []
    for piece in pieces:
        with open_file(piece.path) as file:
            numbers += pq.read_table(file)["number"].to_pylist()
    assert sorted(numbers) == [1, 2]


@pytest.mark.unit
def test_a_folder_called_as_an_encoded_one_is_not_found(tmp_path):
    """Why such a lake.path is refused (sparkrec.config). When deltalake finds it, it need not be any more."""
    table = tmp_path / "a%20b" / "table"
    table.mkdir(parents=True)
    write_deltalake(tmp_path / "table", pa.table({"number": [1, 2]}))
    shutil.copytree(tmp_path / "table", table, dirs_exist_ok=True)
    with pytest.raises(DeltaError, match="not found"):
        of_table(str(table), 0, "gold.sequences", 2)


@pytest.mark.spark
def test_the_pinned_version_is_read_and_not_the_newest(make_run):
    run = make_run("featurize")
    name = c.FEATURE_INDEX

    def write(n):
        rows = [(f"f{i}", i, 1, None, None) for i in range(n)]
        frame = run.spark.createDataFrame(rows, schemas.VOCABULARY_FEATURES.struct())
        return run.lake.overwrite(schemas.VOCABULARY_FEATURES, frame)[0]

    old, new = write(3), write(8)
    for version, expected in ((old, 3), (new, 8)):
        found = of_table(run.lake.path(schemas.VOCABULARY_FEATURES), version, "gold.vocabulary_features", ranks=2)
        assert found.rows == expected
        index = []
        for piece in (piece for hand in found.ranks for piece in hand):
            with open_file(piece.path) as file:
                index += pq.ParquetFile(file).read_row_group(piece.row_group, columns=[name])[name].to_pylist()
        assert sorted(index) == list(range(expected))


def test_a_table_in_a_store_is_read_by_its_protocol(tmp_path, monkeypatch):
    table = tmp_path / "grün é" / "sequences"
    write_deltalake(str(table), pa.table({"a": [1, 2, 3], "p": ["x y", "x y", "z"]}), partition_by=["p"])
    with object_store.served(tmp_path) as (environment, keys):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = of_table(f"s3a://{object_store.BUCKET}/grün é/sequences", 0, "gold.sequences", 2)
        rows = [read(piece, ["a"])["a"].to_pylist() for pieces in found.ranks for piece in pieces]
    assert sorted(rows) == [[1, 2], [3]]
    assert {key.rpartition(".")[2] for key in keys} == {"json", "parquet"}
