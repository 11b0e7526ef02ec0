"""The rules of silver, declared once: what is refused, mended or counted, and the sentence that says why.

A rule sees a row's canonical text (``source.events`` or ``source.items``), in the struct ``parsed`` what
:mod:`sparkrec.clean.parsing` and :mod:`sparkrec.clean.repairs` made of it, and in ``mended`` which repairs apply.
A row is refused for the first refusing rule that it breaks; all of them are noted. ``clean.rules`` in the
configuration switches, tunes and adds rules.
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import funnels, outliers, parsing, repairs
from sparkrec.clean.repairs import Repairs
from sparkrec.clean.verdicts import PARSED, Rule, added, check, found, require_known, tuned
from sparkrec.config import Clean

__all__ = [
    "IMPOSSIBLE_TIME", "KNOWN_ITEM", "PARSED", "UNKNOWN_ITEM", "Rule", "check", "event_rules", "item_rules",
    "parse_events", "parse_items",
]  # fmt: skip

#: Whether the catalogue holds the event's item; true where there is no catalogue.
KNOWN_ITEM = "known_item"
IMPOSSIBLE_TIME, UNKNOWN_ITEM = "impossible_time", "unknown_item"
_MENDED = "mended"
_FREE_TEXTS = (c.QUERY, c.TEXT, c.COUNTRY, c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY)
_EVENT_IDS = (c.USER_ID, c.ITEM_ID, c.SESSION_ID, c.ORDER_ID, c.SPLIT)
# An id goes through keys, file names and served lists: no control characters, and short.
_UNUSABLE = r"[\p{Cc}\u2028\u2029\ufffd]|^.{257}"

_WHAT_REPAIRS_DO = {
    repairs.TEXT: "text in Unicode NFKC, without HTML entities, control characters, double blanks: made so",
    repairs.DECIMAL: "a decimal point and no thousands set apart: read so",
    repairs.PRICE_SIGN: "a price as a bare number: the currency taken off it, and kept where the row names no other",
    repairs.CONVERTED: "prices in clean.currency: converted by the table clean.currencies",
    repairs.UNKNOWN_CURRENCY: "a currency of the table clean.currencies: the price left out",
    repairs.UNIT: "a quantity in pieces: counted by the table clean.units",
    repairs.PERCENT: "a part of one: the percent divided by 100",
    repairs.GAP: "a time that the clocks of clean.time_zone show: moved on by as much as they jump",
    repairs.BRAND: f"a brand, as other rows of this catalogue have: called '{repairs.UNKNOWN_BRAND}'",
}


def parse_events(events: DataFrame, settings: Clean | None = None) -> DataFrame:
    """Adds the struct ``parsed``: every canonical column as silver.events will hold it; and ``mended``."""
    mend = _repairs(settings)
    rows = mend.read(events, _FREE_TEXTS, (c.VALUE, c.PRICE), (*_EVENT_IDS, c.CURRENCY))
    price, currency = mend.price(c.PRICE, c.CURRENCY)
    values = {
        **{name: mend.present(name) for name in _EVENT_IDS},
        **{name: mend.text(name) for name in _FREE_TEXTS},
        c.EVENT_TIME: mend.time(F.col(c.EVENT_TIME)),
        c.VALUE: mend.quantity(c.VALUE),
        c.PRICE: price,
        c.CURRENCY: currency,
    }
    return _with_values(rows, mend, values).select(*events.columns, PARSED, _MENDED)


def parse_items(items: DataFrame, settings: Clean | None = None, fill_brand: bool = False) -> DataFrame:
    """Adds the struct ``parsed``, the columns of silver.items; ``fill_brand``: a missing brand is called unknown."""
    mend = _repairs(settings)
    texts = (c.NAME, c.BRAND, c.CATEGORY, c.TEXT)
    rows = mend.read(items, texts, (c.PRICE, c.STOCK, c.PROMOTION), (c.ITEM_ID, c.CURRENCY))
    price, currency = mend.price(c.PRICE, c.CURRENCY)
    values = {
        c.ITEM_ID: mend.present(c.ITEM_ID),
        c.NAME: mend.text(c.NAME),
        c.BRAND: mend.brand(mend.text(c.BRAND), fill_brand),
        c.CATEGORY: parsing.path(mend.text(c.CATEGORY)),
        c.TEXT: mend.text(c.TEXT),
        c.VALID_FROM: mend.time(F.col(c.VALID_FROM)),
        c.PRICE: price,
        c.CURRENCY: currency,
        c.STOCK: mend.quantity(c.STOCK),
        c.PROMOTION: mend.fraction(c.PROMOTION),
    }
    return _with_values(rows, mend, values).select(*items.columns, PARSED, _MENDED)


def event_rules(settings: Clean, latest: dt.date | None) -> list[Rule]:
    """The rules of events, in the order in which they are named.

    ``latest`` is the last possible day; None: the day on which the row was ingested. So a verdict does not depend on
    what is ingested later.
    """
    _require_known(settings)
    return tuned(_events(settings, latest), settings.rules) + added(settings.rules, "events")


def item_rules(settings: Clean) -> list[Rule]:
    """The rules of catalogue rows. A missing price is no fault; a wrong one is."""
    _require_known(settings)
    return tuned(_items(settings), settings.rules) + added(settings.rules, "items")


def _events(settings: Clean, latest: dt.date | None) -> list[Rule]:
    last_day = F.to_date(c.INGEST_TIME) if latest is None else F.lit(str(latest)).cast("date")
    kind, time, value, price = F.col(c.EVENT_TYPE), _parsed(c.EVENT_TIME), _parsed(c.VALUE), _parsed(c.PRICE)
    rating, bought = kind.isin(c.RATING, c.REVIEW), kind.isin(c.PURCHASE, c.CART)
    low, high = settings.rating_scale
    mended = (repairs.TEXT, repairs.DECIMAL, repairs.PRICE_SIGN, repairs.CONVERTED, repairs.UNKNOWN_CURRENCY,
              repairs.UNIT, repairs.GAP)  # fmt: skip
    return [
        _malformed(),
        Rule("unknown_event_type", f"one of {', '.join(c.EVENT_TYPES)}",
             kind.isNull() | ~kind.isin(*c.EVENT_TYPES), found(c.EVENT_TYPE), needed=True),
        Rule("missing_user", "a user id", _parsed(c.USER_ID).isNull(), found(c.USER_ID), needed=True),
        Rule("missing_item", "an item id, which only a search may lack",
             _parsed(c.ITEM_ID).isNull() & (kind != c.SEARCH), found(c.ITEM_ID), needed=True),
        Rule("unusable_id", "ids of at most 256 characters that can be printed",
             _parsed(c.USER_ID).rlike(_UNUSABLE) | _parsed(c.ITEM_ID).rlike(_UNUSABLE),
             F.concat(found(c.USER_ID), F.lit(", "), found(c.ITEM_ID)), needed=True),
        Rule("unreadable_time", "an ISO 8601 time of the years 1 to 9998", time.isNull(), found(c.EVENT_TIME),
             needed=True),
        Rule(IMPOSSIBLE_TIME, f"a day from {settings.earliest} to {latest or 'the day of its ingest'}",
             (time < F.lit(str(settings.earliest)).cast("timestamp"))
             | (time >= F.date_add(last_day, 1).cast("timestamp")), found(c.EVENT_TIME)),
        _not_a_number(c.VALUE),
        _not_a_number(c.PRICE),
        Rule("bad_rating", f"stars from {low:g} to {high:g}",
             (rating & ~value.between(low, high)) | ((kind == c.RATING) & parsing.present(F.col(c.VALUE)).isNull()),
             found(c.VALUE)),
        Rule("bad_quantity", f"a quantity above 0 and at most {settings.max_value:,.0f} (a cancel's: either sign)",
             (bought & (value <= 0)) | (kind.isin(c.PURCHASE, c.CART, c.CANCEL) & (F.abs(value) > settings.max_value))
             | ((kind == c.CANCEL) & (value == 0)), found(c.VALUE)),
        Rule("bad_price", f"a price of at most {settings.max_price:,.0f}, and above 0 for a purchase",
             ((kind == c.PURCHASE) & (price <= 0)) | (price < 0) | (price > settings.max_price), found(c.PRICE)),
        Rule(UNKNOWN_ITEM, "an item that the catalogue holds",
             ~F.col(KNOWN_ITEM) & _parsed(c.ITEM_ID).isNotNull(), found(c.ITEM_ID)),
        *_repairing(mended, {repairs.GAP: c.EVENT_TIME, repairs.UNIT: c.VALUE, repairs.TEXT: None}),
        Rule("time_twice", "a time that the clocks show once (the first of the two is taken)",
             parsing.is_twice(F.col(c.EVENT_TIME), settings.time_zone), found(c.EVENT_TIME), "warn"),
        Rule("purchase_without_price", "a price with a purchase",
             (kind == c.PURCHASE) & price.isNull(), found(c.PRICE), "warn"),
    ]  # fmt: skip


def _items(settings: Clean) -> list[Rule]:
    price, stock, promotion = _parsed(c.PRICE), _parsed(c.STOCK), _parsed(c.PROMOTION)
    mended = (repairs.TEXT, repairs.DECIMAL, repairs.PRICE_SIGN, repairs.CONVERTED, repairs.UNKNOWN_CURRENCY,
              repairs.UNIT, repairs.PERCENT, repairs.GAP, repairs.BRAND)  # fmt: skip
    return [
        _malformed(),
        Rule("missing_item", "an item id", _parsed(c.ITEM_ID).isNull(), found(c.ITEM_ID), needed=True),
        Rule("unusable_id", "an id of at most 256 characters that can be printed",
             _parsed(c.ITEM_ID).rlike(_UNUSABLE), found(c.ITEM_ID), needed=True),
        Rule("unreadable_time", "an ISO 8601 time of the years 1 to 9998, or none",
             parsing.present(F.col(c.VALID_FROM)).isNotNull() & _parsed(c.VALID_FROM).isNull(), found(c.VALID_FROM),
             needed=True),
        _not_a_number(c.PRICE),
        _not_a_number(c.STOCK),
        _not_a_number(c.PROMOTION),
        Rule("bad_price", f"a price from 0 to {settings.max_price:,.0f}",
             (price < 0) | (price > settings.max_price), found(c.PRICE)),
        Rule("bad_stock", "a stock of 0 or more", stock < 0, found(c.STOCK)),
        Rule("bad_promotion", "a discount from 0 to 1", ~promotion.between(0, 1), found(c.PROMOTION)),
        *_repairing(mended, {repairs.GAP: c.VALID_FROM, repairs.UNIT: c.STOCK, repairs.PERCENT: c.PROMOTION,
                             repairs.BRAND: c.BRAND, repairs.TEXT: None}),
        Rule("missing_name", "a name", _parsed(c.NAME).isNull(), found(c.NAME), "warn"),
    ]  # fmt: skip


def _require_known(settings: Clean) -> None:
    if settings.rules:
        any_day = dt.date(2000, 1, 1)
        declared = [*_events(settings, any_day), *_items(settings), *outliers.declared(), *funnels.declared()]
        require_known(settings.rules, list(dict.fromkeys(rule.name for rule in declared)))


def _repairs(settings: Clean | None) -> Repairs:
    settings = settings or Clean()
    changed = {name for name, own in settings.rules.items() if not own.enabled or own.severity not in (None, "repair")}
    return Repairs(settings, [name for name in repairs.NAMES if name not in changed])


def _with_values(frame: DataFrame, mend: Repairs, values: dict[str, Column]) -> DataFrame:
    flags = [mend.flags.get(name, F.lit(False)).alias(name) for name in repairs.NAMES]
    typed = F.struct(*[value.alias(name) for name, value in values.items()])
    return frame.withColumns({PARSED: typed, _MENDED: F.struct(*flags)})


def _repairing(names: tuple[str, ...], columns: dict[str, str | None]) -> list[Rule]:
    """A rule for each repair; ``columns``: where what was found stands, if not in the price."""
    rules = []
    for name in names:
        column = columns.get(name, c.CURRENCY if name in (repairs.CONVERTED, repairs.UNKNOWN_CURRENCY) else c.PRICE)
        what = F.lit("text is written otherwise") if column is None else found(column)
        rules.append(Rule(name, _WHAT_REPAIRS_DO[name], F.col(f"{_MENDED}.{name}"), what, "repair"))
    return rules


def _parsed(name: str) -> Column:
    return F.col(f"{PARSED}.{name}")


def _malformed() -> Rule:
    reason = F.col(c.MALFORMED)
    return Rule("malformed", "a line in the source's format", reason.isNotNull(), reason, needed=True)


def _not_a_number(name: str) -> Rule:
    wrong = _parsed(name).isNull() & parsing.present(F.col(name)).isNotNull()
    if name == c.PRICE:  # left out on purpose
        wrong = wrong & ~F.col(f"{_MENDED}.{repairs.UNKNOWN_CURRENCY}")
    return Rule(f"{name}_not_a_number", "a number, or none", wrong, found(name))
