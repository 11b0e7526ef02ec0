"""What evaluate writes down: the rows of the metrics table, and the report put together from a run's records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation.comparison import Comparison, Measure
from sparkrec.evaluation.exposure import Exposure
from sparkrec.evaluation.report import Report
from sparkrec.pipeline import STAGES, Run

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


def report(
    run: Run,
    comparison: Comparison,
    shown: Shown,
    log: Exposure,
    people: Sequence[Mapping[str, Any]],
    holdout: DataFrame,
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
        test_users=int(comparison.totals[:, 0, 0].sum()),
        test_pairs=int(pairs[0]),
        test_pairs_unknown=int(pairs[1]),
        breadth=breadth(shown),
        exposure=curves,
        samples=people,
        records=stages(run),
        settings=run.settings.dump(),
        versions=run.inputs | run.outputs,
    )


def stages(run: Run) -> list[dict[str, Any]]:
    """The newest record of each stage, this run's before any other's, in the order of the pipeline."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(run.records(any_run=True), key=lambda row: (row[c.RUN_ID] == run.run_id, row[c.STARTED])):
        found[row[c.STAGE]] = {
            "stage": row[c.STAGE], "seconds": row[c.SECONDS], "counts": dict(row[c.COUNTS] or {}),
            "details": json.loads(row[c.DETAILS] or "{}"),
        }  # fmt: skip
    return [found[stage] for stage in STAGES if stage in found and stage != run.stage]
