"""Persisted without their plan: the same rows, where they were, computed once and again where they are lost."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.persistence import persisted

pytestmark = pytest.mark.spark


def _plan(frame: DataFrame) -> str:
    return str(frame._jdf.queryExecution().analyzed().treeString())


@pytest.fixture
def sums(spark: Any) -> DataFrame:
    rows = spark.range(100).select((F.col("id") % 7).alias("k"), F.col("id").cast("double").alias("x"))
    return rows.groupBy("k").agg(F.sum("x").alias("total"), F.collect_list("x").alias("all"))


def test_rows_and_types_stay_and_the_plan_is_gone(sums: DataFrame) -> None:
    found = persisted(sums)
    assert found.schema == sums.schema
    assert sorted(found.collect()) == sorted(sums.collect())
    assert "Aggregate" in _plan(sums)
    assert "Aggregate" not in _plan(found)
    joined = found.join(found.withColumnRenamed("total", "other"), "k")
    assert joined.where("total = other").count() == 7, "with itself"


def test_no_rows(sums: DataFrame) -> None:
    assert persisted(sums.where("k > 100")).isEmpty()


def _counted(spark: Any) -> tuple[DataFrame, Any]:
    """0 to 9, and how many of them were computed so far."""
    seen = spark.sparkContext.accumulator(0)

    def count(batches: Any) -> Any:
        for batch in batches:
            seen.add(batch.num_rows)
            yield batch

    return spark.range(10).mapInArrow(count, "id bigint"), seen


@pytest.mark.parametrize("let_go", ["clearCache", "unpersist"])
def test_it_is_computed_once_and_again_where_it_is_lost(spark: Any, let_go: str) -> None:
    rows, seen = _counted(spark)
    before = spark.sparkContext._jsc.getPersistentRDDs().size()
    found = persisted(rows)
    for _ in range(2):
        assert found.agg(F.sum("id")).first()[0] == 45
    assert seen.value == 10
    # As if its executor had died: a local checkpoint would be gone.
    spark.catalog.clearCache() if let_go == "clearCache" else found.unpersist(blocking=True)
    assert spark.sparkContext._jsc.getPersistentRDDs().size() <= before
    assert found.agg(F.sum("id")).first()[0] == 45
    assert seen.value == 20


def test_it_is_computed_once_for_a_join_with_itself_wherever_its_rows_lie(spark: Any) -> None:
    rows, seen = _counted(spark)
    found = persisted(rows.select("id", (F.col("id") % 3).alias("k")).repartition("k").sortWithinPartitions("k"))
    sums = found.groupBy("k").agg(F.sum("id").alias("total"))
    assert found.join(sums, "k").agg(F.sum("total")).first()[0] == 4 * 18 + 3 * 12 + 3 * 15
    assert seen.value == 10


@pytest.mark.parametrize(("column", "shuffles"), [("k", 0), ("id", 1)])
def test_rows_stay_where_they_were_shuffled_to(spark: Any, column: str, shuffles: int) -> None:
    rows = spark.range(1000).select((F.col("id") % 7).alias("k"), "id").repartition("k").where("id > 5")
    plan = persisted(rows).groupBy(column).count()._jdf.queryExecution().executedPlan().toString()
    assert plan.count("Exchange") == shuffles


def test_a_column_that_is_gone_says_nothing_of_where_rows_are(spark: Any) -> None:
    rows = spark.range(1000).select((F.col("id") % 7).alias("k"), (F.col("id") % 3).alias("other")).repartition("k")
    found = persisted(rows.select("other")).groupBy("other").count()
    assert sorted(row[1] for row in found.collect()) == [333, 333, 334]
