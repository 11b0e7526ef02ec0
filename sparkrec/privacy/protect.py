"""What happens to raw event rows between the file and bronze: pseudonyms, scrubbing, and the erased stay away.

A row is taken apart by its format, changed field by field, and written anew. Fields that the source does not read are
dropped: nobody can vouch for what is in them. A line that cannot be taken apart may hold an id anywhere, also that of a
user who was erased, of whom only a digest is known. So of such a line only its length and a keyed digest are kept:
enough to count it, to merge its repeats, and to find it in the file by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError
from sparkrec.ingest import canonical
from sparkrec.ingest.formats import FIELDS
from sparkrec.lake import migrations
from sparkrec.privacy import keys, pseudonyms, scrub, suppressed
from sparkrec.privacy.keys import Key
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from sparkrec.ingest.sources.base import Files
    from sparkrec.pipeline import Run

#: Raw rows of one kind of file, and their headers → the rows that are written.
Guard = Callable[["Files", "DataFrame", Sequence[str]], "DataFrame"]

_PROPERTY = "sparkrec.pseudonyms"
_PLAIN = "none"
#: What stands for a line that cannot be parsed; no format finds two fields in it.
WITHHELD = "withheld"


def guard(run: Run, table: Table) -> Guard:
    """How rows for ``table`` are changed before they are written.

    Raises
    ------
    ConfigError
        The lake's ids were written with another key or setting, or its list of the erased was.
    """
    settings = run.settings.privacy
    if table is not schemas.BRONZE_EVENTS:
        return lambda files, rows, headers: rows
    gone = run.lake.exists(schemas.SUPPRESSED)
    key = suppressed.key(run, create=settings.pseudonymize) if settings.pseudonymize or gone else None
    if key and key.is_new:
        run.say(f"made a privacy key, {key.origin}: keep a copy of it, and keep it apart from the lake")
    _require_same(run, key.id if key and settings.pseudonymize else _PLAIN)
    if not (settings.pseudonymize or settings.scrub or gone):
        return lambda files, rows, headers: rows
    erased = suppressed.digests(run) if gone else None

    def protected(files: Files, rows: DataFrame, headers: Sequence[str]) -> DataFrame:
        return protect(files, rows, headers, key, settings.pseudonymize, settings.scrub, erased)

    return protected


def protect(
    files: Files, rows: DataFrame, headers: Sequence[str], key: Key | None, pseudonymize: bool, scrub_texts: bool,
    erased: DataFrame | None,
) -> DataFrame:  # fmt: skip
    """Raw rows as they are written: the columns of ``rows``. ``erased``: digests of users who must not come back.

    ``headers`` : those of the rows, so that none is read to find them. ``key`` : of pseudonyms and of that list, where
    there is either. Where two ids are read from one field, it holds the pseudonym of the user.
    """
    from pyspark.sql import functions as F

    from sparkrec.clean import parsing

    if pseudonymize and c.USER_ID not in files.ids:
        raise ConfigError(
            f"privacy.pseudonymize is on, and the source does not say which field of {files.pattern} is the user. Give "
            f"its Files the argument ids={{'{c.USER_ID}': '<field>'}}, or map {c.USER_ID} in the options."
        )
    parsed = files.format.parse(rows, headers)
    given = files.to(lambda name: F.col(FIELDS)[name])
    changes: dict[str, Column] = {}
    user = parsing.trimmed(given[c.USER_ID])  # as in silver
    if pseudonymize and key:
        for name, own in files.ids.items():
            hashed = pseudonyms.pseudonyms(key, name)(parsing.trimmed(given[name]))
            parsed = parsed.withColumn(f"_{name}", hashed)
            if name == c.USER_ID or own != files.ids[c.USER_ID]:
                changes[own] = F.col(f"_{name}")
        user = F.col(f"_{c.USER_ID}")
    if erased is not None and key:
        parsed = parsed.withColumn(c.DIGEST, pseudonyms.digests(key, pseudonyms.ERASED)(user))
        parsed = parsed.join(F.broadcast(erased), c.DIGEST, "left_anti")
    if scrub_texts:
        changes = {own: scrub.scrubbed(F.col(FIELDS)[own]) for own in files.texts} | changes
    text = torn = F.col(c.RAW)
    if changes:
        parsed = parsed.withColumn(FIELDS, _changed(changes, canonical.fields(files.to) if pseudonymize else None))
        text = files.format.line(headers)
    if key:
        unread = F.when(F.col(FIELDS).isNull(), F.col(c.RAW))
        parsed = parsed.withColumn("_digest", pseudonyms.digests(key, WITHHELD)(unread))
        torn = F.concat_ws("_", F.lit(WITHHELD), F.length(c.RAW), F.lit("characters"), F.col("_digest"))
    raw = F.when(F.col(FIELDS).isNotNull(), text).otherwise(torn)
    return parsed.withColumn(c.RAW, raw).select(*rows.columns)


def count_marks(run: Run, table: Table) -> None:
    """Count what scrubbing took out of the rows that this run has written: e_mails, phones, cards."""
    from pyspark.sql import functions as F

    if table is not schemas.BRONZE_EVENTS or not run.settings.privacy.scrub:
        return
    own = run.lake.read(table).where((F.col(c.RUN_ID) == run.run_id) & (F.col(c.INGEST_TIME) == F.lit(run.started)))
    row = own.agg(*[F.coalesce(F.sum(n), F.lit(0)) for n in scrub.marks(F.col(c.RAW)).values()]).first()
    assert row is not None
    run.count(scrubbed_e_mails=row[0], scrubbed_phones=row[1], scrubbed_cards=row[2])


def properties(run: Run, table: Table) -> dict[str, str]:
    """What bronze.events says of how its ids are written, from its first row on; later rows must be written alike."""
    if table is not schemas.BRONZE_EVENTS or not run.settings.privacy.pseudonymize:
        return {}
    key = keys.load(run.settings, create=False)
    return {_PROPERTY: key.id}


def held_key(run: Run) -> str | None:
    """The id of the key whose pseudonyms bronze.events holds; None: it holds the ids as they came, or is not there."""
    if not run.lake.exists(schemas.BRONZE_EVENTS):
        return None
    return migrations.read(run.spark, run.lake.path(schemas.BRONZE_EVENTS), _PROPERTY)


def _require_same(run: Run, wanted: str) -> None:
    """Raises ConfigError where the lake's ids are written otherwise than this run would."""
    if not run.lake.exists(schemas.BRONZE_EVENTS):
        return
    found = held_key(run) or _PLAIN
    if found != wanted:
        raise ConfigError(
            f"The ids in the lake {run.lake.root} are {_named(found)}, and this run would write them {_named(wanted)}: "
            "the same person would be two. Go on with the setting and the key that the lake began with, or read the "
            "files into a new lake (docs/privacy.md tells how a key is changed)."
        )


def _named(key: str) -> str:
    return "as they came in the logs" if key == _PLAIN else f"pseudonyms of the key {key}"


def _changed(changes: Mapping[str, Column], kept: tuple[str, ...] | None) -> Column:
    """The fields with some of them changed, and only the ``kept`` ones, if these are given."""
    from pyspark.sql import functions as F

    def value(name: Column, old: Column) -> Column:
        result = F.when(name.isin(*kept), old) if kept is not None else old
        for own, new in changes.items():
            result = F.when(name == own, new).otherwise(result)
        return result

    return F.transform_values(FIELDS, value)
