"""What the last featurize run left, and whether a new one may go on from it.

Gold is only ever read at the versions that a finished run recorded. What a run that died has written on top of them is
taken back first.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.evaluation.splits import Borders
from sparkrec.features import items
from sparkrec.features.selection import View
from sparkrec.lake import continued

if TYPE_CHECKING:
    from sparkrec.config import Settings
    from sparkrec.pipeline import Run

_SILVER = (schemas.SILVER_EVENTS, schemas.SILVER_SUSPECTS, schemas.SILVER_ITEMS)
#: The tables that are continued.
WRITTEN = (
    schemas.VOCABULARY_USERS,
    schemas.VOCABULARY_ITEMS,
    schemas.VOCABULARY_FEATURES,
    schemas.GOLD_USERS,
    schemas.GOLD_PAIRS,
    schemas.GOLD_ITEMS,
    schemas.GOLD_ITEM_DAYS,
    schemas.GOLD_SEQUENCES,
)


@dataclass(frozen=True)
class State(continued.Start):
    """Where this run begins. Of an increment ``silver`` is what the last run read, ``at`` its split."""

    silver: Mapping[str, int] = field(default_factory=dict)
    at: Borders | None = None

    def view(self, run: Run) -> View:
        """Silver as the last run saw it."""
        assert self.at is not None
        events, suspects, catalogue = (run.lake.read(table, self.silver[table.name]) for table in _SILVER)
        return View(events, suspects, items.as_of(catalogue, self.at.as_of), self.at)


def shape(settings: Settings) -> str:
    """Names the settings that gold depends on, and the layout of its tables."""
    features = settings.features.model_dump(mode="json", exclude={"full"})
    split = settings.split.model_dump(mode="json")
    text = json.dumps([schemas.SCHEMA_VERSION, features, split], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def record(state: State, at: Borders, settings: Settings, changed: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """For the run record: what the next run needs to know, and of an increment how much it ``changed``."""
    times = {name: time.isoformat() for name, time in vars(at).items()}
    increment = {"why_full": state.why_full, "at": times, **({} if state.full else changed)}
    return {"increment": increment, "shape": shape(settings)}


def begin(run: Run, at: Borders) -> State:
    """Finds where to go on, and takes back what a run that died left in the tables."""
    if why := _never(run.settings, at):
        return _from_nothing(run, why)
    records = [row for row in run.known_records(any_run=True) if row[c.STAGE] == "featurize"]
    if not records:
        return _from_nothing(run, "no run of featurize has finished yet")
    last = records[-1]
    details, outputs = json.loads(last[c.DETAILS]), last[c.OUTPUTS]
    if details.get("shape") != shape(run.settings):
        return _from_nothing(run, "settings that gold depends on, or its tables, are not those of the last run")
    before = Borders(**{name: dt.datetime.fromisoformat(time) for name, time in details["increment"]["at"].items()})
    if at.as_of < before.as_of:
        return _from_nothing(run, f"the last run's split is later: {before.as_of:%Y-%m-%d}")
    versions = {table.name: outputs[table.name] for table in WRITTEN}
    silver = {table.name: last[c.INPUTS][table.name] for table in _SILVER}
    try:
        since = {table.name: run.lake.commits(table, versions[table.name]) for table in WRITTEN}
        for table in _SILVER:
            run.lake.commits(table, silver[table.name])
            run.lake.read(table, silver[table.name])
    except DataError as error:
        return _from_nothing(run, str(error))
    if gone := next((name for name, version in silver.items() if version > run.inputs[name]), None):
        return _from_nothing(run, f"{gone} is at version {run.inputs[gone]}, and {silver[gone]} was read")
    if foreign := continued.foreign(since):
        return _from_nothing(run, f"{foreign} was changed by something that left no run record")
    bases = {table.name: continued.base(run, table, versions[table.name], since[table.name]) for table in WRITTEN}
    return State(None, bases, versions, silver, before)


def _never(settings: Settings, at: Borders) -> str | None:
    """Why these settings leave nothing to go on from."""
    if settings.features.full:
        return "features.full is set"
    if settings.split.kind in ("leave_one_out", "given"):
        return f"split.kind is {settings.split.kind}, which does not go by time"
    if settings.features.min_item_events > 1 or settings.features.min_user_events > 1:
        return "features.min_item_events and min_user_events look at all events"
    if at.as_of.time() != dt.time():
        return "the split is not at a midnight"
    return None


def _from_nothing(run: Run, why: str) -> State:
    return State(why, {table.name: run.lake.prepare(table) for table in WRITTEN})


def known(run: Run, at: Borders) -> View:
    """Silver as this run sees it."""
    goods = items.as_of(run.read(schemas.SILVER_ITEMS), at.as_of)
    return View(run.read(schemas.SILVER_EVENTS), run.read(schemas.SILVER_SUSPECTS), goods, at)
