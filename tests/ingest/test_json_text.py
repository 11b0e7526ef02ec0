"""Rows as JSON, and lines that go on after their object, against Spark's own text and Python's json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sparkrec.ingest import canonical, json_text
from sparkrec.ingest.formats import JsonLines

pytestmark = pytest.mark.spark

ALONE = [
    '{"a": 1}', ' {"a": {"b": [{"c": "}"}]}, "d": 2}\t', '{"a": "}"}', '{"a": "\\"}{"}', '{"a": "x}y"}', "{}",
    '{"a": 1},', '{"a": {}}],', '{"a": 1} ]', '{"a": 1}\x00', '{"a": 1}\u00a0\ufeff',
]  # fmt: skip
GOES_ON = [
    '{"a": 1}{"a": 2}', '{"a": 1} {"a": 2}', '{"a": 1}, {"a": 2}', '{"a": 1}],[{"a": 2}]', '{"a": {}}]"sparkrec',
    '{"a": 1}}', '{"a": 1},"b": 2}', '{"a": {"b": 1}} x', '{"a": 1} 5', '{"a": 1}{"a"', '{"a": 1},{}', '{} "}"',
]  # fmt: skip


def test_a_line_is_one_object_and_no_more(spark: Any) -> None:
    lines = ALONE + GOES_ON
    for line in lines:
        rest = line.strip()[json.JSONDecoder().raw_decode(line.strip())[1] :]
        assert bool(rest.strip(" \x00\u00a0\ufeff,]")) == (line in GOES_ON), line
    rows = spark.createDataFrame([(n, line) for n, line in enumerate(lines)], "line int, raw string")
    for names in (None, ("a",)):
        parsed = JsonLines().parse(rows, names=names).orderBy("line").collect()
        assert [row.raw for row in parsed if row.malformed] == GOES_ON
        assert [row.raw for row in parsed if row.fields is None] == GOES_ON


def test_a_time_keeps_its_microseconds_and_other_rows_their_text(spark: Any) -> None:
    from pyspark.sql import functions as F

    times = ["2024-02-03 04:05:06", "2024-02-03 04:05:06.7", "1969-12-31 23:59:59.999", None]
    odd = ["2024-02-03 04:05:06.000001", "1969-12-31 23:59:59.999999"]
    frame = spark.createDataFrame([(text,) for text in (*times, *odd)], "text string").selectExpr(
        "text",
        "CAST(text AS TIMESTAMP) AS `a.b`",
        "CAST(text AS TIMESTAMP_NTZ) AS wall",
        "1.5D AS x",
        "CAST(NULL AS STRING) AS none",
    )
    found = frame.select(json_text.of_rows(frame), F.to_json(F.struct(*[f"`{x}`" for x in frame.columns]))).collect()
    assert [row[0] for row in found[: len(times)]] == [row[1] for row in found[: len(times)]], "as Spark writes them"
    for row, text in zip(found[len(times) :], odd, strict=True):
        fields = json.loads(row[0])
        assert fields == {"text": text, "a.b": text.replace(" ", "T") + "Z", "wall": text.replace(" ", "T"), "x": 1.5}

    read = canonical.time_from_pattern(F.col("text"), "yyyy-MM-dd HH:mm:ss.SSSSSS")
    texts = [(f"2024-02-03 04:05:06.{decimals}",) for decimals in ("123456", "123000", "000000")]
    found = [row[0] for row in spark.createDataFrame(texts, "text string").select(read).collect()]
    assert found == [f"2024-02-03T04:05:06.{decimals}" for decimals in ("123456", "123", "000")]
