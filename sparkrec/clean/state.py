"""What the last clean run left, and what is new since.

Silver is only ever read at the versions that a finished run recorded. What a run that died has written on top of them
is taken back first.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.lake import continued
from sparkrec.lake.records import recorded

if TYPE_CHECKING:
    from sparkrec.config import Settings
    from sparkrec.ingest.sources.base import Source
    from sparkrec.pipeline import Run

#: The tables that are continued.
CONTINUED = (
    schemas.SILVER_EVENTS,
    schemas.SILVER_REPEATS,
    schemas.SILVER_SUSPECTS,
    schemas.SILVER_ITEM_DAYS,
    schemas.QUARANTINE,
)
#: With the one that each run writes whole.
WRITTEN = (*CONTINUED, schemas.SILVER_ITEMS)
# Another number where a row is now read otherwise than it was: silver is then computed anew.
_READING = 2


@dataclass(frozen=True)
class Days:
    """The days that are written anew; None: all of them.

    ``judged``: rows may come or go (the day None: rows without a readable day). ``linked``: those with a day, and the
    days into which their events run on.
    """

    judged: frozenset[dt.date | None] | None
    linked: frozenset[dt.date] | None

    @property
    def names(self) -> list[str] | None:
        """For the run record: the days that were written; None: all."""
        return None if self.linked is None else [str(day) for day in sorted(self.linked)]


@dataclass(frozen=True)
class State(continued.Start):
    """Where this run begins. ``appended`` are the first and last bronze version that are new."""

    appended: tuple[int, int] = (0, 0)
    items_version: int = -1
    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def if_still(self, run: Run, strict: bool, notes_hold: bool) -> State:
        """This state, if the catalogue still decides, or not, which items there are: else everything is new.

        And if the notes of the rows that are held are still right (:func:`sparkrec.clean.increments.notes_hold`).
        """
        if self.full:
            return self
        if self.details.get("strict") != strict:
            return _from_nothing(run, "there was no catalogue before" if strict else "there is no catalogue any more")
        if not notes_hold:
            return _from_nothing(run, "the catalogue now has items whose events were kept with the note 'unknown_item'")
        return self

    def nothing_new(self, run: Run) -> bool:
        """Neither events nor catalogue rows have come."""
        first, last = self.appended
        return first > last and not self.items_changed(run)

    def items_changed(self, run: Run) -> bool:
        """The catalogue has to be computed: rows have come, or nothing is held."""
        return self.full or self.items_version != run.pin(schemas.BRONZE_ITEMS, newest=True)

    def stay(self, run: Run) -> None:
        """Leaves everything as the last run left it."""
        for table in WRITTEN:
            run.keep(table, self.bases[table.name])
        run.count(**{**self.counts, "rows_new": 0})
        run.detail(**{**self.details, "increment": {"why_full": None, "days": []}})

    def new_rows(self, run: Run) -> DataFrame:
        """The rows of bronze.events that have not been cleaned."""
        bronze = run.read(schemas.BRONZE_EVENTS)
        return bronze if self.full else run.lake.appended(schemas.BRONZE_EVENTS, *self.appended)


def shape(settings: Settings, source: Source) -> str:
    """Names the settings that silver depends on, and the layout of its tables."""
    clean = settings.clean.model_dump(mode="json", exclude={"full", "max_refused"})
    read = settings.source.model_dump(mode="json", exclude={"path"})
    # Silver of a time when made-up times were taken for real is computed anew; no other is.
    made_up = [] if source.has_times else ["made-up times"]
    text = json.dumps([schemas.SCHEMA_VERSION, _READING, clean, read, *made_up], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def begin(run: Run, source: Source) -> State:
    """Finds where to go on, and takes back what a run that died left in the tables."""
    newest = run.pin(schemas.BRONZE_EVENTS, newest=True)
    run.pin(schemas.BRONZE_ITEMS, newest=True)  # silver is a function of all of bronze, whatever the run is called
    records = run.known_records(any_run=True)
    last = next((row for row in reversed(records) if row[c.STAGE] == "clean"), None)
    if last is None:
        return _from_nothing(run, "no run of clean has finished yet")
    details, cleaned = json.loads(last[c.DETAILS]), last[c.INPUTS].get(schemas.BRONZE_EVENTS.name, -1)
    if run.settings.clean.full:
        return _from_nothing(run, "clean.full is set")
    if not source.row_by_row:
        return _from_nothing(run, "in this source an event's time depends on other rows")
    if details.get("shape") != shape(run.settings, source):
        return _from_nothing(run, "settings that silver depends on, or its tables, are not those of the last run")
    if newest < cleaned:
        return _from_nothing(run, f"bronze.events is at version {newest}, and {cleaned} was cleaned")
    versions = {t.name: recorded(records, t) for t in WRITTEN}
    try:
        arrivals = [commit for commit in run.lake.commits(schemas.BRONZE_EVENTS, cleaned) if commit.version <= newest]
        since = {t.name: run.lake.commits(t, versions[t.name]) for t in WRITTEN}
    except DataError as error:
        return _from_nothing(run, str(error))
    if not all(commit.appends or commit.keeps_content for commit in arrivals):
        return _from_nothing(run, "rows of bronze.events were changed or deleted since the last run")
    if foreign := continued.foreign(since):
        return _from_nothing(run, f"{foreign} was changed by something that left no run record")
    arrived = [commit.version for commit in arrivals if commit.appends]
    return State(
        why_full=None,
        bases={t.name: continued.base(run, t, versions[t.name], since[t.name]) for t in WRITTEN},
        versions=versions,
        appended=(min(arrived), max(arrived)) if arrived else (1, 0),
        items_version=last[c.INPUTS].get(schemas.BRONZE_ITEMS.name, -1),
        counts=last[c.COUNTS],
        details=details,
    )


def _from_nothing(run: Run, why: str) -> State:
    return State(why, {table.name: run.lake.prepare(table) for table in WRITTEN})
