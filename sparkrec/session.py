"""The SparkSession: Delta, Arrow, UTC; local by default, whatever spark-submit says on a cluster."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkrec.config import Spark
from sparkrec.config.secrets import is_secret
from sparkrec.errors import ConfigError
from sparkrec.progress import say

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

# What every session needs; spark-submit cannot switch these off.
_REQUIRED = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # Delta would keep the partitions that a write of a whole table has no rows for: those of its last version.
    "spark.sql.sources.partitionOverwriteMode": "static",
    # A bad value becomes null and the row is refused with a reason, instead of failing the job.
    "spark.sql.ansi.enabled": "false",
    # Logs come in any encoding that Java knows, such as windows-1252; a byte that is none becomes �, as in UTF-8.
    "spark.sql.legacy.javaCharsets": "true",
    "spark.sql.legacy.codingErrorAction": "true",
    # Delta would refuse a version whose own commit is a week old although its files are there: that of a weekly job's
    # last run. What may be removed, and when, is for `sparkrec maintain` to say.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
    # The trainer reads the parquet files themselves: no rows may hide in deletion vectors.
    "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
}
# Sensible defaults, each open to spark-submit and to `spark.conf` in the configuration.
_DEFAULTS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.stats.skipping": "true",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    # Rows of one folder, as those of a run's lists are, need not be sorted by folder: sort from the second folder on.
    "spark.sql.maxConcurrentOutputFileWriters": "2",
    "spark.python.worker.reuse": "true",
    # To look for the best encoding of each column is a fifth of persisting a frame; its blocks are compressed anyway.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    # A method of more bytes than this is never compiled by the JVM: half the speed where a plan's whole code is one.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # Noting the line of Python of every column costs as much as half of all calls; switch it on to hunt a defect.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # A plan is written out for each action and each frame that is kept, and one that rests on kept frames holds theirs.
    # To render its expressions costs a fifth of what a small job's driver does: leave them out.
    "spark.sql.debug.maxToStringFields": "0",
    "spark.sql.maxPlanStringLength": "10000",
    "spark.sql.ui.explainMode": "simple",
    # The driver remembers what it ran for a page that nobody sees.
    "spark.sql.ui.retainedExecutions": "20",
    "spark.log.level": "ERROR",
}
_LOG4J = Path(__file__).with_name("log4j2.properties")
#: Spark's classes as requirements/classes.py left them: a JVM that maps them starts in two thirds of the time.
CLASSES = Path(sys.prefix, "spark.jsa")


def get_session(settings: Spark, app_name: str = "sparkrec") -> SparkSession:
    """The running session, or a new one. Settings that spark-submit was given win over ours.

    Raises
    ------
    ConfigError
        Delta's jars are not on the classpath, or Java does not start.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    python = os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", python)
    conf = configuration(settings, app_name)
    try:
        start_jvm(conf)
        session = SparkSession.builder.config(conf=conf).getOrCreate()
        session.sparkContext.setLogLevel(conf.get("spark.log.level", "ERROR"))
        if _submitted() and (text := too_small(session, settings)):
            say("spark", text, 0)
        jvm: Any = session._jvm
        jvm.java.lang.Class.forName(
            "io.delta.sql.DeltaSparkSessionExtension",
            False,
            jvm.Thread.currentThread().getContextClassLoader(),
        )
    except Exception as error:
        if "DeltaSparkSessionExtension" in str(error) or "ClassNotFound" in str(error):
            raise ConfigError(
                "Delta's jars are not on Spark's classpath. Run 'make setup', or pass "
                "--packages io.delta:delta-spark_4.1_2.13:4.4.0 (or --jars) to spark-submit."
            ) from error
        if "JAVA_GATEWAY_EXITED" in str(error):
            raise ConfigError(
                "Java did not start. Java 17 is needed: sudo apt-get install openjdk-17-jre-headless"
            ) from error
        raise
    return session


def check_place(spark: SparkSession, path: str) -> None:
    """Spark and Python mean the same folder by it.

    Raises
    ------
    ConfigError
        It has no scheme, and Spark's default file system is not the machine's own.
    """
    jvm: Any = spark._jvm
    default = jvm.org.apache.hadoop.fs.FileSystem.getDefaultUri(
        spark.sparkContext._jsc.hadoopConfiguration()
    ).toString()
    if "://" not in path and not default.startswith("file:"):
        raise ConfigError(
            f"lake.path is {path}, which Spark takes for a folder of its default file system ({default}) and the ranks "
            f"for one of their machine. Say which: file://{path}, or an address such as {default.rstrip('/')}{path}."
        )


def configuration(settings: Spark, app_name: str) -> SparkConf:
    """What a new session is made with: ours, where spark-submit was given nothing else."""
    from pyspark import SparkConf, SparkContext

    submitted = _submitted()
    if submitted:
        SparkContext._ensure_initialized()  # or a SparkConf sees nothing of the JVM's, and would later hide it
    conf = SparkConf() if submitted else SparkConf().setMaster(settings.master)
    wanted = _DEFAULTS | {
        "spark.app.name": app_name,
        "spark.driver.memory": settings.driver_memory,
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
    }
    if not submitted:  # the JVM is not there yet, so that its log can still be chosen
        log = f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}"
        wanted["spark.driver.extraJavaOptions"] = f"{log} {known_classes()}"
    if conf.get("spark.master", settings.master).startswith("local"):
        wanted |= {
            "spark.sql.warehouse.dir": os.path.join(tempfile.gettempdir(), "sparkrec-warehouse"),
            "spark.driver.host": "localhost",
            "spark.driver.bindAddress": "127.0.0.1",
        }
    for key, value in (wanted | settings.conf).items():
        conf.setIfMissing(key, value)
    for key, value in _REQUIRED.items():
        extensions = conf.get(key) if key == "spark.sql.extensions" else None
        if extensions and value not in extensions:
            value = f"{extensions},{value}"
        conf.set(key, value)
    return conf


def _submitted() -> bool:
    """Whether spark-submit started the JVM, and this process."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def too_small(session: SparkSession, settings: Spark) -> str | None:
    """What to say of a JVM that spark-submit started with less memory than is configured: it cannot be given more."""
    jvm: Any = session._jvm
    wanted = jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(settings.driver_memory)
    there = jvm.java.lang.Runtime.getRuntime().maxMemory()
    if there >= 0.8 * wanted:
        return None
    return (
        f"spark.driver_memory is {settings.driver_memory}, and spark-submit gave this driver {there / 2**30:.1f} GB. "
        f"Pass --driver-memory {settings.driver_memory} to it"
    )


def start_jvm(conf: SparkConf) -> None:
    """The JVM, where there is none yet, with all settings but secrets on its command line, which everybody can read."""
    from pyspark import SparkConf, SparkContext

    shown = SparkConf(loadDefaults=False).setAll([(key, value) for key, value in conf.getAll() if not is_secret(key)])
    SparkContext._ensure_initialized(conf=shown)


def known_classes() -> str:
    """The Java option for a JVM of this environment; a Java that the classes were not made for leaves them aside."""
    return f"-XX:SharedArchiveFile={CLASSES} -Xlog:cds*=off" if CLASSES.exists() else ""
