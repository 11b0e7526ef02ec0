"""A new day in gold against computing everything: seconds, processor time and files written, of the same lake.

``increments.py [EVENTS]``, by default three million in 60 days. Silver is made directly, a folder a day. A user comes
on some day and goes within a few: of each day's users, most have been there before, and most of all never come back.
Everything runs on all cores of this machine, one after the other, in one session.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _processes import processor_seconds
from _results import claim, save
from deltalake import DeltaTable

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.jobs.featurize import featurize
from sparkrec.pipeline import Run, execute

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

DAYS, FIRST = 60, dt.date(2026, 1, 1)
BLOCK = 1000
TABLES = (schemas.GOLD_SEQUENCES, schemas.GOLD_PAIRS, schemas.GOLD_USERS)
TARGET = 10.0


def events(run: Run, number: int, first: int, last: int) -> DataFrame:
    """Rows of silver.events of the days ``first`` to ``last``; the same for the same number."""
    users, items = number // 40, max(1000, number // 1000)
    # A user's day of arrival, and how long after it an event lies: on average three days. The last ones are not yet.
    log = run.spark.range(number).selectExpr(
        f"CAST(pmod(xxhash64(id), {users}) AS INT) AS user", "id",
        f"CAST({items} * pow(pmod(xxhash64(id, 1), 1000003) / 1000003, 3) AS INT) AS item",
        "pmod(xxhash64(id, 2), 1000003) / 1000003 AS drawn", "pmod(xxhash64(id, 3), 100) AS kind",
        "pmod(xxhash64(id, 4), 86400) AS second",
    ).selectExpr(
        "*", f"CAST({DAYS} * (user / {users}) - 3 * ln(1 - drawn) AS INT) AS day"
    )  # fmt: skip
    made = log.where(f"day BETWEEN {first} AND {last}").selectExpr(
        "CAST(id AS STRING) AS event_id", "concat('u', user) AS user_id", "concat('i', item) AS item_id",
        "CASE WHEN kind < 80 THEN 'view' WHEN kind < 90 THEN 'cart' ELSE 'purchase' END AS event_type",
        f"timestampadd(SECOND, second, timestampadd(DAY, day, TIMESTAMP'{FIRST}')) AS event_time",
        f"date_add(DATE'{FIRST}', day) AS event_date", "1.0D AS value", "10.0D + item % 90 AS price",
        "'DE' AS country", "id AS line", "1 AS copies", "false AS cancelled",
    )  # fmt: skip
    missing = [x for x in schemas.SILVER_EVENTS.columns if x.name not in made.columns]
    return made.selectExpr("*", *[f"CAST(NULL AS {x.type}) AS {x.name}" for x in missing])


def silver(settings: Settings, number: int, last: int, only: bool) -> None:
    """The days until ``last``, or that day alone; no suspects, and a catalogue without a history."""
    run = Run(settings, "clean")
    day = FIRST + dt.timedelta(days=last)
    rows = events(run, number, last if only else 0, last).hint("rebalance", c.EVENT_DATE)
    run.write(schemas.SILVER_EVENTS, rows, f"event_date = DATE'{day}'" if only else None)
    suspects = run.spark.createDataFrame([], schemas.SILVER_SUSPECTS.struct())
    run.write(schemas.SILVER_SUSPECTS, suspects)
    made = run.spark.range(max(1000, number // 1000)).selectExpr(
        "concat('i', id) AS item_id", f"TIMESTAMP'{FIRST}' AS valid_from", "concat('Item ', id) AS name",
        "concat('Brand ', id % 50) AS brand", "array(concat('C', id % 20)) AS category", "10.0D + id % 90 AS price",
        "true AS for_sale", "1 AS copies",
    )  # fmt: skip
    missing = [x for x in schemas.SILVER_ITEMS.columns if x.name not in made.columns]
    run.write(schemas.SILVER_ITEMS, made.selectExpr("*", *[f"CAST(NULL AS {x.type}) AS {x.name}" for x in missing]))
    run.finish()


def measured(settings: Settings, day: int) -> tuple[Run, float, float]:
    """A run of featurize until a day: the run, seconds, and processor seconds of this process, its JVM and workers."""
    run = Run(settings, "featurize", FIRST + dt.timedelta(days=day))
    begin, spent = time.perf_counter(), processor_seconds(os.getpid())
    execute(featurize, run)
    return run, time.perf_counter() - begin, processor_seconds(os.getpid()) - spent


def files(run: Run) -> dict[str, set[str]]:
    """Of each table of users, the files that the run leaves."""
    return {t.name: set(DeltaTable(run.lake.path(t), version=run.outputs[t.name]).file_uris()) for t in TABLES}


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000_000
    with tempfile.TemporaryDirectory() as folder:
        base = {
            "name": "bench", "lake": {"path": str(Path(folder) / "lake")}, "tracking": {"enabled": False},
            "source": {"name": "generic", "path": "unused"}, "split": {"test_days": 1, "validation_days": 1},
            "features": {"block_users": BLOCK},
            "spark": {"master": f"local[{os.cpu_count()}]", "driver_memory": "3g", "shuffle_partitions": 4},
        }  # fmt: skip
        settings = Settings.model_validate(base)
        whole = Settings.model_validate(base | {"features": {"block_users": BLOCK, "full": True}})
        silver(settings, number, DAYS - 2, only=False)
        before, *_ = measured(settings, DAYS - 2)
        silver(settings, number, DAYS - 1, only=True)
        day, day_seconds, day_spent = measured(settings, DAYS - 1)
        _, all_seconds, all_spent = measured(whole, DAYS - 1)
        old, new = files(before), files(day)
        done = day.details["increment"]
        if done["why_full"] is not None:
            raise AssertionError(f"no increment: {done['why_full']}")
        written = ", ".join(f"{len(new[name] - old[name])} of {len(new[name])} files of {name}" for name in new)
    claims = [
        claim(f"featurize, day {DAYS} of {number:,} events against all days", [1 / day_seconds], [1 / all_seconds],
              "runs/s", TARGET),
        claim("the same, processor time", [1 / day_spent], [1 / all_spent], "runs/s", TARGET),
    ]  # fmt: skip
    note = (
        f"{day.counts['users']:,} users in folders of {BLOCK:,}; the day changes {done['events']['users']:,} of them "
        f"in {done['events']['blocks']} folders, and writes {written}. The day: {day_seconds:.0f} s, {day_spent:.0f} s "
        f"of processor time; all: {all_seconds:.0f} s, {all_spent:.0f} s."
    )
    print(note)
    save("increments", claims, note)


if __name__ == "__main__":
    main()
