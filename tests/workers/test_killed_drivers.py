"""Every job dies in its middle and is run again: the tables are those of the run that nobody disturbed.

A death is a copy of the lake, taken while the process is stopped: what ``kill -9`` leaves on the disk at that instant,
for a copy's price. Processes that are killed for good are in ``test_disturbed_lake.py``, ``test_killed_erase.py`` and
the tests of training.
"""

from __future__ import annotations

import random
from pathlib import Path

import drivers
import pytest
import shop
from deltalake import DeltaTable

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.pipeline import STAGES

pytestmark = [pytest.mark.workers, pytest.mark.slow]


#: Deaths of a job, and its lines of progress after which they are.
DEATHS = dict.fromkeys(STAGES, (1, 2)) | {"ingest": (2, 3), "clean": (3, 6), "featurize": (5, 12)}
RANKED = {"recommend": {"models": ["popularity", "als", "two_tower", "ranker"]}, "ranker": {"leaf_rows": 20}}
#: ``jobs/X.py --conf …`` for each pair of arguments, with a session of its own, in one driver of ``spark-submit``: most
#: of a job that is submitted alone is the start of its JVM.
AGAIN = """
import runpy, sys
from pyspark.sql import SparkSession
for stage, conf in zip(sys.argv[1::2], sys.argv[2::2]):
    sys.argv = [f"jobs/{stage}.py", "--conf", conf]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    SparkSession.getActiveSession().stop()
"""


def test_died_in_each_job_and_run_again_is_as_quiet(tmp_path: Path) -> None:
    chance = random.Random(11)
    moments = {
        stage: sorted((chance.randint(1, last), round(chance.uniform(0, 1), 2)) for _ in range(deaths))
        for stage, (deaths, last) in DEATHS.items()
    }
    spark = {"driver_memory": "1g", "shuffle_partitions": 2, "conf": drivers.INTERPRETED}
    conf = shop.configuration(tmp_path, tmp_path / "logs", spark=spark, **RANKED)
    process = drivers.start("sparkrec", "run", "--conf", conf)
    died = drivers.copied(process, tmp_path / "lake", tmp_path / "died", moments)
    drivers.finish(process)

    unfinished = [stage for stage, folder in died if stage not in records(folder)]
    again: list[str | Path] = []
    for stage, folder in died:
        own = {"lake": {"path": str(folder)}, "spark": spark}
        again += [stage, shop.configuration(folder / "conf", tmp_path / "logs", **own, **RANKED)]
    driver = tmp_path / "again.py"
    driver.write_text(AGAIN)
    drivers.finish(shop.submit(driver, *again))

    assert len(died) == sum(deaths for deaths, _ in DEATHS.values()) == 17
    assert len(unfinished) > len(died) / 2, "worth comparing"
    versions: dict[str, int] = {}
    quiet = records(tmp_path / "lake")
    for stage in STAGES:
        versions |= quiet[stage]
        for folder in (folder for of, folder in died if of == stage):
            for table in (table for table in shop.PIPELINE if table.name in versions):
                expected = shop.rows(tmp_path / "lake", table, versions[table.name])
                assert shop.rows(folder, table) == expected, f"{table.name} differs after {stage} in {folder.name}"
    assert {table.name for table in shop.PIPELINE} == set(versions)


def records(lake: Path) -> dict[str, dict[str, int]]:
    """Of each job that is done, the versions that it left."""
    path = lake / schemas.RUNS.name
    rows = DeltaTable(str(path)).to_pyarrow_table().to_pylist() if DeltaTable.is_deltatable(str(path)) else []
    return {row[c.STAGE]: dict(row[c.OUTPUTS]) for row in rows}
