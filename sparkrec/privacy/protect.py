"""What happens to raw event rows between the file and bronze: pseudonyms, scrubbing, and the erased stay away.

A row is taken apart by its format, changed field by field, and written anew. Fields that the source does not read are
dropped: nobody can vouch for what is in them. A line that cannot be taken apart may hold an id anywhere, so only its
length and a keyed digest are kept: enough to count it, to merge its repeats, and to find it in the file by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError
from sparkrec.ingest.formats import FIELDS
from sparkrec.lake import migrations
from sparkrec.privacy import keys, pseudonyms, scrub
from sparkrec.privacy.keys import Key
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from sparkrec.ingest.sources.base import Files
    from sparkrec.pipeline import Run

#: Raw rows of one kind of file → the rows that are written.
Guard = Callable[["Files", "DataFrame"], "DataFrame"]

_PROPERTY = "sparkrec.pseudonyms"
_PLAIN = "none"
#: What stands for a line that cannot be parsed; no format finds two fields in it.
WITHHELD = "withheld"


def guard(run: Run, table: Table) -> Guard:
    """How rows for ``table`` are changed before they are written.

    Raises
    ------
    ConfigError
        The lake's ids were written with another key or setting.
    """
    settings = run.settings.privacy
    if table is not schemas.BRONZE_EVENTS:
        return lambda files, rows: rows
    gone = run.lake.exists(schemas.SUPPRESSED)
    key = keys.load(run.settings, create=settings.pseudonymize) if settings.pseudonymize or gone else None
    if key and key.is_new:
        run.say(f"made a privacy key, {key.origin}: keep a copy of it, and keep it apart from the lake")
    _require_same(run, key.id if key and settings.pseudonymize else _PLAIN)
    if not (settings.pseudonymize or settings.scrub or gone):
        return lambda files, rows: rows
    erased = run.lake.read(schemas.SUPPRESSED).select(c.DIGEST).distinct() if gone else None

    def protected(files: Files, rows: DataFrame) -> DataFrame:
        return protect(files, rows, key, settings.pseudonymize, settings.scrub, erased)

    return protected


def protect(
    files: Files, rows: DataFrame, key: Key | None, pseudonymize: bool, scrub_texts: bool, erased: DataFrame | None
) -> DataFrame:
    """Raw rows as they are written: the columns of ``rows``. ``erased``: digests of users who must not come back."""
    from pyspark.sql import functions as F

    from sparkrec.clean import parsing

    if pseudonymize and c.USER_ID not in files.ids:
        raise ConfigError(
            f"privacy.pseudonymize is on, and the source does not say which field of {files.pattern} is the user. Give "
            f"its Files the argument ids={{'{c.USER_ID}': '<field>'}}, or map {c.USER_ID} in the options."
        )
    headers = files.format.headers(rows)
    parsed = files.format.parse(rows, headers)
    given = files.to(lambda name: F.col(FIELDS)[name])
    changes: dict[str, Column] = {}
    user = parsing.trimmed(given[c.USER_ID])  # as in silver
    if pseudonymize and key:
        for canonical, own in files.ids.items():
            hashed = pseudonyms.pseudonyms(key, canonical)(parsing.trimmed(given[canonical]))
            parsed = parsed.withColumn(f"_{canonical}", hashed)
            changes[own] = F.col(f"_{canonical}")
        user = F.col(f"_{c.USER_ID}")
    if erased is not None and key:
        parsed = parsed.withColumn(c.DIGEST, pseudonyms.digests(key, pseudonyms.ERASED)(user))
        parsed = parsed.join(F.broadcast(erased), c.DIGEST, "left_anti")
        if not pseudonymize:  # else a torn line is withheld whole
            place = [c.SOURCE_FILE, c.LINE]
            torn = parsed.where(F.col(FIELDS).isNull()).select(*place, F.explode(words()).alias("_word"))
            torn = torn.withColumn(c.DIGEST, pseudonyms.digests(key, pseudonyms.ERASED)(F.col("_word")))
            named = torn.join(F.broadcast(erased), c.DIGEST, "left_semi").select(*place).distinct()
            parsed = parsed.join(F.broadcast(named), place, "left_anti")
    if scrub_texts:
        changes |= {own: scrub.scrubbed(F.col(FIELDS)[own]) for own in files.texts}
    if not changes:
        return parsed.select(*rows.columns)
    changed = parsed.withColumn(FIELDS, _changed(changes, read_by(files) if pseudonymize else None))
    text = F.when(F.col(FIELDS).isNotNull(), files.format.line(headers)).otherwise(F.col(c.RAW))
    if pseudonymize and key:
        whole = pseudonyms.digests(key, WITHHELD)(F.col(c.RAW))
        changed = changed.withColumn("_digest", F.when(F.col(FIELDS).isNull(), whole))
        withheld = F.concat_ws("_", F.lit(WITHHELD), F.length(c.RAW), F.lit("characters"), F.col("_digest"))
        text = F.when(F.col(FIELDS).isNotNull(), files.format.line(headers)).otherwise(withheld)
    return changed.withColumn(c.RAW, text).select(*rows.columns)


def words() -> Column:
    """The words of a raw line that cannot be taken apart, each once: where an id occurs in it, it is one of them."""
    from pyspark.sql import functions as F

    return F.array_distinct(F.split(c.RAW, r"[^\p{L}\p{N}_@.+-]+"))


def count_marks(run: Run, table: Table) -> None:
    """Count what scrubbing took out of the rows that this run has written: e_mails, phones, cards."""
    from pyspark.sql import functions as F

    if table is not schemas.BRONZE_EVENTS or not run.settings.privacy.scrub:
        return
    own = run.lake.read(table).where((F.col(c.RUN_ID) == run.run_id) & (F.col(c.INGEST_TIME) == F.lit(run.started)))
    row = own.agg(*[F.coalesce(F.sum(n), F.lit(0)) for n in scrub.marks(F.col(c.RAW)).values()]).first()
    assert row is not None
    run.count(scrubbed_e_mails=row[0], scrubbed_phones=row[1], scrubbed_cards=row[2])


def read_by(files: Files) -> tuple[str, ...]:
    """The names of the fields that a source reads: its mapping is asked for them all."""
    from pyspark.sql import functions as F

    names: dict[str, None] = {}

    def field(name: str) -> Column:
        names[name] = None
        return F.col(FIELDS)[name]

    files.to(field)
    return tuple(names)


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
