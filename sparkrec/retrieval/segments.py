"""Segments as users of the join, and which segment a user is of who has no vector of a model.

A segment's list is made like a user's who has seen nothing; a rule sees of it what its name says. Of a known user only
the country is known: the day and the time of a visit are for whoever serves the lists.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.models import segments
from sparkrec.pipeline import Run
from sparkrec.retrieval.join import SEGMENT

_NAME = "_name"


def of_run(run: Run) -> DataFrame | None:
    """User index, user id and number of each segment that has a list; None where there is none."""
    if not run.settings.popularity.segments:
        return None
    rows = run.read(schemas.VECTORS_USERS, {c.RUN_ID: run.run_id, c.MODEL: segments.NAME})
    found = rows.select(c.USER_INDEX, c.USER_ID, (-1 - F.col(c.USER_INDEX)).alias(SEGMENT))
    return None if found.isEmpty() else found


def added(users: DataFrame, found: DataFrame, profiles: DataFrame) -> DataFrame:
    """Users of the join with :data:`join.SEGMENT`, by the country in ``profiles`` (gold.users), and the segments."""
    mine = profiles.select(c.USER_INDEX, segments.name_of(segments.COUNTRY, F.col(c.COUNTRY)).alias(_NAME))
    by_name = found.select(F.col(c.USER_ID).alias(_NAME), SEGMENT)
    numbered = mine.join(F.broadcast(by_name), _NAME).select(c.USER_INDEX, SEGMENT)
    return users.join(numbered, c.USER_INDEX, "left").unionByName(found, allowMissingColumns=True)


def with_profiles(profiles: DataFrame, found: DataFrame) -> DataFrame:
    """gold.users, and a row for each segment: nothing is known of it but the country, where that is its name."""
    prefix = f"{c.ANYONE}{segments.COUNTRY}="
    country = F.when(F.col(c.USER_ID).startswith(prefix), F.substring(c.USER_ID, len(prefix) + 1, 2**31 - 1))
    rows = found.select(c.USER_INDEX, c.USER_ID, country.alias(c.COUNTRY))
    return profiles.unionByName(rows, allowMissingColumns=True)
