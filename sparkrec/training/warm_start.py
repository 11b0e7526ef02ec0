"""What a training starts from: nothing, or the last checkpoint of a finished one. Decided before the launch.

Indices of users, items and features are never reused, so an earlier model's rows are the first rows of every later one.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError
from sparkrec.training.placement import DENSE
from sparkrec.training.plan import Base, Plan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

    from sparkrec.pipeline import Run

STAGE = "train_two_tower"
# In a run record's details: before when a training's events lie, and what it began with, if not with nothing.
_AS_OF, _BEGAN = "$.two_tower.as_of", "$.two_tower.warm_start.run"
_CANDIDATES = 20
# What a model is, and by its history encoder what shapes its other weights.
_SHAPE = ("mode", "loss", "width", "history", "user_id", "item_features", "item_mlp", "head")
_OF_HISTORY = {
    "none": (), "mean": ("event_types",), "recency": ("event_types", "max_history"),
    "attention": ("event_types", "layers", "attention_heads", "max_history"),
}  # fmt: skip


def find(run: Run, folders: Path, sizes: Mapping[str, int], as_of: int) -> Base | None:
    """The training that ``two_tower.warm_start`` asks for; None for a training from nothing, which is said.

    Parameters
    ----------
    folders : where the runs' model folders lie.
    sizes : rows of this run's vocabularies.
    as_of : this run's events lie before that time, unix seconds.

    Raises
    ------
    ConfigError
        A run is named, and this one cannot start from it.
    """
    settings = run.settings.two_tower
    if settings.warm_start == "none":
        return None
    named = settings.warm_start != "last"
    candidates = [settings.warm_start] if named else finished(run, before=as_of)
    reasons = []
    for run_id in candidates:
        own = run_id == run.run_id
        found = "it is this one" if own else _open(folders / run_id, run_id, settings, sizes, as_of)
        if isinstance(found, Base):
            return found
        reasons.append(f"run {run_id}: {found}")
    if named:
        others = ", ".join(finished(run, before=as_of)[:5]) or "none"
        raise ConfigError(
            f"two_tower.warm_start={settings.warm_start} cannot be done: {reasons[0]}. Trainings of this lake on "
            f"earlier events are: {others}. Name one that fits, or set two_tower.warm_start=none."
        )
    why = reasons[0] if reasons else f"no other run has finished one on events before {_day(as_of)}"
    run.say(f"warm start: no earlier training fits, so this one begins with nothing ({why})")
    return None


def finished(run: Run, before: int) -> list[str]:
    """Other runs with a finished training on events up to an earlier time; the latest events first, then the newest."""
    rows = _others(run, before - 1).select(c.RUN_ID).limit(_CANDIDATES).collect()
    return list(dict.fromkeys(row[0] for row in rows))


def last_full(run: Run, as_of: int) -> Row | None:
    """The run record of another run's training from nothing, on events up to ``as_of`` or earlier: the latest."""
    from pyspark.sql import functions as F

    return _others(run, as_of).where(F.get_json_object(c.DETAILS, _BEGAN).isNull()).head()


def _others(run: Run, until: int) -> DataFrame:
    """Records of other runs' trainings on events up to a time; the latest events first, then the newest."""
    from pyspark.sql import functions as F

    as_of = F.get_json_object(c.DETAILS, _AS_OF).cast("bigint")
    mine = (F.col(c.STAGE) == STAGE) & (F.col(c.RUN_ID) != run.run_id) & (as_of <= until)
    return run.lake.read(schemas.RUNS).where(mine).orderBy(as_of.desc(), F.desc(c.STARTED))


def adjusted(settings: TwoTower) -> TwoTower:
    """The settings that a warm start trains by: a few epochs, none of them chosen."""
    return settings.model_copy(update={"epochs": settings.warm_epochs, "select_on_validation": False})


def differing(now: TwoTower, then: TwoTower) -> list[str]:
    """The settings that make one model's weights useless for another, as sentences."""
    recurrent = ("event_types", "layers")
    names = [*_SHAPE, *_OF_HISTORY.get(now.history, recurrent)]
    before, after = ({name: getattr(x, name) for name in names} for x in (then, now))
    if now.head and now.head == then.head:
        before["weights"], after["weights"] = (sorted(k for k, v in x.weights.items() if v > 0) for x in (then, now))
    return [
        f"two_tower.{name} was {before[name]} and is {after[name]}" for name in before if before[name] != after[name]
    ]


def describe(base: Base) -> str:
    """One line of progress."""
    return (
        f"warm start from run {base.run_id}, which knows events before {_day(base.since)}; "
        f"number {base.times} since the full training {base.full}"
    )


def _open(folder: Path, run_id: str, settings: TwoTower, sizes: Mapping[str, int], as_of: int) -> Base | str:
    """The training in a run's folder, or why this one cannot start from it."""
    if not (folder / "result.json").is_file():
        return f"no finished training lies in {folder}"
    try:
        plan, result = Plan.load(folder / "plan.json"), json.loads((folder / "result.json").read_text())
    except ValueError as error:
        return f"plan.json or result.json in {folder} is damaged ({error})"
    if "steps" not in result or not (folder / "checkpoints").is_dir():
        return f"its last checkpoint is not kept in {folder}"
    if plan.as_of > as_of:
        return f"it was trained on events up to {_day(plan.as_of)}, and this run's lie before {_day(as_of)}"
    if larger := [name for name, rows in sizes.items() if plan.sizes[name] > rows]:
        return f"it knows more {' and '.join(larger)} than this run's vocabulary"
    if different := differing(settings, plan.settings) + _moved(settings, result["placement"]):
        return ", ".join(different)
    before = plan.base
    return Base(
        run_id=run_id, folder=str(folder), fingerprint=plan.fingerprint, hash=result["hash"], steps=result["steps"],
        since=plan.as_of, placement=result["placement"],
        full=before.full if before else run_id, times=before.times + 1 if before else 1,
    )  # fmt: skip


def _moved(settings: TwoTower, kept: Mapping[str, Any]) -> list[str]:
    """Tables that would change between whole updates and updates row by row: the optimizer's state is another."""
    return [
        f"two_tower.placement of {name} was {kept[name]} and is {kind}"
        for name, kind in settings.placement.items()
        if name in kept and (kept[name] == DENSE) != (kind == DENSE)
    ]


def _day(seconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M}"
