"""All that the lake holds of a person, as files that the person can read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.errors import ConfigError
from sparkrec.privacy import persons
from sparkrec.privacy.persons import Persons
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.ingest.sources import Source
    from sparkrec.pipeline import Run


def write(run: Run, who: Persons, source: Source, folder: Path, classes: Sequence[str]) -> dict[str, int]:
    """``TABLE.jsonl`` for each table with rows of the person, and ``README.txt``; returns rows by table.

    Only columns of the ``classes`` are written. The folder appears when it is whole; only its owner may read it. Rows
    pass through the driver one by one: they are one person's.

    Raises
    ------
    ConfigError
        The folder is there already.
    """
    if folder.exists():
        raise ConfigError(
            f"The folder {folder} is there already, and an export never mixes with another. Name a new one."
        )
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True, mode=0o700)
    written: dict[Table, int] = {}
    for table, rows in persons.rows_of(run, who, source):
        columns = [column.name for column in table.columns if table.data_class(column) in classes]
        if columns:
            written[table] = _lines(temporary / f"{table.name}.jsonl", rows.select(*columns))
    summary = "\n".join(_summary(run, written, classes)) + "\n"
    _private(temporary / "README.txt").write_text(summary, encoding="utf-8")
    os.rename(temporary, folder)
    return {table.name: rows for table, rows in written.items()}


def _lines(path: Path, rows: DataFrame) -> int:
    number = 0
    with open(_private(path), "w", encoding="utf-8") as file:
        for text in rows.toJSON().toLocalIterator():
            file.write(f"{text}\n")
            number += 1
    if not number:
        path.unlink()
    return number


def _private(path: Path) -> Path:
    path.touch(mode=0o600)
    return path


def _summary(run: Run, written: dict[Table, int], classes: Sequence[str]) -> Iterator[str]:
    yield f"What the recommender '{run.settings.name}' holds of you, as of {run.started:%Y-%m-%d %H:%M} UTC."
    yield ""
    if not any(written.values()):
        yield "Nothing: no table has a row of yours."
        return
    yield f"Each file holds one JSON object a line. Columns of these classes are in them: {', '.join(classes)}."
    for table, rows in written.items():
        if rows:
            yield ""
            yield f"{table.name}.jsonl: {rows:,} row(s). {table.doc}"
            shown = [column for column in table.columns if table.data_class(column) in classes]
            yield from (f"  {column.name}: {column.doc}" for column in shown)
    yield ""
    yield "Times are UTC. Trained models hold a row of numbers for you where they learn one a user; it says nothing to"
    yield "a reader. Numbers over all users (how often an item was bought) have you in them and do not name you."
