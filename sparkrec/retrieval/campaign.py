"""Which items a campaign is about, and whose scores count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.errors import ConfigError, DataError
from sparkrec.models import popularity
from sparkrec.named import ids
from sparkrec.pipeline import Run
from sparkrec.retrieval.catalogue import ALLOWED

#: Scores of items × users pass through each executor's memory at once, a block of users at a time.
MOST = 10_000


def model(run: Run) -> str:
    """The model that was asked for, else the last of recommend.models that has vectors.

    Raises
    ------
    ConfigError
        It knows no users: the most popular items are the same for everybody.
    """
    name = run.arguments.get("model") or (popularity.NAME, *run.settings.recommend.with_vectors)[-1]
    if name == popularity.NAME:
        raise ConfigError(
            f"The model '{name}' scores an item the same for every user, so it knows no audience. Pass --model with "
            "another of recommend.models."
        )
    return str(name)


def items(run: Run, shelf: DataFrame) -> NDArray[np.int64]:
    """Indices, ascending, of the items that were asked for. ``shelf`` is from :func:`rules.offered`.

    Raises
    ------
    ConfigError
        None is named, too many are, or the file cannot be read.
    DataError
        One of them is not known, or may not be recommended.
    """
    asked = ids(run.arguments["items"], "item")
    if len(asked) > MOST:
        raise ConfigError(
            f"The campaign has {len(asked):,} items, and may have {MOST:,}: each executor holds their scores. Split it."
        )
    wanted = run.spark.createDataFrame([(item,) for item in asked], f"{c.ITEM_ID} string")
    rows = shelf.join(F.broadcast(wanted), c.ITEM_ID, "right").collect()  # at most as many as were asked for
    for row in sorted(rows, key=lambda row: row[c.ITEM_ID]):
        if row[c.ITEM_INDEX] is None:
            raise DataError(f"The item '{row[c.ITEM_ID]}' is not in gold.items. Check the id, or run featurize again.")
        if not row[ALLOWED]:
            raise DataError(
                f"The item '{row[c.ITEM_ID]}' may not be recommended: it is not for sale or in stock, or a rule or "
                "list of recommend keeps it back. Take it out of the campaign, or change the rule."
            )
    return np.sort(np.array([row[c.ITEM_INDEX] for row in rows], np.int64))
