"""What must hold before lists take the place of those that are served."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config.publish import Publish
from sparkrec.errors import DataError
from sparkrec.lake.records import finished
from sparkrec.pipeline import Run

_UNCHANGED = "What is served has not changed."


def check(run: Run, settings: Publish, model: str, lists: int) -> None:
    """Enough lists, not too far from the last ones, and of a model that is worth its place, as far as that is asked.

    Raises
    ------
    DataError
        A gate is shut; or a run that must be measured was not.
    """
    _enough(run, settings, lists)
    if settings.max_churn is not None:
        _alike(run, settings.max_churn, model)
    if settings.must_beat is not None:
        _better(run, settings.must_beat, model)


def _enough(run: Run, settings: Publish, lists: int) -> None:
    published = run.lake.read(schemas.RUNS).where(F.col(c.STAGE) == "publish").collect()
    before = max((row for row in published if _same_place(row, settings)), key=finished, default=None)
    last = int(before[c.COUNTS].get("lists", 0)) if before else 0
    if lists < settings.min_share * last:
        raise DataError(
            f"There are {lists:,} lists, and the last publication to {settings.to} had {last:,}: less than "
            f"publish.min_share={settings.min_share:g} of them. {_UNCHANGED} Look for what is missing in the run; if "
            "nothing is, pass --set publish.min_share=0 once."
        )


def _alike(run: Run, most: float, model: str) -> None:
    recorded = [row for row in run.records() if row[c.STAGE] == "recommend"]
    changes = _details(recorded[-1]).get("changes", {}) if recorded else {}
    churn = changes.get("models", {}).get(model, {}).get("churn_all", 0.0)  # none was noted for a first run
    if churn > most:
        raise DataError(
            f"Of the lists of '{model}' {churn:.0%} are new since the run '{changes['previous']}', and "
            f"publish.max_churn allows {most:.0%}. {_UNCHANGED} Look into the report; if it is right, pass --set "
            "publish.max_churn=1 once."
        )


def _better(run: Run, other: str, model: str) -> None:
    name, _, k = run.settings.evaluate.primary.partition("@")
    wanted = (F.col(c.METRIC) == name) & (F.col(c.K) == int(k)) & (F.col(c.SEGMENT) == "all")
    mine = run.read(schemas.METRICS, {c.RUN_ID: run.run_id}).where(wanted & F.col(c.MODEL).isin(model, other))
    found = {row[c.MODEL]: row[c.VALUE] for row in mine.collect()}
    if missing := [one for one in (model, other) if found.get(one) is None]:
        raise DataError(
            f"publish.must_beat={other}, and the run '{run.run_id}' has no {run.settings.evaluate.primary} of "
            f"{' and '.join(missing)}. {_UNCHANGED} Run evaluate first, on a run that holds something out."
        )
    if found[model] <= found[other]:
        raise DataError(
            f"The lists of '{model}' have {run.settings.evaluate.primary} {found[model]:.4f}, and those of '{other}' "
            f"(publish.must_beat) {found[other]:.4f}. {_UNCHANGED}"
        )


def _same_place(record: Any, settings: Publish) -> bool:
    details = _details(record)
    return details.get("to") == settings.to and details.get("table") == settings.table


def _details(record: Any) -> dict[str, Any]:
    return dict(json.loads(record[c.DETAILS] or "{}"))
