"""Spark's plans where they grow: each frame carries the plan that it rests on, and each use works it out anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark import StorageLevel

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def cut(frame: DataFrame) -> DataFrame:
    """The same rows, kept in memory or on disk, without the plan that made them: for few columns and many uses.

    A join of a frame with what was made of it copies the plan of one side and analyses it again, so a chain of such
    joins costs the driver seconds, however few the rows. A checkpoint would cut as well, but this one is computed again
    where an executor takes its part of the rows with it. Whoever reads it reads all columns; it forgets how the rows
    were distributed.
    """
    spark = frame.sparkSession
    jvm: Any = spark._jvm
    kept = frame.persist(StorageLevel.MEMORY_AND_DISK)._jdf
    rows = kept.queryExecution().toRdd()
    of_rows = getattr(getattr(jvm.org.apache.spark.sql.execution, "LogicalRDD$"), "MODULE$")
    plan = of_rows.fromDataset(rows, kept, False)
    return type(frame)(jvm.org.apache.spark.sql.classic.Dataset.ofRows(spark._jsparkSession, plan), spark)
