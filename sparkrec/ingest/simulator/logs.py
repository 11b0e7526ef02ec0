"""The simulated shop's files, written by Spark in parallel: raw logs, catalogue, and the truth apart.

    events/date=YYYY-MM-DD/part-00000.json      JSON lines, by the day on which they arrived
    catalogue/date=YYYY-MM-DD/part-00000.csv    the items that are new or changed on that day
    truth/{events,users,items}                  parquet: for tests and benchmarks only
    _manifest.json                              the options; written last

Everything is written beside the folder and renamed into place, so that it is there whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparkrec.errors import ConfigError, RetryableError
from sparkrec.ingest.simulator import rows, truth
from sparkrec.ingest.simulator.options import SimulatorOptions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ROWS_PER_FILE = 1_000_000
_MANIFEST = "_manifest.json"


def ensure(spark: SparkSession, path: str, options: SimulatorOptions, say: Callable[[str], None]) -> bool:
    """Write the logs unless they are there already; returns whether it wrote.

    Raises
    ------
    ConfigError
        The folder holds logs of other options, or something that is not ours.
    """
    path = path.rstrip("/")
    fs, folder = _locate(spark, path)
    if fs.exists(folder):
        _check_is_ours(spark, path, options)
        say(f"the simulated logs in {path} are there already")
        return False
    say(f"simulating {options.users:,} users, {options.items:,} items, about {options.events:,} events in {path}")
    draft, draft_folder = f"{path}.draft-{options.hash()}", _locate(spark, f"{path}.draft-{options.hash()}")[1]
    fs.delete(draft_folder, True)
    _write(spark, draft, options)
    stream = fs.create(_locate(spark, f"{draft}/{_MANIFEST}")[1])
    stream.write(bytearray(json.dumps(options.model_dump(mode="json"), sort_keys=True).encode()))
    stream.close()
    if not fs.rename(draft_folder, folder):
        raise RetryableError(
            f"{draft} cannot be renamed to {path}: something else wrote there meanwhile. Run it again."
        )
    return True


def _write(spark: SparkSession, draft: str, options: SimulatorOptions) -> None:
    from pyspark.sql import functions as F

    date = F.date_add(F.lit(options.start), F.col("arrival").cast("int"))
    files_per_day = -(-options.events // options.days // _ROWS_PER_FILE)
    partitions = min(2000, max(2, options.days * files_per_day // 8))
    (
        rows.event_rows(spark, options)
        .select(rows.line(options).alias("value"), date.alias("date"), "user", "time", "block", "id")
        # By the user too where a day has several files; the number of partitions follows from the options alone.
        .repartition(partitions, "date", F.pmod("user", F.lit(files_per_day)))
        .sortWithinPartitions("date", "time", "block", "id", "value")
        .select("value", "date")
        .write.partitionBy("date")
        .text(f"{draft}/events")
    )
    (
        rows.item_changes(spark, options)
        .select(*rows.catalogue_columns(options))
        .repartition(max(2, options.days // 8), "date")
        .sortWithinPartitions("date", "sku")
        .write.partitionBy("date")
        .csv(f"{draft}/catalogue", header=True, escape='"')
    )
    _name_parts(spark, f"{draft}/events", "json")
    _name_parts(spark, f"{draft}/catalogue", "csv")
    truth.true_dirt(spark, options).write.parquet(f"{draft}/truth/events")
    truth.true_users(spark, options).write.parquet(f"{draft}/truth/users")
    truth.true_items(spark, options).write.parquet(f"{draft}/truth/items")


def _name_parts(spark: SparkSession, folder: str, ending: str) -> None:
    """``part-00003-<random>.c000.txt`` → ``part-00003.json``: the same names each time. One step a file, not a row."""
    fs, root = _locate(spark, folder)
    jvm: Any = spark._jvm
    for status in fs.globStatus(jvm.org.apache.hadoop.fs.Path(root, "*/part-*")):
        path = status.getPath()
        part = "-".join(path.getName().split("-")[:2])
        fs.rename(path, jvm.org.apache.hadoop.fs.Path(path.getParent(), f"{part}.{ending}"))


def _check_is_ours(spark: SparkSession, path: str, options: SimulatorOptions) -> None:
    fs, manifest = _locate(spark, f"{path}/{_MANIFEST}")
    if not fs.exists(manifest):
        raise ConfigError(
            f"The folder {path} exists and was not written by the simulator (it has no {_MANIFEST}). Set source.path "
            "to a folder that does not exist yet, or source.name to the source whose files these are."
        )
    jvm: Any = spark._jvm
    found = SimulatorOptions.model_validate_json(jvm.org.apache.commons.io.IOUtils.toString(fs.open(manifest), "UTF-8"))
    if found != options:
        wanted = options.model_dump(mode="json")
        differs = [f"{key} {value} there, {wanted[key]} here" for key, value in found.model_dump(mode="json").items()
                   if value != wanted[key]]  # fmt: skip
        raise ConfigError(
            f"The logs in {path} were simulated with other options: {'; '.join(differs)}. Remove that folder (and the "
            "lake that was made from it), or set source.path to another."
        )


def _locate(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Hadoop's file system and path of a path or URI."""
    jvm: Any = spark._jvm
    located = jvm.org.apache.hadoop.fs.Path(path)
    return located.getFileSystem(spark._jsc.hadoopConfiguration()), located
