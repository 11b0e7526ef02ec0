"""Both sides of a cold start, where the test part has any: new users, and new items."""

from __future__ import annotations

from pyspark.sql import DataFrame

from sparkrec.evaluation import new_items, newcomers
from sparkrec.evaluation.comparison import Comparison
from sparkrec.pipeline import Run
from sparkrec.retrieval.shop import Shop


def measured(run: Run, holdout: DataFrame) -> tuple[list[Comparison], int]:
    """What was measured of new users and of new items, and how many new items there are; nothing if it is off."""
    if not run.settings.evaluate.newcomers:
        return [], 0
    shop = Shop(run, few=True)
    users, items = newcomers.measured(run, shop, holdout), new_items.measured(run, shop, holdout)
    found = [part for part in (users, items[0] if items else None) if part is not None]
    return found, items[1] if items else 0
