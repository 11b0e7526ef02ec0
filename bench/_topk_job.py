"""The Spark side of bench/topk.py: our job from Delta to Delta, Spark's own way to the same lists, and the memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.jobs.recommend import recommend
from sparkrec.pipeline import Run, execute
from sparkrec.retrieval import catalogue, join

MODEL = "als"
Lists = tuple[np.ndarray, np.ndarray]


def settings(folder: Path, k: int) -> Settings:
    """One model, and the most popular for nobody: every user has a vector."""
    return Settings.model_validate(
        {
            "name": "bench",
            "lake": {"path": str(folder / "lake")},
            "source": {"name": "simulator", "path": "logs"},
            "spark": {"driver_memory": "4g"},  # Spark's own way to the lists needs it
            "recommend": {"k": k, "models": [MODEL]},
            "evaluate": {"ks": [k], "primary": f"ndcg@{k}"},
            "tracking": {"enabled": False},
        }
    )


def lake(chosen: Settings, users: np.ndarray, items: np.ndarray, seen: Lists) -> None:
    """The tables that recommend reads."""
    run = Run(chosen, "featurize")
    lengths = np.diff(seen[0])
    flat = {
        c.EVENT_TYPE: np.zeros(len(seen[1]), np.int8), c.EVENT_TIME: np.zeros(len(seen[1]), np.int64),
        c.VALUE: np.zeros(len(seen[1]), np.float32), c.VALIDATION: np.zeros(len(seen[1]), bool), c.ITEM_INDEX: seen[1],
    }  # fmt: skip
    sequences = {
        c.USER_INDEX: _index(users),
        c.CHUNK: np.zeros(len(users), np.int32),
        c.LENGTH: lengths.astype(np.int32),
    }
    sequences |= {
        name: pa.ListArray.from_arrays(pa.array(seen[0], pa.int32()), pa.array(v)) for name, v in flat.items()
    }
    tables: dict[schemas.Table, dict[str, Any]] = {
        schemas.GOLD_SEQUENCES: sequences,
        schemas.VOCABULARY_USERS: {c.USER_ID: _names("u", users), c.USER_INDEX: _index(users)},
        schemas.GOLD_ITEMS: {c.ITEM_ID: _names("i", items), c.ITEM_INDEX: _index(items)},
    }
    for table, columns in tables.items():
        _write(run, table, columns)
    run.finish()
    ones = np.ones((len(items), 1), np.float32)
    for stage, model, vectors in (("train_popularity", "popularity", ones), ("train_als", MODEL, items)):
        run = Run(chosen, stage)
        where = {c.RUN_ID: run.run_id, c.MODEL: model}
        found = {c.ITEM_ID: _names("i", items), c.ITEM_INDEX: _index(items), c.VECTOR: _lists(vectors)}
        _write(run, schemas.VECTORS_ITEMS, found, where)
        if model == MODEL:
            found = {c.USER_ID: _names("u", users), c.USER_INDEX: _index(users), c.VECTOR: _lists(users)}
            _write(run, schemas.VECTORS_USERS, found, where)
        run.finish()


def ours(chosen: Settings, users: int) -> tuple[float, Run]:
    """Users a second of the whole job, and its run."""
    run = Run(chosen, "recommend")
    start = time.perf_counter()
    execute(recommend, run)
    return users / (time.perf_counter() - start), run


def written(run: Run, sample: Iterable[int]) -> dict[int, list[int]]:
    """Item indices of some users' lists, as they stand in the table."""
    names = [f"u{user}" for user in sample]
    rows = run.lake.read(schemas.RECOMMENDATIONS, run.outputs["recommendations"]).where(
        f"{c.USER_ID} IN {tuple(names)}"
    )
    found: dict[int, list[int]] = {}
    for row in rows.where(f"{c.RUN_ID} = '{run.run_id}'").orderBy(c.RANK).collect():
        found.setdefault(int(row[c.USER_ID][1:]), []).append(int(row[c.ITEM_ID][1:]))
    return found


def sparks(run: Run, k: int, most: int, sample: int) -> tuple[float, dict[int, list[int]]]:
    """Users a second of recommendForUserSubset for k + the most that anyone has seen, then an anti-join; its lists."""
    from pyspark.ml.recommendation import ALSModel
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    where = {c.RUN_ID: run.run_id, c.MODEL: MODEL}
    users, items = (
        run.read(table, where).select(F.col(index).alias("id"), F.col(c.VECTOR).alias("features")).cache()
        for table, index in ((schemas.VECTORS_USERS, c.USER_INDEX), (schemas.VECTORS_ITEMS, c.ITEM_INDEX))
    )
    users.count(), items.count()
    first, jvm = items.head(), run.spark._jvm
    assert first
    assert jvm
    found = jvm.org.apache.spark.ml.recommendation.ALSModel("als", len(first["features"]), users._jdf, items._jdf)
    found = found.setUserCol("user").setItemCol("item").setPredictionCol("prediction").setBlockSize(4096)
    model = ALSModel(found)
    start = time.perf_counter()
    some = users.where(F.col("id") < sample).select(F.col("id").alias("user"))
    seen = run.read(schemas.GOLD_SEQUENCES).where(F.col(c.USER_INDEX) < sample)
    pairs = seen.select(F.col(c.USER_INDEX).alias("user"), F.explode(c.ITEM_INDEX).alias("item"))
    found = model.recommendForUserSubset(some, k + most).select("user", F.explode("recommendations").alias("r"))
    left = found.select("user", "r.item", "r.rating").join(pairs, ["user", "item"], "left_anti")
    order = Window.partitionBy("user").orderBy(F.desc("rating"), "item")
    ranked = left.withColumn("rank", F.row_number().over(order)).where(F.col("rank") <= k).collect()
    seconds = time.perf_counter() - start
    users.unpersist(), items.unpersist()
    lists: dict[int, list[int]] = {}
    for row in sorted(ranked, key=lambda row: row["rank"]):
        lists.setdefault(row["user"], []).append(row["item"])
    return sample / seconds, lists


def memory(run: Run) -> list[dict[str, float]]:
    """Of each Python worker of one join: megabytes of the item files that it has mapped, and its share (PSS)."""
    shelf = catalogue.offered(run.read(schemas.GOLD_ITEMS), True)
    where = {c.RUN_ID: run.run_id, c.MODEL: MODEL}
    items = catalogue.publish(catalogue.stocked(shelf), run.read(schemas.VECTORS_ITEMS, where), MODEL)
    users = join.with_seen(run.read(schemas.VOCABULARY_USERS), run.read(schemas.GOLD_SEQUENCES), ("view",))
    frame = join.with_vectors(users, run.read(schemas.VECTORS_USERS, where)).repartition(2)
    work = join.lists_kernel(items, items, None, 10, 4096, None)

    def watched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import os

        for _ in work(batches):
            pass
        mapped = {"Rss": 0, "Pss": 0}
        inside = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                inside = line.endswith(".npy")
            elif inside and line.split(":")[0] in mapped:
                mapped[line.split(":")[0]] += int(line.split()[1])
        time.sleep(1)  # until the other worker has looked, too
        yield pa.RecordBatch.from_pydict({"pid": [os.getpid()]} | {name: [kb / 1024] for name, kb in mapped.items()})

    return [row.asDict() for row in frame.mapInArrow(watched, "pid long, Rss double, Pss double").collect()]


def _write(run: Run, table: schemas.Table, columns: dict[str, Any], where: dict[str, str] | None = None) -> None:
    """Columns that are not given are null."""
    from pyspark.sql import functions as F

    given = run.spark.createDataFrame(pa.table(columns))
    frame = given.select(
        *(
            (
                F.lit((where or {})[field.name])
                if field.name in (where or {})
                else F.col(field.name) if field.name in columns else F.lit(None)
            ).cast(field.dataType).alias(field.name)
            for field in table.struct()
        )
    )  # fmt: skip
    run.write(table, frame, where)


def _index(vectors: np.ndarray) -> np.ndarray:
    return np.arange(len(vectors), dtype=np.int32)


def _names(letter: str, vectors: np.ndarray) -> list[str]:
    return [f"{letter}{n}" for n in range(len(vectors))]


def _lists(vectors: np.ndarray) -> pa.Array:
    n, d = vectors.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * d, pa.int32()), pa.array(vectors.reshape(-1)))
