"""Visits that contradict themselves: bought long before it was looked at, removed and never put in.

A visit is a user's session, or the user's day where the log has no sessions. These rules warn: they count the (user,
item, visit) of what one run reads, and change nothing.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean.outliers import Noticed
from sparkrec.clean.verdicts import Rule, tuned
from sparkrec.config import Clean
from sparkrec.errors import ConfigError

BEFORE_VIEW, WITHOUT_CART = "purchase_before_view", "remove_without_cart"


def declared() -> list[Rule]:
    """The rules, unbound: their verdict needs a visit's events together."""
    return [
        Rule(BEFORE_VIEW, "no purchase of an item some minutes before its first view in the same visit", None, None,
             "warn", options={"minutes": 60.0, "share": 1.0}),
        Rule(WITHOUT_CART, "a removal of what was put into the cart in the same visit", None, None, "warn",
             options={"share": 1.0}),
    ]  # fmt: skip


def notice(events: DataFrame, settings: Clean) -> list[Noticed]:
    """How many visits to an item contradict themselves, and an example. One shuffle of the users looked at.

    Raises
    ------
    ConfigError
        One of the rules is to quarantine: which of several rows would be wrong is not known.
    """
    rules = {rule.name: rule for rule in tuned(declared(), settings.rules)}
    for name, rule in rules.items():
        if rule.severity != "warn":
            raise ConfigError(
                f"'clean.rules.{name}.severity' is {rule.severity}, and this rule is about several rows, of which none "
                "can be said to be the wrong one. Expected warn."
            )
    if not rules:
        return []
    share = max(rule.options["share"] for rule in rules.values())
    minutes = rules[BEFORE_VIEW].options["minutes"] if BEFORE_VIEW in rules else 0.0
    contradicts = {
        BEFORE_VIEW: _seconds("_purchase") + 60 * minutes < _seconds("_view"),
        WITHOUT_CART: F.col("_remove").isNotNull() & ~F.coalesce(F.col("_cart") <= F.col("_remove"), F.lit(False)),
    }
    example = F.struct(F.coalesce("_purchase", "_remove").alias("time"), c.ITEM_ID)
    counts = [F.count_if(contradicts[name] & _drawn(rule)) for name, rule in rules.items()]
    places = [F.min(F.when(contradicts[name] & _drawn(rule), example)) for name, rule in rules.items()]
    row = _visits(events, share).agg(*counts, *places).first()
    assert row is not None
    found = []
    for number, rule in enumerate(rules.values()):
        place = row[len(rules) + number]
        found.append((rule, int(row[number]), f"item {place[1]} at {place[0]:%Y-%m-%d %H:%M}" if place else None))
    return found


def _visits(events: DataFrame, share: float) -> DataFrame:
    """A row for each user, item and visit: the first time of each kind of event, and no more."""
    kinds = {"_view": (c.VIEW, c.CLICK), "_cart": (c.CART,), "_purchase": (c.PURCHASE,), "_remove": (c.REMOVE,)}
    wanted = [kind for names in kinds.values() for kind in names]
    of_interest = events.where(F.col(c.EVENT_TYPE).isin(*wanted) & (_lot() < share))
    times = [
        F.min(F.when(F.col(c.EVENT_TYPE).isin(*names), F.col(c.EVENT_TIME))).alias(column)
        for column, names in kinds.items()
    ]
    visit = F.coalesce(c.SESSION_ID, F.col(c.EVENT_DATE).cast("string")).alias("_visit")
    # No text among the aggregates: Spark would sort all events for it.
    return of_interest.groupBy(c.USER_ID, c.ITEM_ID, visit).agg(*times)


def _lot() -> Column:
    """A number from 0 to 1 that belongs to the user."""
    return F.pmod(F.xxhash64(c.USER_ID), F.lit(1 << 20)) / float(1 << 20)


def _drawn(rule: Rule) -> Column:
    return _lot() < rule.options["share"]


def _seconds(name: str) -> Column:
    return F.unix_micros(name) / 1e6
