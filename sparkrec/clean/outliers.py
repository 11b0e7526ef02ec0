"""Prices and quantities far from what is usual in their category.

The robust z-score of a value x in its category: |ln x − ln q2| / s with s = 0.7413 (ln q3 − ln q1), the quartiles
q1, q2, q3 of the category (0.7413 × the interquartile range estimates a normal's standard deviation; Rousseeuw and
Croux, 1993), and at least 0.5: where nearly all values are one, a value some times larger is no error.

Such a verdict depends on the other rows. So these rules warn, and only count what one run reads; with the severity
``quarantine`` a row is judged beside those that it comes with, what was refused stays refused, and increments may
differ from a full recompute.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import parsing
from sparkrec.clean.verdicts import Rule, tuned
from sparkrec.config import Clean
from sparkrec.persistence import persisted

PRICE, QUANTITY = "outlier_price", "outlier_quantity"
_NORMAL, _LEAST_SCALE = 0.7413, 0.5
_CATEGORY, _MEASURE, _X, _Z = "_category", "_measure", "_x", "_z"
_WERE, _OLD = "_were", "_old"

Noticed = tuple[Rule, int, str | None]


def declared() -> list[Rule]:
    """The rules, unbound: their verdict needs a pass over all rows."""
    words = "usual in its category: a robust z-score of at most"
    return [
        Rule(PRICE, f"a price {words} z", None, None, "warn", options={"z": 6.0}),
        Rule(QUANTITY, f"a quantity {words} z", None, None, "warn", options={"z": 6.0}),
    ]


def notice(events: DataFrame, items: DataFrame | None, settings: Clean) -> list[Noticed]:
    """How many of the good typed ``events`` each warning rule finds, and an example: the first item, and the value.

    ``items`` : silver.items, for the categories; None where only the log knows them. One shuffle of (item, value)
    with its number of rows, so of a shop's prices and not of its events.
    """
    rules = {rule.name: rule for rule in tuned(declared(), settings.rules) if rule.severity == "warn"}
    if not rules:
        return []
    values = persisted(_values(events).groupBy(c.ITEM_ID, _CATEGORY, _MEASURE, _X).count())
    scored = _scored(_categorised(values, items), F.col(c.COUNT))
    beyond = F.lit(False)
    for name, rule in rules.items():
        beyond = beyond | ((F.col(_MEASURE) == name) & (F.col(_Z) > rule.options["z"]))
    rows = scored.where(beyond).groupBy(_MEASURE).agg(F.sum(c.COUNT), F.min(F.struct(c.ITEM_ID, _X))).collect()
    found = {name: (int(n), f"item {first[0]}: {first[1]:g}") for name, n, first in rows}
    return [(rule, *found.get(name, (0, None))) for name, rule in rules.items()]


def refusing(settings: Clean) -> list[Rule]:
    """The rules about outliers with the severity ``quarantine``."""
    return [rule for rule in tuned(declared(), settings.rules) if rule.severity == "quarantine"]


def refuse(rows: DataFrame, items: DataFrame | None, settings: Clean) -> DataFrame:
    """The typed rows, outliers refused too where a rule about them has the severity ``quarantine``."""
    for rule in refusing(settings):
        value = _measures()[rule.name]
        measured = rows.withColumns({_CATEGORY: _own_category(), _X: value, _MEASURE: F.lit(rule.name)})
        scored = _scored(_categorised(measured, items), F.when(F.col(c.RULE).isNull() & F.col(_X).isNotNull(), 1))
        name, beyond = F.lit(rule.name), F.coalesce(F.col(_Z) > rule.options["z"], F.lit(False))
        reason = F.concat(F.lit(f"{rule.name[8:]} is "), F.col(_X).cast("string"), F.lit(f"; expected {rule.expects}"))
        rows = scored.withColumns(
            {
                c.RULES: F.when(beyond, F.array_append(c.RULES, name)).otherwise(F.col(c.RULES)),
                c.RULE: F.coalesce(c.RULE, F.when(beyond, name)),
                c.REASON: F.coalesce(c.REASON, F.when(beyond, reason)),
            }
        ).drop(_CATEGORY, _X, _MEASURE, _Z)
    return rows


def kept(rows: DataFrame, quarantine: DataFrame, settings: Clean) -> DataFrame:
    """Typed rows of quarantine, those that :func:`refuse` refused still refused."""
    names = [rule.name for rule in refusing(settings)]
    if not names:
        return rows
    were = F.filter(c.RULES, lambda rule: rule.isin(*names))
    refused = quarantine.select(c.EVENT_ID, were.alias(_WERE), F.struct(c.RULE, c.REASON).alias(_OLD))
    joined = rows.join(refused.where(F.size(_WERE) > 0), c.EVENT_ID, "left")
    first, old = F.col(_WERE)[0], F.col(_OLD)
    words = F.concat(first, F.lit(": unusual beside the rows that it came with"))
    reason = F.when(old[c.RULE] == first, old[c.REASON]).when(first.isNotNull(), words)
    return joined.withColumns(
        {
            c.RULES: F.when(first.isNotNull(), F.concat(c.RULES, _WERE)).otherwise(F.col(c.RULES)),
            c.RULE: F.coalesce(c.RULE, first),
            c.REASON: F.coalesce(c.REASON, reason),
        }
    ).drop(_WERE, _OLD)


def _measures() -> dict[str, Column]:
    bought = F.col(c.EVENT_TYPE).isin(c.PURCHASE, c.CART)
    return {PRICE: F.when(F.col(c.PRICE) > 0, F.col(c.PRICE)),
            QUANTITY: F.when(bought & (F.col(c.VALUE) > 0), F.col(c.VALUE))}  # fmt: skip


def _values(good: DataFrame) -> DataFrame:
    """A row for each price and each quantity: item, category that the row itself names, measure, value."""
    pairs = [part for name, x in _measures().items() for part in (F.lit(name), x)]
    both = F.stack(F.lit(len(_measures())), *pairs).alias(_MEASURE, _X)
    return good.select(c.ITEM_ID, _own_category().alias(_CATEGORY), both).where(F.col(_X).isNotNull())


def _own_category() -> Column:
    return parsing.path(F.col(c.ITEM_CATEGORY))[0]


def _categorised(rows: DataFrame, items: DataFrame | None) -> DataFrame:
    """The row's own category, else that of the catalogue's newest row for the item, else none."""
    if items is not None:
        newest = items.groupBy(c.ITEM_ID).agg(F.max_by(F.col(c.CATEGORY)[0], c.VALID_FROM).alias("_catalogue"))
        rows = rows.join(newest, c.ITEM_ID, "left").withColumn(_CATEGORY, F.coalesce(_CATEGORY, "_catalogue"))
        rows = rows.drop("_catalogue")
    return rows.withColumn(_CATEGORY, F.coalesce(_CATEGORY, F.lit("")))


def _scored(rows: DataFrame, weight: Column) -> DataFrame:
    """Adds the z-score. Categories are few: their quartiles are broadcast."""
    weighed = rows.withColumn("_n", weight).where(F.col("_n") > 0)
    quartiles = weighed.groupBy(_CATEGORY, _MEASURE).agg(
        F.percentile(_X, F.array(F.lit(0.25), F.lit(0.5), F.lit(0.75)), F.col("_n")).alias("_q")
    )
    q = [F.log(F.col("_q")[i]) for i in range(3)]
    z = F.abs(F.log(_X) - q[1]) / F.greatest(_NORMAL * (q[2] - q[0]), F.lit(_LEAST_SCALE))
    return rows.join(F.broadcast(quartiles), [_CATEGORY, _MEASURE], "left").withColumn(_Z, z).drop("_q")
