"""Files as numbered records, text above all, without a global order and without a loop.

Spark's ids (``monotonically_increasing_id``) are consecutive within a split of a file. So the first id and the
number of lines of every split, which are few, give each line its number: id - first id + lines in the splits before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from sparkrec import columns as c

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row, SparkSession

    from sparkrec.ingest.files import File, Folder

_PATH, _BLOCK, _ID, _FIRST_ID, _BEFORE = "_path", "_block", "_id", "_first_id", "_before"


def read_lines(folder: Folder, files: Sequence[File], encoding: str, header: bool) -> tuple[DataFrame, dict[str, str]]:
    """Lines of text files that are not blank, and the header of each file (by name; empty without headers).

    Returns
    -------
    DataFrame
        source_file, line (from 1, blank lines and the header counted), header, raw, source_bytes.
    """
    from pyspark.sql import functions as F

    text = folder.spark.read.text([file.for_spark for file in files])
    rows, headers = number(folder, text, _decoded(F.col("value"), encoding), header)
    if header:
        rows = rows.where(F.col(c.LINE) > 1)
    return rows.where(F.trim(c.RAW) != ""), headers


def number(folder: Folder, records: DataFrame, raw: Column, header: bool = False) -> tuple[DataFrame, dict[str, str]]:
    """``raw`` of each record of a frame of files, numbered within its file; columns and headers as above."""
    from pyspark.sql import functions as F

    with_fixed_splits(folder.spark)
    rows = records.select(
        F.col("_metadata.file_path").alias(_PATH),
        F.col("_metadata.file_block_start").alias(_BLOCK),
        F.col("_metadata.file_size").alias(c.SOURCE_BYTES),
        F.monotonically_increasing_id().alias(_ID),
        raw.alias(c.RAW),
    )
    splits = rows.groupBy(_PATH, _BLOCK).agg(F.min(_ID).alias(_FIRST_ID), F.count("*").alias(c.COUNT)).collect()
    headers = _headers(rows, splits) if header else {}
    placed = _place(folder, splits, headers)
    numbers = f"{_BLOCK} bigint, {_FIRST_ID} bigint, {_BEFORE} bigint"
    schema = f"{_PATH} string, {numbers}, {c.SOURCE_FILE} string, {c.HEADER} string"
    index = F.broadcast(folder.spark.createDataFrame(placed, schema))
    line = F.col(_ID) - F.col(_FIRST_ID) + F.col(_BEFORE) + 1
    moved = F.raise_error(F.lit("sparkrec: the splits of the files changed between two passes"))
    numbered = rows.join(index, [_PATH, _BLOCK], "left").select(
        c.SOURCE_FILE, F.coalesce(line, moved.cast("bigint")).alias(c.LINE), c.HEADER, c.RAW, c.SOURCE_BYTES
    )
    return numbered, {folder.relative(path): first for path, first in headers.items()}


def offsets(counts: Sequence[int]) -> list[int]:
    """Lines before each split, from the lines in each: [3, 5, 2] → [0, 3, 8]."""
    before, total = [], 0
    for count in counts:
        before.append(total)
        total += count
    return before


def with_fixed_splits(spark: SparkSession) -> None:
    """Files are cut into splits by the number of cores; executors that come and go must not move the cuts."""
    key = "spark.sql.files.minPartitionNum"
    if spark.conf.get(key, None) is None:
        spark.conf.set(key, str(spark.sparkContext.defaultParallelism))


def _by_file(splits: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for path, blocks in groupby(sorted(splits, key=itemgetter(_PATH, _BLOCK)), key=itemgetter(_PATH)):
        yield path, list(blocks)


def _headers(rows: DataFrame, splits: Sequence[Row]) -> dict[str, str]:
    """Path → first line, by a pass of its own: Spark sorts all rows for an aggregate that holds a text."""
    from pyspark.sql import functions as F

    firsts = {path: blocks[0][_FIRST_ID] for path, blocks in _by_file(splits)}
    wanted = F.broadcast(rows.sparkSession.createDataFrame([(id_,) for id_ in firsts.values()], f"{_ID} bigint"))
    found = {row[_PATH]: row[c.RAW] for row in rows.join(wanted, _ID, "left_semi").select(_PATH, c.RAW).collect()}
    return {path: found[path] for path in firsts}


def _place(folder: Folder, splits: Sequence[Row], headers: Mapping[str, str]) -> list[tuple[object, ...]]:
    placed: list[tuple[object, ...]] = []
    for path, blocks in _by_file(splits):
        for block, before in zip(blocks, offsets([block[c.COUNT] for block in blocks]), strict=True):
            placed.append((path, block[_BLOCK], block[_FIRST_ID], before, folder.relative(path), headers.get(path)))
    return placed


def _decoded(value: Column, encoding: str) -> Column:
    """Bytes that Spark took for UTF-8, as text, without a byte-order mark."""
    from pyspark.sql import functions as F

    utf8 = encoding.lower().replace("-", "") == "utf8"
    text = F.make_valid_utf8(value) if utf8 else F.decode(value.cast("binary"), encoding)
    return F.when(text.startswith("\ufeff"), F.substring(text, 2, 2**31 - 1)).otherwise(text) if utf8 else text
