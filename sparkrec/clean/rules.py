"""The rules of silver, declared once: what is refused, and the sentence that says why.

A rule sees a row's canonical text (``source.events`` or ``source.items``) and, in the struct ``parsed``, what
:mod:`sparkrec.clean.parsing` made of it. A row is refused for the first rule that it breaks; all of them are noted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import parsing
from sparkrec.config import Clean

#: The struct of typed values beside the text.
PARSED = "parsed"
#: Whether the catalogue holds the event's item; true where there is no catalogue.
KNOWN_ITEM = "known_item"


@dataclass(frozen=True)
class Rule:
    """One reason to refuse a row."""

    name: str
    expects: str
    refuses: Column
    found: Column

    @property
    def reason(self) -> Column:
        """``found``; the expectation."""
        return F.concat(self.found, F.lit(f"; expected {self.expects}"))


def parse_events(events: DataFrame) -> DataFrame:
    """Adds the struct ``parsed``: event_time, value, price."""
    return events.withColumn(
        PARSED,
        F.struct(
            parsing.timestamp(F.col(c.EVENT_TIME)).alias(c.EVENT_TIME),
            parsing.number(F.col(c.VALUE)).alias(c.VALUE),
            parsing.number(F.col(c.PRICE)).alias(c.PRICE),
        ),
    )


def parse_items(items: DataFrame) -> DataFrame:
    """Adds the struct ``parsed``: valid_from, price, stock, promotion."""
    numbers = [parsing.number(F.col(name)).alias(name) for name in (c.PRICE, c.STOCK, c.PROMOTION)]
    return items.withColumn(PARSED, F.struct(parsing.timestamp(F.col(c.VALID_FROM)).alias(c.VALID_FROM), *numbers))


def event_rules(settings: Clean, latest: dt.date | None) -> list[Rule]:
    """The rules of events, in the order in which they are named.

    ``latest`` is the last possible day; None: the day on which the row was ingested. So a verdict does not depend on
    what is ingested later.
    """
    last_day = F.to_date(c.INGEST_TIME) if latest is None else F.lit(str(latest)).cast("date")
    kind, time, value, price = F.col(c.EVENT_TYPE), _parsed(c.EVENT_TIME), _parsed(c.VALUE), _parsed(c.PRICE)
    rating, bought = kind.isin(c.RATING, c.REVIEW), kind.isin(c.PURCHASE, c.CART)
    low, high = settings.rating_scale
    return [
        _malformed(),
        Rule("unknown_event_type", f"one of {', '.join(c.EVENT_TYPES)}",
             kind.isNull() | ~kind.isin(*c.EVENT_TYPES), _found(c.EVENT_TYPE)),
        Rule("missing_user", "a user id", parsing.present(F.col(c.USER_ID)).isNull(), _found(c.USER_ID)),
        Rule("missing_item", "an item id, which only a search may lack",
             parsing.present(F.col(c.ITEM_ID)).isNull() & (kind != c.SEARCH), _found(c.ITEM_ID)),
        Rule("unreadable_time", "an ISO 8601 time", time.isNull(), _found(c.EVENT_TIME)),
        Rule("impossible_time", f"a day from {settings.earliest} to {latest or 'the day of its ingest'}",
             (time < F.lit(str(settings.earliest)).cast("timestamp"))
             | (time >= F.date_add(last_day, 1).cast("timestamp")), _found(c.EVENT_TIME)),
        _not_a_number(c.VALUE),
        _not_a_number(c.PRICE),
        Rule("bad_rating", f"stars from {low:g} to {high:g}",
             (rating & ~value.between(low, high)) | ((kind == c.RATING) & F.col(c.VALUE).isNull()), _found(c.VALUE)),
        Rule("bad_quantity", f"a quantity above 0 and at most {settings.max_value:,.0f} (a cancel's: either sign)",
             (bought & (value <= 0)) | (kind.isin(c.PURCHASE, c.CART, c.CANCEL) & (F.abs(value) > settings.max_value))
             | ((kind == c.CANCEL) & (value == 0)), _found(c.VALUE)),
        Rule("bad_price", f"a price of at most {settings.max_price:,.0f}, and above 0 for a purchase",
             ((kind == c.PURCHASE) & (price <= 0)) | (price < 0) | (price > settings.max_price), _found(c.PRICE)),
        Rule("unknown_item", "an item that the catalogue holds",
             ~F.col(KNOWN_ITEM) & parsing.present(F.col(c.ITEM_ID)).isNotNull(), _found(c.ITEM_ID)),
    ]  # fmt: skip


def item_rules(settings: Clean) -> list[Rule]:
    """The rules of catalogue rows. A missing price is no fault; a wrong one is."""
    price, stock, promotion = _parsed(c.PRICE), _parsed(c.STOCK), _parsed(c.PROMOTION)
    return [
        _malformed(),
        Rule("missing_item", "an item id", parsing.present(F.col(c.ITEM_ID)).isNull(), _found(c.ITEM_ID)),
        Rule("unreadable_time", "an ISO 8601 time, or none",
             parsing.present(F.col(c.VALID_FROM)).isNotNull() & _parsed(c.VALID_FROM).isNull(), _found(c.VALID_FROM)),
        _not_a_number(c.PRICE),
        _not_a_number(c.STOCK),
        _not_a_number(c.PROMOTION),
        Rule("bad_price", f"a price from 0 to {settings.max_price:,.0f}",
             (price < 0) | (price > settings.max_price), _found(c.PRICE)),
        Rule("bad_stock", "a stock of 0 or more", stock < 0, _found(c.STOCK)),
        Rule("bad_promotion", "a discount from 0 to 1", ~promotion.between(0, 1), _found(c.PROMOTION)),
    ]  # fmt: skip


def check(frame: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """Adds ``rules`` (all that the row breaks), ``rule`` (the first; null for a good row) and ``reason``.

    A row that could not be read at all breaks ``malformed`` only: the rest of it is empty for that reason.
    """
    readable = F.col(c.MALFORMED).isNull()
    broken = [
        F.coalesce(rule.refuses, F.lit(False)) & (F.lit(True) if rule.name == "malformed" else readable)
        for rule in rules
    ]
    names = [F.when(is_broken, F.lit(rule.name)) for rule, is_broken in zip(rules, broken, strict=True)]
    reasons = [F.when(is_broken, rule.reason) for rule, is_broken in zip(rules, broken, strict=True)]
    return frame.withColumns(
        {c.RULES: F.array_compact(F.array(*names)), c.RULE: F.coalesce(*names), c.REASON: F.coalesce(*reasons)}
    )


def _parsed(name: str) -> Column:
    return F.col(f"{PARSED}.{name}")


def _found(name: str) -> Column:
    """``price is '-4'``, or ``price is missing``. Long texts are cut."""
    text = parsing.present(F.col(name))
    quoted = F.concat(F.lit(f"{name} is '"), F.substring(text, 1, 80), F.lit("'"))
    return F.when(text.isNull(), F.lit(f"{name} is missing")).otherwise(quoted)


def _malformed() -> Rule:
    found = F.col(c.MALFORMED)
    return Rule("malformed", "a line in the source's format", found.isNotNull(), found)


def _not_a_number(name: str) -> Rule:
    wrong = parsing.present(F.col(name)).isNotNull() & _parsed(name).isNull()
    return Rule(f"{name}_not_a_number", "a number, or none", wrong, _found(name))
