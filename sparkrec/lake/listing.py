"""The files of a table's version, listed once: Delta searches them with Spark jobs, anew for every use of a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Of more files the search is worth its price: it leaves out those whose statistics say that they hold no wanted row.
MOST_FILES = 100


def listed(frame: DataFrame) -> DataFrame:
    """A frame of a Delta table at a version, as Delta reads it: the same, with the list of its files if they are few.

    Delta's own commands read the files that they have found in this way. Partitions are still pruned by filters. Where
    the version's checksum, which Delta writes beside most commits, names the files, the log need not be replayed: that
    takes three Spark jobs, half a second for each table that a job reads.
    """
    spark = frame.sparkSession
    jvm: Any = spark._jvm
    index = _index(frame)
    snapshot, nothing = index.getSnapshot(), jvm.scala.Option.empty()
    files = _noted(snapshot)
    if files is None:
        if snapshot.numOfFiles() > MOST_FILES:
            return frame
        scala = getattr(getattr(jvm.scala.jdk.javaapi, "CollectionConverters$"), "MODULE$")
        files = scala.asScala(snapshot.allFiles().collectAsList()).toSeq()
    return type(frame)(index.deltaLog().createDataFrame(snapshot, files, False, nothing), spark)


def hides_rows(frame: DataFrame) -> bool:
    """Whether deletion vectors hide rows in the files of a Delta table that a frame reads."""
    return not _index(frame).getSnapshot().allFiles().toDF().filter("deletionVector IS NOT NULL").isEmpty()


def _index(frame: DataFrame) -> Any:
    """Which files Delta reads for a frame of a table."""
    return frame._jdf.queryExecution().analyzed().collectLeaves().head().relation().location()


def _noted(snapshot: Any) -> Any:
    """The files, if few, that the version's checksum names; None: it does not name them, or is not there."""
    checksum = snapshot.checksumOpt()
    files = checksum.get().allFiles() if checksum.isDefined() else checksum
    whole = files.isDefined() and files.get().size() == checksum.get().numFiles()
    return files.get() if whole and files.get().size() <= MOST_FILES else None
