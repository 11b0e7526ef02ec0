"""Frames that are used more than once, computed once, and without the plans that grow with every use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark import StorageLevel

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def persisted(frame: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK) -> DataFrame:
    """The same rows, computed once, in memory or on disk, without the plan that made them.

    What ``persist`` leaves still carries that plan: whatever is made of it has it analysed, compared with all that is
    persisted and written out, again and again, and a join of it with what was made of it copies it. For small rows this
    is most of what a job's driver does. Here only the rows are left: read by column, distributed as they were, and
    computed again where an executor takes its part of them with it, which a checkpoint's are not. What has to be
    shuffled for them is shuffled now. ``unpersist``, or ``spark.catalog.clearCache``, lets them go.
    """
    spark = frame.sparkSession
    jvm: Any = spark._jvm
    sql, some, query = jvm.org.apache.spark.sql, jvm.scala.Option, frame._jdf.queryExecution()
    rows = query.toRdd()
    of_rows = getattr(getattr(sql.execution, "LogicalRDD$"), "MODULE$")
    known = of_rows.fromDataset(rows, frame._jdf, False)
    plan = sql.execution.LogicalRDD(
        known.output(), rows, _distribution(query.executedPlan(), known), known.outputOrdering(), False, some.empty(),
        spark._jsparkSession, some.apply(known.stats()), some.apply(known.constraints()),
    )  # fmt: skip
    kept = type(frame)(sql.classic.Dataset.ofRows(spark._jsparkSession, plan), spark).persist(level)
    # The relation itself: Spark finds what is persisted by comparing plans, and of a frame that is joined with itself,
    # and whose distribution is known, it would not find the second one, and compute it again.
    held = spark._jsparkSession.sharedState().cacheManager().lookupCachedData(kept._jdf)
    relation = held.get().cachedRepresentation()
    result = type(frame)(sql.classic.Dataset.ofRows(spark._jsparkSession, relation), spark)
    result.unpersist = kept.unpersist  # type: ignore[method-assign]  # Spark lets go what it finds, by its plan
    return result


def _distribution(executed: Any, known: Any) -> Any:
    """How the rows lie, if by columns that they have."""
    if executed.getClass().getSimpleName() == "AdaptiveSparkPlanExec":  # it does not say it of what it became
        executed = executed.executedPlan()
    found = executed.outputPartitioning()
    by_columns = found.getClass().getSimpleName() in ("HashPartitioning", "CoalescedHashPartitioning")
    return found if by_columns and found.references().subsetOf(known.outputSet()) else known.outputPartitioning()
