"""Removing persons from the lake for good, and proving it.

The order makes a killed erasure safe to repeat: what finds a person's other rows (vocabulary, raw rows) goes last, and
every step does nothing where it has been done before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.lake import expiry, maintenance
from sparkrec.lake.maintenance import ERASURE
from sparkrec.lake.tables import CURRENT
from sparkrec.privacy import artifacts, persons, scan, suppressed
from sparkrec.privacy.keys import Key
from sparkrec.privacy.persons import Persons
from sparkrec.privacy.scan import Needles, Scanned
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.ingest.sources import Source
    from sparkrec.pipeline import Run

#: What stands in run records where an id stood.
GONE = "[erased]"


def suppress(run: Run, who: Persons, key: Key) -> None:
    """Enter the persons in the list that ingest consults, so that an old file does not bring them back."""
    suppressed.enter(run, who.stored, key)


def forget(run: Run, who: Persons) -> int:
    """Rows of trained models that belong to the persons become zeros; reports that show them are deleted."""
    folder, indices = run.settings.lake.folder, persons.indices(run, who.frame(run))
    changed = artifacts.forget_rows(folder, indices)
    expiry.remove_scratch(run)
    for path in artifacts.remove_reports(folder, needles(who)):
        run.say(f"removed {path.relative_to(folder)}, which showed one of them; evaluate writes it anew")
    return changed


def delete(run: Run, who: Persons, source: Source) -> dict[str, int]:
    """Delete the persons' rows of every table; returns rows by table.

    By MERGE with a frame of keys: a DELETE would write the ids into the log as its predicate.
    """
    deleted: dict[str, int] = {}
    for table in persons.tables(run):
        rows, on = persons.keys_of(run, table, who, source, mentioned=who.stored)
        with maintenance.noted(run.spark, ERASURE):
            deleted[table.name] = _delete(run, table, rows, on)
    return deleted


def _delete(run: Run, table: Table, rows: DataFrame, on: tuple[str, ...]) -> int:
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    condition = " AND ".join(f"old.`{name}` = gone.`{name}`" for name in on)
    if table is schemas.QUARANTINE:
        condition += f" AND old.`{c.TABLE}` = '{schemas.BRONZE_EVENTS.name}'"
    old = DeltaTable.forPath(run.spark, run.lake.path(table)).alias("old")
    result = old.merge(F.broadcast(rows).alias("gone"), condition).whenMatchedDelete().execute().first()
    return int(result["num_deleted_rows"]) if result is not None else 0


def open_records(run: Run, who: Persons) -> None:
    """Run records before the purge: ids are taken out of examples, and versions that are current are marked as such.
    So are those that a model was trained on.

    The purge gives every table another number and forgets the old ones, so the mark stands until
    :func:`close_records`; a stage that meets it says that an erasure was interrupted.
    """
    held = [table for table in schemas.TABLES if run.lake.exists(table) and table is not schemas.RUNS]
    alike = {table.name: maintenance.oldest_alike(run.lake, table) for table in held if _is_purged(table)}
    of_runs = {table.name for table in held if c.RUN_ID in table.partition_by}
    cleaned = _cleaner(who)

    def marked(name: str, version: int) -> int:
        return CURRENT if name in alike and (name in of_runs or version >= alike[name]) else version

    def mended(row: dict[str, Any]) -> dict[str, Any]:
        outputs = {name: marked(name, version) for name, version in (row[c.OUTPUTS] or {}).items()}
        return row | {c.OUTPUTS: outputs, c.DETAILS: cleaned(row[c.DETAILS] or "{}")}

    _rewrite_records(run, mended)
    artifacts.renumber(run.settings.lake.folder, marked)


def close_records(run: Run) -> None:
    """Run records, and models, after the purge: what was marked as current gets the version's new number."""
    newest = {table.name: run.lake.version(table) for table in schemas.TABLES if run.lake.exists(table)}

    def number(name: str, version: int) -> int:
        return newest[name] if version == CURRENT else version

    def closed(row: dict[str, Any]) -> dict[str, Any]:
        return row | {c.OUTPUTS: {name: number(name, version) for name, version in row[c.OUTPUTS].items()}}

    _rewrite_records(run, closed)
    artifacts.renumber(run.settings.lake.folder, number)


def _rewrite_records(run: Run, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Records are few (one a stage), so they are rewritten whole."""
    if not run.lake.exists(schemas.RUNS):
        return
    rows = [row.asDict() for row in run.lake.read(schemas.RUNS).collect()]
    changed = [change(row) for row in rows]
    if changed != rows:
        names = schemas.RUNS.column_names
        frame = run.spark.createDataFrame([tuple(row[x] for x in names) for row in changed], schemas.RUNS.struct())
        run.lake.overwrite(schemas.RUNS, frame)


def _cleaner(who: Persons) -> Callable[[str], str]:
    """Takes ids out of a record's details. Ids that are anything (``42``) stay: there they are numbers."""
    ids = sorted({x for x in (*who.given, *who.stored) if scan.is_distinctive(x)}, key=len, reverse=True)
    if not ids:
        return lambda text: text
    written = sorted({spelling for user in ids for spelling in scan.spellings(user)}, key=len, reverse=True)
    pattern = re.compile(f"(?<!{scan.WITHIN_WORD})(?:{'|'.join(map(re.escape, written))})(?!{scan.WITHIN_WORD})")

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):  # keys are names of ours: an id may be the same word
            return {key: cleaned(held) for key, held in value.items()}
        if isinstance(value, list):
            return [cleaned(held) for held in value]
        return pattern.sub(GONE, value) if isinstance(value, str) else value

    return lambda text: json.dumps(cleaned(json.loads(text)))


def purge(run: Run) -> None:
    """Old files and logs of every table that held persons, or their ids, leave the disk.

    And what killed writes have left, of any table: of half a file nobody can prove what is in it.
    """
    for table in schemas.TABLES:
        if not run.lake.exists(table):
            if run.lake.clear(table):
                run.say(f"removed what a first write of {table.name} left when it was killed")
        elif _is_purged(table):
            maintenance.purge(run.lake, table)
            run.say(f"purged {table.name}: only its newest version is left")
        elif left := maintenance.sweep(run.lake, table):
            run.say(f"removed {left:,} files that killed writes of {table.name} had left")


def _is_purged(table: Table) -> bool:
    return bool(table.person) or table is schemas.RUNS


def prove(run: Run, who: Persons) -> Scanned:
    """Read every file of the lake, and find nobody. The log files of the source are not the lake's.

    Raises
    ------
    DataError
        Something was found. It names files and places, and no id.
    """
    source = run.settings.source.path
    result = scan.scan(run.spark, run.settings.lake.roots, needles(who), [source])
    if not result.files:
        raise DataError(f"No file was found below {run.lake.root}, so that nothing is proved. Check lake.path.")
    if result.found:
        places = "; ".join(f"{name} ({where})" for name, where in result.found)
        raise DataError(
            f"The erasure is not complete: of the {result.files:,} files under {run.lake.root} these still hold one of "
            f"the ids: {places}. A file that sparkrec did not write must be removed by hand. In a table it stands in "
            "somebody else's row (a review that names them, a column that nobody reads): take it out there, by UPDATE. "
            "Then run erase with the same users again."
        )
    return result


def needles(who: Persons) -> Needles:
    """What must not be found: the ids as stored, and as given where they cannot be mistaken for anything else."""
    return Needles.of([*who.stored, *(user for user in who.given if scan.is_distinctive(user))])
