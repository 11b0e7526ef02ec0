"""What evaluate writes down: the rows of the metrics table, and the report put together from a run's records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation.comparison import Comparison, Measure
from sparkrec.evaluation.exposure import Exposure
from sparkrec.evaluation.report import Report
from sparkrec.models import two_tower
from sparkrec.pipeline import STAGES, Run
from sparkrec.training.warm_start import STAGE as TRAINING
from sparkrec.training.warm_start import last_full

Shown = Mapping[tuple[str, int], Exposure]


def metric_rows(run_id: str, measures: Sequence[Measure], shown: Shown) -> list[dict[str, Any]]:
    """Rows of the metrics table: means over test users, then the breadth of everyone's lists."""
    rows = [
        {
            c.RUN_ID: run_id, c.MODEL: m.model, c.METRIC: m.metric, c.K: m.k, c.SEGMENT: m.segment,
            c.VALUE: m.value, c.LOW: m.low, c.HIGH: m.high, c.N_USERS: m.n_users,
        }
        for m in measures
    ]  # fmt: skip
    return rows + [
        {
            c.RUN_ID: run_id, c.MODEL: model, c.METRIC: metric, c.K: k, c.SEGMENT: "all",
            c.VALUE: value, c.LOW: None, c.HIGH: None, c.N_USERS: None,
        }
        for model, metric, k, value in breadth(shown)
    ]  # fmt: skip


def breadth(shown: Shown) -> list[tuple[str, str, int, float]]:
    """(model, metric, k, value) of what is not a mean over users."""
    return [
        (model, name, k, float(getattr(exposure, name)))
        for (model, k), exposure in sorted(shown.items())
        for name in ("coverage", "gini")
    ]


def gains(found: Sequence[Comparison], primary: tuple[str, int]) -> list[dict[str, Any]]:
    """What the models of new users and new items gain on the primary metric, by segment, for the run record."""
    parts = [part for comparison in found for part in comparison.gains(*primary).items()]
    return [{c.SEGMENT: segment, **asdict(gain)} for segment, rows in parts for gain in rows]


def report(
    run: Run,
    comparison: Comparison,
    shown: Shown,
    log: Exposure,
    people: Sequence[Mapping[str, Any]],
    holdout: DataFrame,
    traded: Mapping[str, Any] | None = None,
    newcomers: Sequence[Comparison] = (),
    new_items: int = 0,
    reliability: Sequence[Mapping[str, Any]] | None = None,
) -> Report:
    """The report of a run: what was just measured, and what the stages before recorded."""
    metric, _, k = run.settings.evaluate.primary.partition("@")
    pairs = holdout.agg(F.count("*"), F.count_if(F.col(c.ITEM_INDEX).isNull())).first()
    assert pairs is not None
    curves = [("the log", log.curve())]
    curves += [(model, shown[model, int(k)].curve()) for model in comparison.models if (model, int(k)) in shown]
    return Report(
        title=run.settings.name,
        run_id=run.run_id,
        primary=(metric, int(k)),
        models=comparison.models,
        measures=comparison.measures(),
        differences=comparison.differences(metric, int(k)),
        test_users=comparison.users,
        test_pairs=int(pairs[0]),
        test_pairs_unknown=int(pairs[1]),
        breadth=breadth(shown),
        exposure=curves,
        samples=people,
        records=stages(run),
        settings=run.settings.dump(),
        versions=run.inputs | run.outputs,
        warm_start=warm_start(run, comparison, metric, int(k)),
        tradeoff=traded,
        newcomers=newcomers,
        new_items=new_items,
        reliability=reliability,
    )


def warm_start(run: Run, comparison: Comparison, metric: str, k: int) -> dict[str, Any] | None:
    """What this run's warm start did, and beside it the last full training; None for a training from nothing.

    ``trainings`` : seconds of the whole stage, ranks, epochs and the metric, of this run and, where there is one, of
    the last full training of another run on no later events. ``same_test`` : whether both were measured on the same
    days and number of users. ``gain`` : the metric less the other's; ``seconds_saved`` : the other's less these.
    """
    own = [row for row in run.records() if row[c.STAGE] == TRAINING]
    result = json.loads(own[-1][c.DETAILS] or "{}").get(two_tower.NAME, {}) if own else {}
    if not result.get("warm_start"):
        return None
    wanted = two_tower.NAME, metric, k, "all"
    mine = next((m for m in comparison.measures() if (m.model, m.metric, m.k, m.segment) == wanted), None)
    values = [(mine.value, mine.n_users) if mine else None]
    rows = own[-1:]
    if full := last_full(run, result["as_of"]):
        rows, values = [*rows, full], [*values, _measured(run, full[c.RUN_ID], metric, k)]
    results = [json.loads(row[c.DETAILS])[two_tower.NAME] for row in rows]
    found = {
        **result["warm_start"],
        "trainings": [
            {
                "run": row[c.RUN_ID], "seconds": row[c.SECONDS], "ranks": len(of["ranks"]), "epochs": of["epochs"],
                "as_of": of["as_of"], "value": value[0] if value else None,
            }
            for row, of, value in zip(rows, results, values, strict=True)
        ],
    }  # fmt: skip
    if full:
        found["seconds_saved"] = full[c.SECONDS] - own[-1][c.SECONDS]
    if full and values[0] and values[1]:
        found["gain"] = values[0][0] - values[1][0]
        found["same_test"] = results[0]["as_of"] == results[1]["as_of"] and values[0][1] == values[1][1]
    return found


def _measured(run: Run, run_id: str, metric: str, k: int) -> tuple[float, int] | None:
    """A metric of another run's two-tower lists, and over how many users; None where it was not evaluated."""
    if not run.lake.exists(schemas.METRICS):
        return None
    wanted = {c.RUN_ID: run_id, c.MODEL: two_tower.NAME, c.METRIC: metric, c.K: k, c.SEGMENT: "all"}
    rows = run.lake.read(schemas.METRICS)
    for column, value in wanted.items():
        rows = rows.where(F.col(column) == F.lit(value))
    row = rows.select(c.VALUE, c.N_USERS).head()
    return (float(row[0]), int(row[1])) if row else None


def stages(run: Run) -> list[dict[str, Any]]:
    """The newest record of each stage, this run's before any other's, in the order of the pipeline."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(run.records(any_run=True), key=lambda row: (row[c.RUN_ID] == run.run_id, row[c.STARTED])):
        found[row[c.STAGE]] = {
            "stage": row[c.STAGE], "seconds": row[c.SECONDS], "counts": dict(row[c.COUNTS] or {}),
            "details": json.loads(row[c.DETAILS] or "{}"),
        }  # fmt: skip
    return [found[stage] for stage in STAGES if stage in found and stage != run.stage]
