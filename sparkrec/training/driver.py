"""The job's side of a training: the plan from the lake, Spark's settings for the ranks, the lines of progress."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.models import two_tower
from sparkrec.schemas import Table
from sparkrec.training import manifest, memory, placement, warm_start
from sparkrec.training.placement import Planned
from sparkrec.training.plan import CHOSEN, Memory, Plan, Question

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

# What belongs to the job's own application and must not be handed to another.
_OWN = (
    "spark.app.", "spark.driver.port", "spark.executor.id", "spark.sql.", "spark.databricks.", "spark.ui.port",
    "spark.rdd.compress", "spark.submit.deployMode",
    "spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions", "spark.hadoop.fs.s3a.vectored",
)  # fmt: skip


def model_folder(run: Run) -> Path:
    """Where plan, checkpoints and model of a run lie."""
    return run.folder("models", two_tower.NAME, run.run_id)


def chosen_folder(run: Run) -> Path:
    """Where the model lies that validation chose, trained without the validation events: for the ranker."""
    return model_folder(run) / CHOSEN


def make_plan(run: Run, versions: Mapping[Table, int]) -> Plan:
    """Which rank reads what of the pinned tables, how large the embedding tables are, and what they begin with."""
    settings = run.settings.two_tower
    sizes = {
        "users": _rows(run, schemas.VOCABULARY_USERS, c.USER_INDEX),
        "items": _rows(run, schemas.VOCABULARY_ITEMS, c.ITEM_INDEX),
        "features": _rows(run, schemas.VOCABULARY_FEATURES, c.FEATURE_INDEX),
    }
    as_of = _as_of(run)
    base = warm_start.find(run, model_folder(run).parent, sizes, as_of)
    if base:
        run.say(warm_start.describe(base))
        settings = warm_start.adjusted(settings)
    manifests = {
        table.name: manifest.of_table(run.lake.path(table), version, table.name, settings.ranks)
        for table, version in versions.items()
    }
    plan = Plan(
        folder=str(model_folder(run)),
        two_tower=settings.model_dump(mode="json"),
        sizes=sizes,
        sequences=manifests[schemas.GOLD_SEQUENCES.name],
        items=manifests[schemas.GOLD_ITEMS.name],
        spark_conf=launch_conf(dict(run.spark.sparkContext.getConf().getAll())),
        as_of=as_of,
        base=base,
        keep_chosen="ranker" in run.settings.recommend.models,
        question=question(run.settings, as_of),
    )
    memory.write(run, plan)
    return plan


def recorded(run: Run) -> set[str]:
    """The attempts of trainings whose results stand in this run's records."""
    details = (json.loads(row[c.DETAILS]) for row in run.known_records() if row[c.STAGE] == run.stage)
    return {detail["two_tower"]["attempt"] for detail in details if "attempt" in detail.get("two_tower", {})}


def question(settings: Settings, as_of: int) -> Question:
    """What the epochs are chosen on: what the test part will ask, or what the served head is there for.

    ``as_of`` : the events lie before this time, unix seconds.
    """
    head, answers = settings.two_tower.head, settings.recommend
    asked = (head,) if head else settings.features.target_types
    return Question(asked, answers.exclude_seen, _memory(settings, as_of))


def _memory(settings: Settings, as_of: int) -> Memory | None:
    """What ``recommend`` would have forgotten before the validation events; under splits not by time, before ``as_of``,
    as at the test."""
    from sparkrec.retrieval import rules

    if not rules.forgets(settings.recommend):
        return None
    split, given = settings.split, settings.recommend.rules
    days = split.validation_days if split.kind == "time" else 0
    again = tuple((rule.items, rule.again_after_days) for rule in given if rule.again_after_days is not None)
    return Memory(int(as_of - 86_400 * days), settings.recommend.seen_days, again)


def launch_conf(conf: Mapping[str, str]) -> dict[str, str]:
    """The job's Spark settings for the ranks' application, less what is the job's own."""
    wanted = {key: value for key, value in conf.items() if not key.startswith(_OWN)}
    if wanted.get("spark.master", "").startswith("local"):
        wanted |= {"spark.driver.host": "localhost", "spark.driver.bindAddress": "127.0.0.1"}
    return wanted | {"spark.ui.enabled": "false"}


class Listener:
    """Ranks' log lines become progress; MLflow gets the tables' plan, the epochs as curves, and the bytes sent."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "epoch" and event["rank"] == 0:
            names = ("loss", "recall", "ndcg", "examples_per_second")
            values = {f"{event['phase']}.{name}": event[name] for name in names if name in event}
            self._run.tracker.metrics(values, event["epoch"])
        elif kind == "placement":
            self._run.tracker.params({f"placement.{row['table']}": row["placement"] for row in event["tables"]})
            self._run.tracker.table(event["tables"], "placement.json")
        elif kind == "bytes":
            total = sum(event["sent"].values())
            sent = {f"bytes_a_step.{name}": value for name, value in event["sent"].items()}
            self._run.tracker.metrics(sent | {"bytes_a_step": total})
        for line in filter(None, describe(event).split("\n")):
            self._run.say(line)


def describe(event: Mapping[str, Any]) -> str:
    """A line of progress, a table in several, or nothing."""
    kind = event["event"]
    if kind == "rows":
        return (
            f"rank {event['rank']} on {event['host']}: read {event['rows']:,} rows of {event['row_groups']} row "
            f"group(s), trains on {event['users']:,} users with {event['events']:,} events"
        )
    if kind == "step":
        return (
            f"{event['phase']} epoch {event['epoch']}/{event['epochs']} step {event['step']}/{event['steps']}: loss "
            f"{event['loss']:.4f}, {event['examples_per_second']:,.0f} examples/s, {event['seconds_left']:.0f} s left"
        )
    if kind == "epoch" and event["rank"] == 0:
        scored = f", recall@20 {event['recall']:.4f}, ndcg@20 {event['ndcg']:.4f}" if "ndcg" in event else ""
        speed = f"{event['examples_per_second']:,.0f} examples/s"
        return f"{event['phase']} epoch {event['epoch']} done: loss {event['loss']:.4f}{scored}, {speed}"
    if kind == "equal":
        return (
            f"rank {event['rank']} of {event['ranks']}: last step done, variables {event['hash']}, equal on all ranks"
        )
    if kind == "placement":
        return "\n".join(placement.report([Planned(**row) for row in event["tables"]]))
    if kind == "bytes":
        listed = ", ".join(f"{name} {sent:,}" for name, sent in event["sent"].items())
        return f"bytes that a rank sent in a step: {listed}"
    return str(event["text"]) if kind == "note" else ""


def _rows(run: Run, table: Table, index: str) -> int:
    from pyspark.sql import functions as F

    highest = run.read(table).agg(F.max(index)).head()
    return 0 if highest is None or highest[0] is None else int(highest[0]) + 1


def _as_of(run: Run) -> int:
    """The time before which this run's training events lie, unix seconds."""
    from pyspark.sql import functions as F

    latest = run.read(schemas.GOLD_ITEMS).agg(F.unix_timestamp(F.max(c.AS_OF))).head()
    return 0 if latest is None or latest[0] is None else int(latest[0])
