"""The tables from vectors to lists: what models write, and what is served. Part of :mod:`sparkrec.schemas`."""

from __future__ import annotations

from sparkrec import columns as c
from sparkrec.table import PUBLIC, RUN_ID, Column, Table


def _vectors(what: str, id_column: str, index_column: str, more: str = "") -> Table:
    return Table(
        f"vectors.{what}",
        (c.RUN_ID, c.MODEL, index_column),
        f"A vector for each of the {what}, for each model.",
        (
            RUN_ID,
            Column(c.MODEL, "string", "popularity, als, two_tower, …"),
            Column(index_column, "int", f"index in gold.vocabulary_{what}{more}"),
            Column(id_column, "string", "the id"),
            Column(c.VECTOR, "array<float>", "score(user, item) = dot product"),
        ),
        partition_by=(c.RUN_ID, c.MODEL),
    )


VECTORS_USERS = _vectors("users", c.USER_ID, c.USER_INDEX, "; a segment's is negative")
VECTORS_ITEMS = _vectors("items", c.ITEM_ID, c.ITEM_INDEX)

RECOMMENDATIONS = Table(
    "recommendations",
    (c.RUN_ID, c.MODEL, c.USER_ID, c.RANK),
    "The lists. Who has none of their own is served that of a segment, such as the user '*country=Germany', or of '*'.",
    (
        RUN_ID,
        Column(c.MODEL, "string", "the model whose lists these are"),
        Column(c.USER_ID, "string", "the user, or the segment, or *"),
        Column(c.RANK, "int", "1 is best"),
        Column(c.ITEM_ID, "string", "the item"),
        Column(c.SCORE, "double", "of the source that chose it; comparable within one list and source"),
        Column(c.SOURCE, "string", "the model, or the fallback, that chose it"),
        Column(c.REASON, "string", "a few words that could be shown to the user"),
        Column(c.PROPENSITY, "double", "the chance that this item got this place: 1 where no lot was drawn", PUBLIC),
    ),
    partition_by=(c.RUN_ID, c.MODEL),
)

SIMILAR_ITEMS = Table(
    "similar_items",
    (c.RUN_ID, c.MODEL, c.ITEM_ID, c.RANK),
    "What to show beside an item: items that are alike, and items that are bought together with it.",
    (
        RUN_ID,
        Column(
            c.MODEL, "string", "the model whose vectors are alike, or one of similar.neighborhood, or bought_together"
        ),
        Column(c.ITEM_ID, "string", "the item that somebody looks at"),
        Column(c.RANK, "int", "1 is best"),
        Column(c.NEIGHBOR_ID, "string", "the item beside it"),
        Column(
            c.SCORE,
            "double",
            "how alike they are, higher is more; of tastes 1 − their Jensen-Shannon divergence / ln 2, from 0 to 1; of "
            "bought_together the lower 95 % bound of the lift",
        ),
        Column(c.LIFT, "double", "bought_together: how many times more often than by chance; else null"),
        Column(c.COUNT, "bigint", "users who met, rated or bought both; null for a model's vectors"),
    ),
    partition_by=(c.RUN_ID, c.MODEL),
)

AUDIENCES = Table(
    "audiences",
    (c.RUN_ID, c.CAMPAIGN, c.ITEM_ID, c.RANK),
    "Whom to tell of an item: the users whom it suits best, among those who may be offered it.",
    (
        RUN_ID,
        Column(c.CAMPAIGN, "string", "the name that the command was given"),
        Column(c.ITEM_ID, "string", "the item"),
        Column(c.RANK, "int", "1 is best"),
        Column(c.USER_ID, "string", "the user"),
        Column(c.SCORE, "double", "the model's score of user and item; comparable within an item"),
        Column(c.MODEL, "string", "the model"),
    ),
    partition_by=(c.RUN_ID, c.CAMPAIGN),
)
