"""Users that no person can be."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c


def mark(events: DataFrame, events_per_day: int) -> DataFrame:
    """Adds ``suspect``: true from the first day on which the user has more than ``events_per_day`` events.

    Earlier days are not marked, so that what is known of a day does not depend on later ones. Who reads silver as
    of a day leaves out the users that have a suspect event before it.
    """
    busy = events.groupBy(c.USER_ID, c.EVENT_DATE).count().where(F.col("count") > events_per_day)
    since = busy.groupBy(c.USER_ID).agg(F.min(c.EVENT_DATE).alias("_since"))
    # Bots are few: no shuffle of the events for them.
    marked = events.join(F.broadcast(since), c.USER_ID, "left")
    suspect = F.coalesce(F.col(c.EVENT_DATE) >= F.col("_since"), F.lit(False))
    return marked.withColumn(c.SUSPECT, suspect).drop("_since")
