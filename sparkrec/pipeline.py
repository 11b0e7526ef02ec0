"""The stages in order, and the contract between them.

A stage reads pinned versions of tables, writes one set of tables, and leaves a run record. The record is the
stage's commit: what a stage wrote before it died is never read, because no record names it. So any stage can
be run again, alone, for any date.
"""

from __future__ import annotations

import datetime as dt
import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkrec import __version__, schemas
from sparkrec import columns as c
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.lake.blocks import Blocks
from sparkrec.lake.place import take_possession
from sparkrec.lake.records import finished
from sparkrec.lake.tables import Lake
from sparkrec.progress import say
from sparkrec.schemas import Table
from sparkrec.session import check_place, get_session
from sparkrec.tracking import NoTracker, Tracker

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

#: The jobs of one run, in order; each is ``jobs/NAME.py``.
STAGES = (
    "ingest",
    "clean",
    "featurize",
    "train_popularity",
    "train_als",
    "train_two_tower",
    "embed",
    "train_ranker",
    "recommend",
    "evaluate",
)

#: Tables that all runs share: a run reads them as the newest record of any run names them.
_SHARED = (
    schemas.BRONZE_EVENTS,
    schemas.BRONZE_ITEMS,
    schemas.SILVER_EVENTS,
    schemas.SILVER_REPEATS,
    schemas.SILVER_ITEM_DAYS,
    schemas.SILVER_SUSPECTS,
    schemas.SILVER_ITEMS,
    schemas.QUARANTINE,
)
#: Stages that write shared tables, or go on from another run's gold.
_SHARING = ("ingest", "clean", "erase", "maintain", "featurize")

#: The command whose lists stand beside those of ``recommend``, as of a model of that name.
_ASIDE = "newcomers"
#: Which stage writes a model's vectors, or its lists where ``recommend`` does not.
_STAGE_OF = {
    "popularity": "train_popularity",
    "segment_popularity": "train_popularity",
    "tastes": "train_popularity",
    "als": "train_als",
    "two_tower": "embed",
    _ASIDE: _ASIDE,
}


@dataclass
class Run:
    """What a job is given: its settings, its tables, and a place for what it counted."""

    settings: Settings
    stage: str
    date: dt.date | None = None
    run_id: str = ""
    tracker: Tracker = field(default_factory=NoTracker)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    #: What a command was asked on the command line, besides what all stages are.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: What the audit table holds of this run besides the tables.
    audit: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run_id = self.run_id or f"{self.settings.name}-{self.date or 'all'}"
        self.started = dt.datetime.now(dt.UTC)
        self._clock = time.monotonic()
        self._lake: Lake | None = None
        self._records: dict[bool, list[Row]] = {}
        if self.settings.lake.files is not None:
            take_possession(self.settings.lake.folder, self.settings.lake.path)

    @property
    def spark(self) -> SparkSession:
        """The session; made when it is first needed."""
        return get_session(self.settings.spark, f"sparkrec {self.stage} {self.run_id}")

    @property
    def lake(self) -> Lake:
        if self._lake is None:
            check_place(self.spark, self.settings.lake.path)
            self._lake = Lake(self.settings.lake.path, self.spark)
        return self._lake

    def release_session(self) -> None:
        """Give the cluster back while something else runs; the next use makes a new session."""
        self.spark.stop()
        self._lake = None

    def path(self, *parts: str) -> str:
        """A place under the lake's root for what Spark keeps besides tables: checkpoints of ALS."""
        return "/".join([self.settings.lake.path.rstrip("/"), *parts])

    def folder(self, *parts: str) -> Path:
        """A folder or file for what is reached without Spark: models, reports."""
        return self.settings.lake.folder.joinpath(*parts)

    def read(self, table: Table, where: Mapping[str, str] | None = None) -> DataFrame:
        """A table at the version that the stage which wrote it recorded, filtered by equality.

        Of vectors of one model that is the stage of the model, and of newcomers' lists ``newcomers``, which no other
        lists are read by: what a stage left when it died is in later versions too.

        Raises
        ------
        DataError
            No stage of this run has recorded that table.
        """
        from pyspark.sql import functions as F

        frame = self.lake.read(table, self._pin_model(table, (where or {}).get(c.MODEL)))
        for column, value in (where or {}).items():
            frame = frame.where(F.col(column) == value)
        return frame

    def pin(self, table: Table, newest: bool = False) -> int:
        """The Delta version of a table that this run reads; noted as an input of the stage.

        Of a shared table it is the one that this run wrote, or else (``newest``: in any case) the newest of any run.
        """
        if table.name in self.outputs:
            return self.outputs[table.name]
        if table.name not in self.inputs:
            rows = [
                row
                for row in self.known_records(table in _SHARED)
                if table.name in row[c.OUTPUTS] and row[c.STAGE] != _ASIDE
            ]
            own = rows if newest else [row for row in rows if row[c.RUN_ID] == self.run_id] or rows
            if not own:
                raise DataError(
                    f"The stage '{self.stage}' of run '{self.run_id}' needs {table.name}, and no earlier stage of that "
                    f"run has written it in {self.settings.lake.path}. Run the stages before it, or all of them with "
                    "'sparkrec run', with the same --conf, --date and --run-id."
                )
            self.inputs[table.name] = own[-1][c.OUTPUTS][table.name]
        return self.inputs[table.name]

    def _pin_model(self, table: Table, model: str | None) -> int:
        """The version that the model's own stage recorded; of other tables :meth:`pin`."""
        of_model = table in (schemas.VECTORS_USERS, schemas.VECTORS_ITEMS) or model == _ASIDE
        if not of_model or table.name in self.outputs:
            return self.pin(table)
        own = [
            row[c.OUTPUTS][table.name]
            for row in self.known_records()
            if row[c.STAGE] == _STAGE_OF.get(model or "") and table.name in row[c.OUTPUTS]
        ]
        if not own:
            return self.pin(table)
        return self.inputs.setdefault(f"{table.name} of {model}", own[-1])

    def write(
        self, table: Table, frame: DataFrame, where: Mapping[str, str] | str | None = None, base: int | None = None
    ) -> int:
        """Replace a table (or its partitions ``where``) in one commit, on top of ``base``; returns the rows written.

        Columns that ``where`` gives values for need not be in the frame.
        """
        from pyspark.sql import functions as F

        if isinstance(where, Mapping):
            frame = frame.withColumns({name: F.lit(x) for name, x in where.items() if name not in frame.columns})
        version, rows = self.lake.overwrite(table, frame, where, base)
        return self._wrote(table, version, rows)

    def write_blocks(self, table: Table, blocks: Blocks, where: Mapping[str, str]) -> int:
        """:meth:`write` of one partition, by the executors that make its rows: see :meth:`Lake.overwrite_blocks`."""
        return self._wrote(table, *self.lake.overwrite_blocks(table, blocks, where))

    def append(self, table: Table, frame: DataFrame, base: int, properties: Mapping[str, str] | None = None) -> int:
        """Append in one commit, on top of the version ``base``; returns the rows written. See :meth:`Lake.append`."""
        version, rows = self.lake.append(table, frame, base, properties)
        return self._wrote(table, version, rows)

    def keep(self, table: Table, version: int | None = None) -> None:
        """There is nothing new to write: ``version`` (default: the newest) is what this stage leaves."""
        self.outputs[table.name] = self.lake.version(table) if version is None else version

    def count(self, **numbers: int) -> None:
        """Numbers for the run record and for MLflow."""
        self.counts.update({name: int(value) for name, value in numbers.items()})

    def detail(self, **values: Any) -> None:
        """What the report draws: anything that JSON can hold, and small."""
        self.details.update(values)

    def say(self, text: str) -> None:
        """A line of progress with the stage and the seconds since it started."""
        say(self.stage, text, time.monotonic() - self._clock)

    def records(self, any_run: bool = False) -> list[Row]:
        """Run records, in the order in which they were written.

        This run's, or (``any_run``) also those of stages that build on other runs, of all.
        """
        from pyspark.sql import functions as F

        if not self.lake.exists(schemas.RUNS):
            return []
        wanted = F.col(c.RUN_ID) == self.run_id
        if any_run:
            wanted = wanted | F.col(c.STAGE).isin(*_SHARING)
        newest = self.lake.read(schemas.RUNS, self.lake.version(schemas.RUNS))  # of a version the files are listed
        return sorted(newest.where(wanted).collect(), key=finished)

    def known_records(self, any_run: bool = False) -> list[Row]:
        """:meth:`records` as they were when this run first asked: what it reads does not change under it."""
        if True in self._records:  # this run's are among them
            rows = self._records[True]
            return rows if any_run else [row for row in rows if row[c.RUN_ID] == self.run_id]
        if any_run not in self._records:
            self._records[any_run] = self.records(any_run)
        return self._records[any_run]

    def finish(self) -> None:
        """Append the run record, which makes the stage's tables visible to later stages."""
        seconds = time.monotonic() - self._clock
        row = (
            self.run_id, self.stage, self.date, self.started, seconds, self.settings.hash(), __version__,
            self.inputs, self.outputs, self.counts, json.dumps(self.details, default=str),
        )  # fmt: skip
        frame = self.spark.createDataFrame([row], schemas.RUNS.struct())
        self.tracker.metrics({"seconds": seconds, **self.counts})
        self.tracker.tags({f"input.{name}": str(version) for name, version in self.inputs.items()})
        self.tracker.tags({f"output.{name}": str(version) for name, version in self.outputs.items()})
        self.lake.append(schemas.RUNS, frame)
        self.say("done" + "".join(f", {name.replace('_', ' ')} {n:,}" for name, n in self.counts.items()))

    def _wrote(self, table: Table, version: int, rows: int) -> int:
        self.outputs[table.name] = version
        self.say(f"wrote {table.name}: {rows:,} rows (version {version})")
        return rows


def execute(job: Callable[[Run], None], run: Run) -> None:
    """Run one job under the contract: tracked, recorded when it succeeded, and in the audit table either way."""
    from sparkrec import tracking
    from sparkrec.privacy import audit

    run.say("started")
    with tracking.stage(run.settings, run.run_id, run.stage) as run.tracker:
        _ = run.spark  # column expressions need a session, and a job may build some before it reads a table
        try:
            job(run)
            run.finish()
        except BaseException as error:  # also where it was stopped from outside
            audit.write(run, error, **run.audit)
            raise
        audit.write(run, **run.audit)
    # Frames lie in circles of Python objects that hardly ever fill a generation, and each holds its plans in the JVM:
    # of one clean 380 MB that the next stage would have to do without.
    gc.collect()
