"""A few test users, whole: what they did, what each model showed them, and what they went on to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation.outcomes import KEY

#: Rows shown of a history, of a list and of what came after.
SHOWN = 8


def draw(users: DataFrame, n: int) -> list[tuple[str, int]]:
    """Ids and indices of ``n`` test users with a history: those with the smallest hashes, so the same each time."""
    rows = users.where(F.col(c.SEGMENT) > 0).orderBy(KEY, c.USER_ID).limit(n).collect()
    return [(row[c.USER_ID], row[c.USER_INDEX]) for row in rows]


def describe(
    drawn: Sequence[tuple[str, int]],
    sequences: DataFrame,
    holdout: DataFrame,
    lists: DataFrame,
    items: DataFrame,
    models: Sequence[str],
) -> list[dict[str, Any]]:
    """For each user: ``user``, ``history`` (newest first), ``after`` and ``lists`` by model, with names of items.

    ``lists[model]`` is rows of ``name``, ``reason`` and ``hit``. Small: :data:`SHOWN` rows of a few users.
    """
    if not drawn:
        return []
    ids, indices = [user for user, _ in drawn], [index for _, index in drawn]
    past = (
        sequences.where(F.col(c.USER_INDEX).isin(indices) & (F.col(c.CHUNK) == 0))
        .select(
            c.USER_INDEX, *[F.slice(F.reverse(name), 1, SHOWN).alias(name) for name in (c.ITEM_INDEX, c.EVENT_TYPE)]
        )
        .collect()
    )
    future = holdout.where(F.col(c.USER_ID).isin(ids)).orderBy(c.USER_ID, c.EVENT_TIME, c.ITEM_ID).collect()
    shown = lists.where(F.col(c.USER_ID).isin(ids) & F.col(c.MODEL).isin(*models) & (F.col(c.RANK) <= SHOWN)).collect()
    met = {index for row in past for index in row[c.ITEM_INDEX]}
    by_index, by_id = _names(items, met, {row[c.ITEM_ID] for row in [*future, *shown]})
    histories = {
        row[c.USER_INDEX]: [
            {"name": by_index[item], "event": c.EVENT_TYPES[code]}
            for item, code in zip(row[c.ITEM_INDEX], row[c.EVENT_TYPE], strict=True)
        ]
        for row in past
    }
    found = []
    for user, index in drawn:
        wanted = [row for row in future if row[c.USER_ID] == user]
        hit = {row[c.ITEM_ID] for row in wanted}
        own = sorted((row for row in shown if row[c.USER_ID] == user), key=lambda row: row[c.RANK])
        found.append(
            {
                "user": user,
                "history": histories.get(index, []),
                "after": [
                    {"name": by_id.get(row[c.ITEM_ID], row[c.ITEM_ID]), "event": row[c.EVENT_TYPE]}
                    for row in wanted[:SHOWN]
                ],
                "after_all": len(wanted),
                "lists": {
                    model: [
                        {"name": by_id[row[c.ITEM_ID]], "reason": row[c.REASON], "hit": row[c.ITEM_ID] in hit}
                        for row in own
                        if row[c.MODEL] == model
                    ]
                    for model in models
                },
            }
        )
    return found


def _names(items: DataFrame, indices: Iterable[int], ids: Iterable[str]) -> tuple[dict[int, str], dict[str, str]]:
    """What a person reads for each item, by index and by id; an item without a name is its id."""
    wanted = F.col(c.ITEM_INDEX).isin(*indices) | F.col(c.ITEM_ID).isin(*ids)
    rows = items.where(wanted).select(c.ITEM_INDEX, c.ITEM_ID, F.coalesce(c.NAME, c.ITEM_ID).alias(c.NAME)).collect()
    return {row[c.ITEM_INDEX]: row[c.NAME] for row in rows}, {row[c.ITEM_ID]: row[c.NAME] for row in rows}
