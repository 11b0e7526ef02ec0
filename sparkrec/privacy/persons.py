"""Who is meant by a command, and which rows of which tables are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError, DataError
from sparkrec.named import ids
from sparkrec.privacy import keys, protect, pseudonyms, scan, suppressed
from sparkrec.privacy.keys import Key
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.ingest.sources import Source
    from sparkrec.pipeline import Run

#: Rows of these are found by file and line, through the raw rows.
BY_LINE = (schemas.QUARANTINE, schemas.BRONZE_EVENTS)


@dataclass(frozen=True)
class Persons:
    """``given``: ids as they were asked for; ``stored``: as the lake holds them, in the same order."""

    given: tuple[str, ...]
    stored: tuple[str, ...]

    def frame(self, run: Run) -> DataFrame:
        return run.spark.createDataFrame([(user,) for user in self.stored], f"{c.USER_ID} string")


def named(text: str) -> tuple[str, ...]:
    """:func:`sparkrec.named.ids` of users."""
    return ids(text, "user", " (a command line is seen by everyone on the machine, so prefer the file)")


def find(run: Run, given: Sequence[str]) -> Persons:
    """The persons behind ids as the logs have them, or behind pseudonyms.

    Raises
    ------
    ConfigError
        The lake's pseudonyms are of another key.
    DataError
        There is no lake.
    """
    if not tables(run):
        raise DataError(
            f"The lake {run.lake.root} has no table with persons in it. Check lake.path: nobody was looked for."
        )
    held = protect.held_key(run)
    if held is None:
        return Persons(tuple(given), tuple(given))
    key = key_of(run, held)
    stored = [x if pseudonyms.PATTERN.fullmatch(x) else pseudonyms.pseudonym(key, c.USER_ID, x) for x in given]
    return Persons(tuple(given), tuple(stored))


def as_stored(run: Run, rows: DataFrame) -> DataFrame:
    """Rows that came past ingest, their user_id as the lake holds it, without users who were erased.

    Raises
    ------
    ConfigError
        The lake's pseudonyms, or its list of the erased, are of another key.
    """
    from pyspark.sql import functions as F

    from sparkrec.clean import parsing

    held = protect.held_key(run)
    if held is not None:
        known = F.col(c.USER_ID).rlike(f"^{pseudonyms.PATTERN.pattern}$")
        hashed = pseudonyms.pseudonyms(key_of(run, held), c.USER_ID)
        rows = rows.withColumn("_hashed", hashed(parsing.trimmed(F.col(c.USER_ID))))
        rows = rows.withColumn(c.USER_ID, F.when(known, F.col(c.USER_ID)).otherwise(F.col("_hashed"))).drop("_hashed")
    if not run.lake.exists(schemas.SUPPRESSED):
        return rows
    digests = pseudonyms.digests(suppressed.key(run), pseudonyms.ERASED)
    marked = rows.withColumn(c.DIGEST, digests(F.col(c.USER_ID)))
    return marked.join(F.broadcast(suppressed.digests(run)), c.DIGEST, "left_anti").drop(c.DIGEST)


def key_of(run: Run, held: str) -> Key:
    """The key that made the lake's pseudonyms."""
    key = keys.load(run.settings, create=False)
    if key.id != held:
        raise ConfigError(
            f"The lake {run.lake.root} holds pseudonyms of the key {held}, and the key in {key.origin} is {key.id}. "
            "Without the right one nobody can be found. Set privacy.key_file to it."
        )
    return key


def tables(run: Run) -> list[Table]:
    """The tables that hold rows of persons, those by which the others are found last."""
    last = (schemas.VOCABULARY_USERS, *BY_LINE)
    found = [table for table in schemas.TABLES if table.person and run.lake.exists(table)]
    return sorted(found, key=lambda table: last.index(table) if table in last else -1)


def indices(run: Run, who: DataFrame) -> list[int]:
    """The persons' indices in gold.vocabulary_users; as many as persons were named, or fewer."""
    if not run.lake.exists(schemas.VOCABULARY_USERS):
        return []
    rows = run.lake.read(schemas.VOCABULARY_USERS).join(who, c.USER_ID, "left_semi").select(c.USER_INDEX).collect()
    return sorted(row[0] for row in rows)


def known(run: Run, who: Persons) -> int:
    """How many of the persons have a row, in any table but the raw ones, where they are found by what a row says."""
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    of_id = [table for table in tables(run) if table.person == c.USER_ID and table not in BY_LINE]
    ids = F.broadcast(who.frame(run))
    found = [run.lake.read(table).join(ids, c.USER_ID, "left_semi").select(c.USER_ID).distinct() for table in of_id]
    return reduce(DataFrame.union, found).distinct().count() if found else 0


def keys_of(
    run: Run, table: Table, persons: Persons, source: Source, mentioned: Sequence[str]
) -> tuple[DataFrame, tuple[str, ...]]:
    """The persons' rows of a table, as a frame of key values, and the columns of the table that these are.

    ``mentioned`` : as in :func:`lines`.
    """
    who = persons.frame(run)
    if table in BY_LINE:
        return lines(run, persons, source, mentioned), (c.SOURCE_FILE, c.LINE)
    if table.person == c.USER_INDEX:
        rows = [(index,) for index in indices(run, who)]
        return run.spark.createDataFrame(rows, f"{c.USER_INDEX} int"), (c.USER_INDEX,)
    if table.person != c.USER_ID:
        raise DataError(f"{table.name} holds raw rows, and nothing says whose: see privacy.persons.BY_LINE.")
    return who, (c.USER_ID,)


def lines(run: Run, persons: Persons, source: Source, mentioned: Sequence[str]) -> DataFrame:
    """Files and lines of the persons' raw events; of lines that cannot be parsed, those with an id of ``mentioned``.

    These by the same rule as in the proof of an erasure, so that it finds none that was passed over here.
    """
    from pyspark.sql import functions as F

    from sparkrec.clean import parsing

    events = source.events(run.lake.read(schemas.BRONZE_EVENTS))
    place = (c.SOURCE_FILE, c.LINE)
    by_id = events.withColumn(c.USER_ID, parsing.trimmed(F.col(c.USER_ID)))  # as in silver
    own = by_id.join(F.broadcast(persons.frame(run)), c.USER_ID, "left_semi").select(*place)
    if mentioned:
        torn = events.where(F.col(c.MALFORMED).isNotNull())
        own = own.unionByName(torn.where(scan.mentions(mentioned)(F.col(c.RAW))).select(*place))
    return own.distinct()


def rows_of(run: Run, persons: Persons, source: Source) -> Iterator[tuple[Table, DataFrame]]:
    """Each table with rows of persons, and theirs, as of its newest version.

    A line that cannot be parsed is theirs if it holds an id that can hardly be anything else.
    """
    from pyspark.sql import functions as F

    mentioned = [user for user in persons.stored if scan.is_distinctive(user)]
    for table in reversed(tables(run)):
        own, on = keys_of(run, table, persons, source, mentioned)
        rows = run.lake.read(table)
        if table is schemas.QUARANTINE:
            rows = rows.where(F.col(c.TABLE) == schemas.BRONZE_EVENTS.name)
        yield table, rows.join(F.broadcast(own), list(on), "left_semi").select(*table.column_names)
