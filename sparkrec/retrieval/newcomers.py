"""Users whom no model was trained on: what they have done so far, as a user of the join, without training.

The two-tower model's history tower makes a vector from a few events, which is drawn towards the mean user's. Who has
met no item that it knows is served what is most popular in their segment, or with everyone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import TwoTower
from sparkrec.config.recommend import Recommend
from sparkrec.errors import ConfigError, DataError
from sparkrec.models import segments
from sparkrec.models.two_tower.exported import Exported
from sparkrec.pipeline import Run
from sparkrec.privacy import persons
from sparkrec.retrieval import embed, id_files, rules
from sparkrec.retrieval.join import AGE_DAYS, SEEN, SEGMENT

#: Whose lists these are, in recommendations.
NAME = "newcomers"
_KNOWN = "_known"
_UNIT = 1 << 20


def read(run: Run, path: str) -> DataFrame:
    """New events: user_id (as the lake holds it), item_id, event_type, event_time, and country (null: not known).

    Raises
    ------
    ConfigError
        The file cannot be read.
    DataError
        A column or a value is missing, an event type is unknown, or a time is none.
    """
    needed = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME)
    events = id_files.read(run.spark, path, "The file of --events", needed, sparse=(c.COUNTRY,))
    time = F.try_to_timestamp(c.EVENT_TIME)
    right = F.col(c.EVENT_TYPE).isin(*c.EVENT_TYPES) & time.isNotNull()
    if bad := events.where(~right).head():
        raise DataError(
            f"--events ({path}) has a row with {c.EVENT_TYPE}={bad[c.EVENT_TYPE]} and {c.EVENT_TIME}="
            f"{bad[c.EVENT_TIME]}. A type is one of {', '.join(c.EVENT_TYPES)}; a time is UTC, such as "
            "2026-11-28 09:30:00. Mend the row, or leave it out."
        )
    return persons.as_stored(run, events.withColumn(c.EVENT_TIME, time))


def check_model(run: Run, model: Exported) -> None:
    """New vectors and those of known users, which the lists are drawn towards, are of one model.

    Raises
    ------
    DataError
        It was trained again since ``embed``.
    """
    records = [row for row in run.known_records() if row[c.STAGE] == "embed"]
    embedded = json.loads(records[-1][c.DETAILS] or "{}").get("model") if records else None
    if embedded not in (None, model.hash):
        raise DataError(
            f"The two-tower model of the run '{run.run_id}' was trained again since embed wrote its vectors. Run embed "
            "and recommend of that run again first."
        )


def without_known(events: DataFrame, vocabulary: DataFrame) -> DataFrame:
    """Events of users without a training event; the others have lists already."""
    return events.join(vocabulary.where(F.col(c.COUNT) > 0).select(c.USER_ID), c.USER_ID, "left_anti")


def histories(events: DataFrame, items: DataFrame, settings: Recommend, tower: TwoTower | None) -> DataFrame:
    """A row for each user_id: item_index and event_type, oldest first, country, and :data:`join.SEEN`.

    ``items`` is gold.items; events on others are no matter, events at the same time are in the order of the item ids.
    Seen are the items met in one of ``exclude_seen``. The history has what the ``tower`` can read (:func:`readable`).
    """
    known = items.select(c.ITEM_ID, c.ITEM_INDEX, readable(items, tower).alias(_KNOWN))
    code = F.array_position(F.array(*map(F.lit, c.EVENT_TYPES)), F.col(c.EVENT_TYPE)) - 1
    entry = F.struct(c.EVENT_TIME, c.ITEM_ID, code.cast("tinyint").alias(c.EVENT_TYPE), c.ITEM_INDEX, _KNOWN)
    there = F.when(F.col(c.ITEM_INDEX).isNotNull(), entry)
    whole = F.sort_array(F.collect_list(there)).alias("_met")
    by_user = events.join(known, c.ITEM_ID, "left").groupBy(c.USER_ID)
    latest = F.max(F.when(F.col(c.COUNTRY).isNotNull(), F.struct(c.EVENT_TIME, c.COUNTRY)))[c.COUNTRY]
    people = by_user.agg(whole, latest.alias(c.COUNTRY))
    codes = [c.EVENT_TYPES.index(name) for name in settings.exclude_seen]
    read = F.filter("_met", lambda event: event[_KNOWN])
    seen = F.filter("_met", lambda event: event[c.EVENT_TYPE].isin(codes))
    return people.select(
        c.USER_ID,
        c.COUNTRY,
        F.transform(read, lambda event: event[c.ITEM_INDEX]).alias(c.ITEM_INDEX),
        F.transform(read, lambda event: event[c.EVENT_TYPE]).alias(c.EVENT_TYPE),
        F.array_distinct(F.transform(seen, lambda event: event[c.ITEM_INDEX])).alias(SEEN),
    )


def readable(items: DataFrame, tower: TwoTower | None) -> Column:
    """Which items of gold.items mean something in a history: with ``history: mean`` those with a training event.

    The others are in that encoder's table as they were drawn. The other encoders read the item's vector, which its
    features give.
    """
    met = F.coalesce(F.col(c.N_EVENTS), F.lit(0)) > 0
    return met if tower is not None and tower.history == "mean" else F.lit(True)


def with_vectors(people: DataFrame, folder: str, mean: Sequence[float], prior: float) -> DataFrame:
    """Adds the vector that the tower in ``folder`` gives, drawn towards the ``mean`` user's; null without a history.

    The tower has learned on long histories, and says too much of short ones. So after n events its vector counts n and
    the mean user's ``prior`` times, which is the posterior mean under a normal prior (Gelman et al., *Bayesian Data
    Analysis*, 3rd ed., 2.5): (n · f + prior · mean) / (n + prior).
    """
    some = people.where(F.size(c.ITEM_INDEX) > 0)
    if not prior:
        return people.join(embed.strangers(some, folder), c.USER_ID, "left")
    n, of_mean = F.size(c.ITEM_INDEX), F.array(*map(F.lit, mean))
    drawn = F.zip_with(c.VECTOR, of_mean, lambda own, other: ((n * own + prior * other) / (n + prior)).cast("float"))
    return people.join(embed.strangers(some, folder), c.USER_ID, "left").withColumn(c.VECTOR, drawn)


def mean_user(vectors: DataFrame, width: int) -> list[float]:
    """The mean of vectors of users, [width]; sums are of whole numbers of 2⁻²⁰, the same in any order."""
    sums = [F.sum(F.round(F.col(c.VECTOR)[n] * _UNIT).cast("bigint")) for n in range(width)]
    row = vectors.agg(F.array(*sums), F.count("*")).first()
    assert row is not None
    return [float(total or 0) / _UNIT / max(row[1], 1) for total in row[0]]


def as_users(run: Run, people: DataFrame, found: DataFrame | None, lists: dict[str, DataFrame]) -> DataFrame:
    """People as users of the join: with :data:`join.SEGMENT` by country, and with what the rules say of strangers."""
    if found is not None:
        names = found.select(F.col(c.USER_ID).alias("_name"), SEGMENT)
        mine = people.withColumn("_name", segments.name_of(segments.COUNTRY, F.col(c.COUNTRY)))
        people = mine.join(F.broadcast(names), "_name", "left").drop("_name")
    if rules.forgets(run.settings.recommend):  # what they met lies after the split
        people = people.withColumn(AGE_DAYS, F.transform(SEEN, lambda _: F.lit(0.0).cast("float")))
    return rules.of_strangers(run, people, lists)


def require_history(tower: TwoTower) -> None:
    """Raises ConfigError where a user's vector is an id row and nothing else."""
    if tower.history == "none":
        raise ConfigError(
            "The two-tower model of this run makes a user's vector of an id row alone (two_tower.history: none), so it "
            "can say nothing of users whom it was not trained on. Train it with another two_tower.history."
        )


def unknown(run: Run, events: DataFrame) -> DataFrame:
    """:func:`without_known`; how many users were left out goes to the run record."""
    new = without_known(events, run.read(schemas.VOCABULARY_USERS))
    everyone, kept = (frame.select(c.USER_ID).distinct().count() for frame in (events, new))
    run.count(users=kept, already_known=everyone - kept)
    return new
