"""What must hold before lists take the place of those that are served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config.publish import Publish
from sparkrec.errors import GONE, DataError
from sparkrec.lake.records import finished
from sparkrec.pipeline import Run
from sparkrec.retrieval import changes

_PREFIX = Publish.model_fields["prefix"].default
_UNCHANGED = "What is served has not changed."


def check(run: Run, settings: Publish, model: str, lists: int) -> None:
    """Enough lists, not too far from what is served, and of a model that is worth its place, as far as that is asked.

    Raises
    ------
    DataError
        A gate is shut, the place serves another table, or a run that must be measured was not.
    """
    here = _place({"to": settings.to, "prefix": settings.prefix})
    published = run.lake.read(schemas.RUNS).where(F.col(c.STAGE) == "publish").collect()
    last = max((row for row in published if _place(_details(row)) == here), key=finished, default=None)
    if last:
        _of_one_table(settings, last)
        _newer(run, settings, last)
        _enough(settings, lists, int(last[c.COUNTS].get("lists", 0)))
    asked = [name for name in ("max_churn", "must_beat") if getattr(settings, name) is not None]
    if settings.table != schemas.RECOMMENDATIONS.name or model not in run.settings.recommend.models:
        if asked:
            names = " and ".join(f"publish.{name}" for name in asked)
            run.say(f"{names}: asked of users' lists of recommend.models only, and not of '{model}'")
        return
    if settings.max_churn is not None:
        _alike(run, settings.max_churn, model, last)
    if settings.must_beat is not None:
        _better(run, settings.must_beat, model)


def _place(told: Mapping[str, Any]) -> tuple[str, str]:
    """Two publications with the same take each other's place."""
    to = str(told.get("to") or "").rstrip("/")
    return to, str(told.get("prefix", _PREFIX)) if to.startswith("redis") else ""


def _of_one_table(settings: Publish, last: Row) -> None:
    table = _details(last).get("table")
    if table != settings.table:
        raise DataError(
            f"{settings.to} serves {table}, and {settings.table} would take its place, so that nobody found a list any "
            f"more. {_UNCHANGED} Give each table a place of its own: another publish.prefix, or another folder."
        )


def _newer(run: Run, settings: Publish, last: Row) -> None:
    """A scheduler that makes up for a day of last week must not serve its lists in place of today's."""
    if not settings.older and run.date and last[c.DATE] and run.date < last[c.DATE]:
        raise DataError(
            f"These lists are of {run.date}, and {settings.to} serves those of {last[c.DATE]}. {_UNCHANGED} To take "
            "lists back, pass --set publish.older=true."
        )


def _enough(settings: Publish, lists: int, last: int) -> None:
    if lists < settings.min_share * last:
        raise DataError(
            f"There are {lists:,} lists, and the last publication to {settings.to} had {last:,}: less than "
            f"publish.min_share={settings.min_share:g} of them. {_UNCHANGED} Look for what is missing in the run; if "
            "nothing is, pass --set publish.min_share=0 once."
        )


def _alike(run: Run, most: float, model: str, last: Row | None) -> None:
    """Against what is served, where the lake still has it; else against the run before."""
    recorded = [row for row in run.records() if row[c.STAGE] == "recommend"]
    noted = _details(recorded[-1]).get("changes", {}) if recorded else {}
    since = noted.get("previous")
    churn = noted.get("models", {}).get(model, {}).get("churn_all", 0.0)  # none was noted for a first run
    if last and (of_served := _against_served(run, model, last)) is not None:
        churn, since = of_served, last[c.RUN_ID]
    if churn > most:
        raise DataError(
            f"Of the lists of '{model}' {churn:.0%} are new since the run '{since}', and publish.max_churn allows "
            f"{most:.0%}. {_UNCHANGED} Look into the report; if it is right, pass --set publish.max_churn=1 once."
        )


def _against_served(run: Run, model: str, last: Row) -> float | None:
    """The share of the model's lists that is new to who is served; None: the lake no longer has what is."""
    version = last[c.INPUTS].get(schemas.RECOMMENDATIONS.name)
    if last[c.RUN_ID] != run.run_id or version is None:
        version = run.pin(schemas.RECOMMENDATIONS)
    served = (F.col(c.RUN_ID) == last[c.RUN_ID]) & (F.col(c.MODEL) == _details(last).get("model"))
    mine = run.read(schemas.RECOMMENDATIONS, {c.RUN_ID: run.run_id, c.MODEL: model})
    try:
        theirs = run.lake.read(schemas.RECOMMENDATIONS, version).where(served).withColumn(c.MODEL, F.lit(model))
        if theirs.isEmpty():
            return None
        found = changes.told(mine, theirs, run.settings.recommend)["models"]
    except DataError:  # that version is gone
        return None
    except (PySparkException, Py4JJavaError) as error:
        if not any(words in str(error) for words in GONE):  # its files are
            raise
        return None
    return float(found.get(model, {}).get("churn_all", 0.0))


def _better(run: Run, other: str, model: str) -> None:
    name, _, k = run.settings.evaluate.primary.partition("@")
    stages = {row[c.STAGE]: row for row in run.records()}
    written, measured = (
        stages[stage][way].get(schemas.RECOMMENDATIONS.name) if stage in stages else None
        for stage, way in (("recommend", c.OUTPUTS), ("evaluate", c.INPUTS))
    )
    if written is not None and measured is not None and measured < written:
        raise DataError(
            f"publish.must_beat={other}, and recommend has written lists since evaluate measured those of the run "
            f"'{run.run_id}'. {_UNCHANGED} Run evaluate again."
        )
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


def _details(record: Any) -> dict[str, Any]:
    return dict(json.loads(record[c.DETAILS] or "{}"))
