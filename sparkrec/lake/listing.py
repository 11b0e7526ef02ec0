"""The files of a table's version, listed once: Delta searches them with Spark jobs, anew for every use of a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Of more files the search is worth its price: it leaves out those whose statistics say that they hold no wanted row.
MOST_FILES = 100


def listed(frame: DataFrame) -> DataFrame:
    """A frame of a Delta table at a version, as Delta reads it: the same, with the list of its files if they are few.

    Delta's own commands read the files that they have found in this way. Partitions are still pruned by filters.
    """
    spark = frame.sparkSession
    jvm: Any = spark._jvm
    index = frame._jdf.queryExecution().analyzed().collectLeaves().head().relation().location()
    snapshot, nothing = index.getSnapshot(), jvm.scala.Option.empty()
    known = snapshot.numOfFilesIfKnown()
    if known.isEmpty() or known.get() > MOST_FILES:
        return frame
    scala = getattr(getattr(jvm.scala.jdk.javaapi, "CollectionConverters$"), "MODULE$")
    files = scala.asScala(snapshot.allFiles().collectAsList()).toSeq()
    return type(frame)(index.deltaLog().createDataFrame(snapshot, files, False, nothing), spark)
