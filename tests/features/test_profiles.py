"""Users and items of a random log, against plain Python: every ratio, share, median and percentile."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import random
import statistics
from collections import Counter, defaultdict
from functools import reduce

import numpy as np
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config import Features
from sparkrec.features import activity, items, prices, users

pytestmark = pytest.mark.spark
AS_OF = dt.datetime(2020, 3, 1)
DAY = dt.timedelta(days=1)
HALF_LIFE, CONVERSION, RATING, MOST = 3.5, 4.0, 3.0, 2
TYPES = ("view", "view", "view", "click", "cart", "purchase", "rating", "review")


def _log():
    chance = random.Random(5)
    for line in range(1500):
        kind = chance.choice(TYPES)
        value = {"purchase": chance.choice([None, 1.0, 3.0]), "rating": float(chance.randint(1, 5))}.get(kind)
        yield {
            c.USER_ID: f"u{int(chance.expovariate(0.1)) % 60}", c.ITEM_ID: f"i{int(chance.expovariate(0.2)) % 30}",
            c.EVENT_TYPE: kind, c.EVENT_TIME: AS_OF - DAY * chance.uniform(0.001, 40), c.VALUE: value, c.LINE: line,
            c.EVENT_ID: str(line), c.COUNTRY: chance.choice([None, "DE", "FR"]),
            c.PRICE: chance.choice([None, round(chance.uniform(1, 50), 2)]),
        }  # fmt: skip


LOG = list(_log())
#: Item n: brand n mod 4 (none for 0), category n mod 3 of the paths, a price for all but i34 and every fifth.
PATHS = (None, ["A"], ["A", "B"])
CATALOGUE = {
    f"i{n}": {
        "brand": n % 4 or None,
        "path": PATHS[n % 3],
        "price": None if n % 5 == 0 or n == 34 else float(7 * n % 40),
    }
    for n in range(36)
}
CODES = {"A": 10, "B": 11}


@pytest.fixture(scope="module")
def log(spark):
    # Times as text: the driver's own time zone must not matter.
    rows = [{**row, c.EVENT_TIME: row[c.EVENT_TIME].isoformat(sep=" ")} for row in LOG]
    schema = (
        "user_id string, item_id string, event_type string, event_time string, value double, line bigint, "
        "event_id string, country string, price double"
    )
    frame = spark.createDataFrame([tuple(row.values()) for row in rows], schema)
    return frame.withColumn(c.EVENT_TIME, F.col(c.EVENT_TIME).cast("timestamp")).repartition(3, c.USER_ID).persist()


def _mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def _ratio(some, of):
    return len(some & of) / len(of) if of else None


@pytest.fixture(scope="module")
def profiles(spark, log):
    codes = [
        (item, row["brand"], [CODES[part] for part in row["path"] or []], CATALOGUE_PERCENTILE.get(item))
        for item, row in CATALOGUE.items()
    ]
    facts = spark.createDataFrame(
        codes, "item_id string, brand_code int, category_codes array<int>, price_percentile double"
    )
    vocabulary = log.select(c.USER_ID).distinct().withColumn(c.USER_INDEX, F.substring(c.USER_ID, 2, 9).cast("int"))
    # The days before and after a midnight, apart and then added, are the whole.
    halves = [
        log.where((F.col(c.EVENT_TIME) < F.lit("2020-02-10").cast("timestamp")) == early) for early in (True, False)
    ]
    sums, pairs = (
        reduce(DataFrame.unionByName, [fold(half).join(vocabulary, c.USER_ID) for half in halves])
        for fold in (users.sums, activity.of_pairs)
    )
    pairs = activity.added_pairs(pairs.drop(c.USER_ID))
    found = users.as_of(users.rows(users.added(sums), pairs, facts, MOST), AS_OF).collect()
    return {row[c.USER_ID]: row for row in found}


#: Any numbers will do for users: what they are for items is tested below.
CATALOGUE_PERCENTILE = {item: (n % 10) / 10 for n, item in enumerate(CATALOGUE) if n % 4}


def test_profiles(profiles):
    by_user = defaultdict(list)
    for row in LOG:
        by_user[row[c.USER_ID]].append(row)
    assert set(profiles) == set(by_user)
    for user, events in by_user.items():
        found = profiles[user].asDict()
        expected = _profile(events)
        for name, value in expected.items():
            assert found[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), (user, name)


def _profile(events):
    times = [row[c.EVENT_TIME] for row in events]
    days = (AS_OF - DAY * 0.000001).date().toordinal() - min(times).date().toordinal() + 1
    bought = [row for row in events if row[c.EVENT_TYPE] == "purchase"]
    bought_on = sorted({row[c.EVENT_TIME].date() for row in bought})
    spend = sum((row[c.PRICE] or 0) * (1 if row[c.VALUE] is None else row[c.VALUE]) for row in bought)
    item_days = defaultdict(set)
    for row in bought:
        item_days[row[c.ITEM_ID]].add(row[c.EVENT_TIME].date())
    viewed, carted = (
        {row[c.ITEM_ID] for row in events if row[c.EVENT_TYPE] in types} for types in (("view", "click"), ("cart",))
    )
    known = [CATALOGUE_PERCENTILE[row[c.ITEM_ID]] for row in events if row[c.ITEM_ID] in CATALOGUE_PERCENTILE]
    countries = [row for row in events if row[c.COUNTRY]]
    weekdays, hours = Counter(time.weekday() for time in times), Counter(time.hour for time in times)
    return {
        c.N_EVENTS: len(events),
        c.N_ITEMS: len({row[c.ITEM_ID] for row in events}),
        c.COUNTRY: max(countries, key=lambda row: row[c.EVENT_TIME])[c.COUNTRY] if countries else None,
        c.ACTIVE_DAYS: len({time.date() for time in times}),
        c.FREQUENCY: len({time.date() for time in times}) / days,
        c.PURCHASE_DAYS: len(bought_on),
        c.PURCHASE_RATE: 30 * len(bought_on) / days,
        c.PURCHASE_GAP_DAYS: _mean((b - a).days for a, b in itertools.pairwise(bought_on)),
        c.REPEAT_RATE: _mean(len(on) > 1 for on in item_days.values()),
        c.SPEND: float(spend),
        c.MEAN_ORDER: spend / len(bought_on) if bought_on else None,
        c.MEAN_RATING: _mean(row[c.VALUE] for row in events if row[c.EVENT_TYPE] == "rating"),
        c.MEAN_PRICE: _mean(row[c.PRICE] for row in events if row[c.PRICE] is not None),
        c.PRICE_LEVEL: _mean(known),
        c.VIEW_TO_CART: _ratio(carted, viewed),
        c.CART_TO_PURCHASE: _ratio(set(item_days), carted),
        c.VIEW_TO_PURCHASE: _ratio(set(item_days), viewed),
        **_taste(events, c.BRANDS, c.BRAND_SHARES, lambda item: item["brand"]),
        **_taste(
            events, c.CATEGORIES, c.CATEGORY_SHARES, lambda item: CODES[item["path"][-1]] if item["path"] else None
        ),
        c.WEEKDAYS: [weekdays[n] for n in range(7)],
        c.HOURS: [hours[n] for n in range(24)],
    }


def _taste(events, name, shares, code):
    met = Counter(code(CATALOGUE[row[c.ITEM_ID]]) for row in events)
    met.pop(None, None)
    best = sorted(met.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST]
    return {name: [key for key, _ in best], shares: [pytest.approx(n / met.total(), rel=1e-6) for _, n in best]}


@pytest.fixture(scope="module")
def members(spark, log):
    state = spark.createDataFrame(
        [(item, row["path"], row["price"], item != "i35") for item, row in CATALOGUE.items()],
        "item_id string, category array<string>, price double, for_sale boolean",
    )
    # Events that came twice, and are gone once.
    days = activity.of_item_days(log, AS_OF)
    days = activity.added_item_days(days.unionByName(days), days)
    over_time = activity.over_time(days, AS_OF, HALF_LIFE)
    return items.members(activity.of_items(activity.of_pairs(log)), over_time, state).persist()


@pytest.fixture(scope="module")
def gold(spark, members):
    vocabulary = members.select(c.ITEM_ID, F.substring(c.ITEM_ID, 2, 9).cast("int").alias(c.ITEM_INDEX), c.FIRST_SEEN)
    of_lists = (c.FEATURES, c.BRAND_CODE, c.CATEGORY_CODES, c.CONTENT)
    lists = members.select(c.ITEM_ID, *[F.lit(None).alias(name) for name in of_lists])
    described = members.select("*", *[F.lit(None).alias(name) for name in (c.NAME, c.BRAND, c.STOCK, c.PROMOTION)])
    whole = items.overall(members)
    settings = Features(conversion_prior=CONVERSION, rating_prior=RATING)
    rows = items.rows(prices.with_bucket(described, whole.prices), lists, vocabulary, whole, settings, AS_OF).collect()
    return whole, {row[c.ITEM_ID]: row for row in rows}


def test_prices(gold):
    whole, rows = gold
    of_events = defaultdict(list)
    for row in LOG:
        if row[c.PRICE] is not None:
            of_events[row[c.ITEM_ID]].append(row[c.PRICE])
    known = {
        item: row["price"] if row["price"] is not None else statistics.median(of_events[item])
        for item, row in CATALOGUE.items()
        if item in rows and (row["price"] is not None or of_events[item])
    }
    assert set(known) < set(rows), "some price has to be missing"
    deciles = np.percentile(list(known.values()), range(10, 100, 10))
    for item, row in rows.items():
        path = CATALOGUE[item]["path"]
        peers = [price for other, price in known.items() if CATALOGUE[other]["path"] == path] if path else []
        if item in known:
            price = known[item]
            below, equal = sum(peer < price for peer in peers), peers.count(price)
            percentile = (below + equal / 2) / len(peers) if path else None
            source = "events" if CATALOGUE[item]["price"] is None else "catalogue"
            bucket = sum(price > deciles)
        else:
            price = statistics.median(peers or known.values())
            percentile, bucket, source = None, None, "category" if peers else "all"
        assert row[c.PRICE] == pytest.approx(price)
        assert row[c.PRICE_PERCENTILE] == (None if percentile is None else pytest.approx(percentile))
        assert (row[c.PRICE_SOURCE], row[c.PRICE_BUCKET]) == (source, bucket)
    filled = {row[c.PRICE_SOURCE] for item, row in rows.items() if item not in known}
    assert filled == {"category", "all"}
    assert whole.prices_filled == len(rows) - len(known)


def test_popularity_ratios_and_stars(gold):
    _, rows = gold
    by_item = defaultdict(list)
    for row in LOG:
        by_item[row[c.ITEM_ID]].append(row)
    stars = [row[c.VALUE] for row in LOG if row[c.EVENT_TYPE] == "rating"]
    steps = {item: _steps(by_item[item]) for item in rows}
    for item, row in rows.items():
        events = by_item[item]
        weights = [2 ** (-math.floor((AS_OF - event[c.EVENT_TIME]) / DAY) / HALF_LIFE) for event in events]
        # each weight is kept to 2⁻²¹
        assert row[c.POPULARITY] == pytest.approx(sum(weights), abs=len(events) * 2**-21)
        own = [event[c.VALUE] for event in events if event[c.EVENT_TYPE] == "rating"]
        assert row[c.MEAN_RATING] == (pytest.approx(_mean(own)) if own else None)
        bayes = (sum(own) + RATING * _mean(stars)) / (len(own) + RATING)
        assert row[c.BAYES_RATING] == pytest.approx(bayes)
        for name, (some, of) in steps[item].items():
            of_all = sum(one[name][0] for one in steps.values()) / sum(one[name][1] for one in steps.values())
            assert row[name] == pytest.approx((some + CONVERSION * of_all) / (of + CONVERSION)), (item, name)


def _steps(events):
    def who(*types):
        return {row[c.USER_ID] for row in events if row[c.EVENT_TYPE] in types}

    viewed, carted, bought = who("view", "click"), who("cart"), who("purchase")
    return {
        c.VIEW_TO_CART: (len(viewed & carted), len(viewed)),
        c.CART_TO_PURCHASE: (len(carted & bought), len(carted)),
        c.VIEW_TO_PURCHASE: (len(viewed & bought), len(viewed)),
    }


def test_items_that_left_the_catalogue_and_that_nobody_met(gold):
    _, rows = gold
    # i30 to i34 are for sale and nobody met them; i35 is not for sale
    assert (rows["i31"][c.N_EVENTS], rows["i31"][c.POPULARITY], rows["i31"][c.MEAN_RATING]) == (0, 0.0, None)
    assert "i35" not in rows
