"""Files to bronze: each file once, in one commit, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.ingest.files import File, Folder, reading, up_to
from sparkrec.lake.tables import ABSENT
from sparkrec.privacy import protect
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.ingest.sources.base import Files
    from sparkrec.pipeline import Run


@dataclass
class Found:
    """What there is to read for one bronze table."""

    files: list[File] = field(default_factory=list)
    new: list[tuple[Files, list[File]]] = field(default_factory=list)

    @property
    def new_files(self) -> list[File]:
        return [file for _, files in self.new for file in files]


def append(run: Run, table: Table, kinds: Sequence[Files]) -> dict[str, int]:
    """Append to bronze the files that it does not hold yet; returns files, files_new, rows.

    Running it again changes nothing. Killed before the commit, it has written nothing.

    Raises
    ------
    DataError
        No folder, no file, no file of ``run.date``, a file that changed, has other columns, or is damaged.
    """
    folder = Folder(run.spark, run.settings.source.path)
    # Which files are new is judged by this version, and the commit is made on top of it or not at all.
    base = run.lake.prepare(table)
    found = find(run, folder, table, kinds)
    counts = {"files": len(found.files), "files_new": len(found.new_files), "rows": 0}
    if base != ABSENT and not found.new:
        run.keep(table)
        run.say(f"{table.name}: {len(found.files):,} files, none of them new")
        return counts
    with reading(folder.root):
        rows = _rows(run, folder, table, found)
        counts["rows"] = run.append(table, rows, base, protect.properties(run, table))
    protect.count_marks(run, table)
    if table is schemas.BRONZE_EVENTS and not counts["rows"] and len(found.files) == len(found.new_files):
        raise DataError(
            f"The {len(found.files):,} file(s) in {folder.root}, the first of them {found.files[0].name}, hold no row. "
            "Set source.path to where the logs lie."
        )
    run.detail(
        **{
            table.name: {
                "files": len(found.files),
                "new_files": len(found.new_files),
                "bytes": sum(file.bytes for file in found.files),
                "first": found.files[0].name if found.files else None,
                "last": found.files[-1].name if found.files else None,
            }
        }
    )
    return counts


def find(run: Run, folder: Folder, table: Table, kinds: Sequence[Files]) -> Found:
    """The files that match the source's patterns, and those of them that bronze does not hold."""
    held = _held(run, table)
    found, taken = Found(), set[str]()
    for files in kinds:
        # A file belongs to the first kind whose pattern it matches.
        listed = [file for file in files.format.files(folder, files.pattern) if file.name not in taken]
        if not listed and not files.optional:
            raise DataError(
                f"The source's folder {folder.root} holds no file that matches '{files.pattern}'. Set source.path "
                "(and, for the source 'generic', the option 'files') to where the logs lie."
            )
        _check_not_rewritten(files, listed, held, folder)
        # A day without a change of the catalogue is an ordinary day; one without events is not.
        is_log = table is schemas.BRONZE_EVENTS
        listed = up_to(listed, files.pattern, run.date, set(held), must_have_date=is_log)
        taken |= {file.name for file in listed}
        _check_unchanged(listed, held, folder)
        found.files += listed
        if new := [file for file in listed if file.name not in held]:
            found.new.append((files, new))
    return found


def _rows(run: Run, folder: Folder, table: Table, found: Found) -> DataFrame:
    from pyspark.sql import functions as F

    guard = protect.guard(run, table)
    parts = [guard(files, *files.format.read(folder, new, files.needs)) for files, new in found.new]
    if not parts:
        return run.spark.createDataFrame([], table.struct())
    rows: DataFrame = reduce(lambda a, b: a.unionByName(b), parts)
    return rows.withColumns({c.INGEST_TIME: F.lit(run.started), c.RUN_ID: F.lit(run.run_id)})


def _held(run: Run, table: Table) -> dict[str, int]:
    """Name → size of the files that bronze holds."""
    if not run.lake.exists(table):
        return {}
    rows = run.lake.read(table).select(c.SOURCE_FILE, c.SOURCE_BYTES).distinct().collect()
    return {row[0]: row[1] for row in rows}


def _check_unchanged(files: Sequence[File], held: dict[str, int], folder: Folder) -> None:
    for file in files:
        if held.get(file.name, file.bytes) != file.bytes:
            raise DataError(
                f"The file {file.name} in {folder.root} has {file.bytes:,} bytes, and had {held[file.name]:,} when it "
                "was read into bronze. A log file must not change after it has been read. Put what is new into a file "
                "of its own, or start a new lake."
            )


def _check_not_rewritten(kind: Files, listed: Sequence[File], held: Iterable[str], folder: Folder) -> None:
    if gone := kind.format.rewritten(kind.pattern, listed, held):
        raise DataError(
            f"The Delta table {kind.pattern} in {folder.root} was rewritten (optimised, updated or deleted from): its "
            f"file {gone[0]}, which bronze holds, is no longer part of it. A table that is read as a log may only be "
            "appended to. Start a new lake to read it afresh."
        )
