"""Leaves the classes that Spark and Delta start with in a file that later JVMs map: a third of a start and more.

An archive of class data (JEP 350), for this Java and these jars; another Java ignores it.
"""

import tempfile
from typing import Any

from sparkrec import config, schemas, session
from sparkrec.lake.tables import Lake


def main() -> None:
    session.CLASSES.unlink(missing_ok=True)
    options = f"-XX:ArchiveClassesAtExit={session.CLASSES} -Xlog:cds*=off"
    conf = {"spark.driver.extraJavaOptions": options}
    with tempfile.TemporaryDirectory() as folder:
        spark = session.get_session(config.Spark(driver_memory="1g", shuffle_partitions=2, conf=conf), "classes")
        rows = spark.range(100).selectExpr("'r' run_id", "'m' model", "int(id)", "string(id)", "array(float(id))")
        lake = Lake(folder, spark)
        lake.overwrite(schemas.VECTORS_USERS, rows.toDF(*schemas.VECTORS_USERS.column_names), {"run_id": "r"})
        lake.read(schemas.VECTORS_USERS).groupBy("model").count().collect()
        gateway: Any = spark.sparkContext._gateway
        spark.stop()
        gateway.proc.stdin.close()  # the JVM ends, and writes the file
        gateway.proc.wait()


if __name__ == "__main__":
    main()
