# ruff: noqa: C408  rows are easier to read as keyword arguments
"""Gold of a tiny shop, every column worked out by hand; its past does not change; a rerun changes nothing.

How it grows: ``test_gold_increments.py``.
"""

import datetime as dt
import json
import math
import shutil
from collections import Counter

import handmade
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.features import activity, items, users
from sparkrec.features.activity import of_hours
from sparkrec.features.items import as_of
from sparkrec.jobs.featurize import featurize
from sparkrec.jobs.train_popularity import train_popularity
from sparkrec.pipeline import Run, execute
from sparkrec.ranking.past import Past

pytestmark = pytest.mark.spark

#: Round numbers: the weight of an event halves every day, and two users' worth of prior belief in a ratio.
FEATURES = {
    "half_life_days": 1, "conversion_prior": 2, "neighbors": 3, "neighbor_users": 1, "content": ("tfidf", "vector"),
    "vector_attribute": "image", "content_width": 2,
}  # fmt: skip
SPLIT = {"kind": "time", "test_days": 2, "validation_days": 1}
DATE = dt.date(2020, 1, 10)  # so: validation from the 8th, as of the 9th, test until the 10th


def at(day, hour=0):
    return dt.datetime(2020, 1, day, hour, tzinfo=dt.UTC)


def event(user, item, kind, when, value=None, price=None, country=None, cancelled=None, suspect=False):
    return dict(user_id=user, item_id=item, event_type=kind, event_time=when, value=value, price=price,
                country=country, cancelled_at=cancelled, suspect=suspect)  # fmt: skip


EVENTS = [
    event("u1", "lamp", "view", at(1), price=10.0, country="UK"),
    event("u1", "lamp", "purchase", at(2), value=2.0, price=10.0),
    event("u1", "lamp", "rating", at(8, 12), value=4.0),
    event("u1", None, "search", at(1)),
    event("u1", "mug", "view", at(9)),
    event("u1", "mug", "purchase", at(9, 10), value=1.0, price=5.0),
    event("u1", "lamp", "view", at(10)),
    event("u2", "mug", "view", at(3), price=6.0, country="FR"),
    event("u2", "mug", "view", at(4), price=4.0, country="DE"),
    event("u2", "post", "purchase", at(5), value=1.0, price=3.0),
    event("u2", "mug", "purchase", at(6), value=1.0, price=5.0, cancelled=at(7)),
    event("u2", "mug", "cancel", at(7), value=1.0),
    # taken back after the split: at the split nobody knew
    event("u2", "lamp", "purchase", at(6, 12), price=9.5, cancelled=at(9, 6)),
    event("u2", "lamp", "cancel", at(9, 6)),
    event("u2", "newthing", "purchase", at(10)),
    event("u3", "lamp", "view", at(9)),
    event("bot", "lamp", "view", at(2), suspect=True),
    # a bot only since the split
    event("bot2", "lamp", "view", at(5)),
    event("bot2", "mug", "view", at(10), suspect=True),
]
#: The poisoned future: every type of event, from the very moment of the split on, with numbers nobody can overlook.
LATER = [
    *[event(user, item, kind, when, value=5e5, price=9e5, country="NL")
      for user in ("u1", "u2", "u4") for item in ("lamp", "newer", "vase") for kind in c.EVENT_TYPES
      for when in (at(9), at(10, 23), at(12))],
    event("u1", "mug", "view", at(9, 1), suspect=True),
]  # fmt: skip


def item(name, day, title=None, brand=None, category=None, price=None, for_sale=True, **more):
    valid_from = at(day) if day else dt.datetime(1995, 1, 1, tzinfo=dt.UTC)
    return dict(item_id=name, valid_from=valid_from, name=title, brand=brand, category=category, price=price,
                for_sale=for_sale, **more)  # fmt: skip


ITEMS = [
    item("lamp", 0, "Lamp", "Acme", ["Home", "Light"], 9.0),
    item("lamp", 9, "Brass lamp", "Acme", ["Home", "Light"], 12.0, promotion=0.25, attributes={"image": "3 4"}),
    item("lamp", 10, "Gold lamp", "Luxury", ["Other"], 99.0),
    item("mug", 0, "Clay mug", category=["Home"], attributes={"image": "0 1"}),
    item("post", 0, "Postage", for_sale=False),
    item("vase", 5, "Clay vase", price=20.0),
    item("newthing", 10, "New thing"),
]
LATER_ITEMS = [
    item("vase", 10, "Vase", "Acme", ["Home"], price=9e5, promotion=0.9, stock=0.0, text="clay"),
    item("mug", 10, "Mug", "Acme", price=2.0, for_sale=False),
    item("newer", 10, "Clay newer", "Newer", ["Home", "Light"], price=1.0, attributes={"image": "9 9 9"}),
]


def write_silver(settings, events, items):
    """Silver as clean leaves it, with its record."""
    run = Run(settings, "clean", DATE)
    suspects = [{c.USER_ID: row["user_id"], c.EVENT_DATE: row["event_time"].date()} for row in events if row["suspect"]]
    for table, rows in (
        (schemas.SILVER_EVENTS, events),
        (schemas.SILVER_SUSPECTS, suspects),
        (schemas.SILVER_ITEMS, items),
    ):
        full = []
        for n, row in enumerate(rows):
            made = dict.fromkeys(table.column_names) | row
            if table is schemas.SILVER_EVENTS:
                cancelled = row[c.CANCELLED_AT] is not None
                made |= {c.EVENT_ID: f"e{n}", c.LINE: n, c.EVENT_DATE: row[c.EVENT_TIME].date(), c.CANCELLED: cancelled}
            full.append(tuple(made[name] for name in table.column_names))
        handmade.write(run, table, full)
    run.finish()


def run_featurize(settings, date=DATE):
    run = Run(settings, "featurize", date)
    execute(featurize, run)
    return run


def run_tastes(settings):
    """What counts events and makes vectors of them."""
    wanted = settings.recommend.model_copy(update={"models": ("popularity", "tastes")})
    run = Run(settings.model_copy(update={"recommend": wanted}), "train_popularity", DATE)
    execute(train_popularity, run)
    return run


def tables(run):
    """Every table that the run wrote, all its columns, as sorted text: NaN equals NaN, and a last bit would show."""
    rows = {table.name: run.read(table).collect() for table in schemas.TABLES if table.name in run.outputs}
    return {name: sorted(json.dumps(row.asDict(), default=str) for row in found) for name, found in rows.items()}


@pytest.fixture(scope="module")
def make(spark, tmp_path_factory):
    def settings(**sections):
        base = {
            "name": "tiny",
            "lake": {"path": str(tmp_path_factory.mktemp("lake"))},
            "source": {"name": "generic", "path": "unused"},
            "split": SPLIT,
            "features": FEATURES,
            "tracking": {"enabled": False},
        }
        return Settings.model_validate(base | sections)

    return settings


@pytest.fixture(scope="module")
def shop(make):
    settings = make()
    write_silver(settings, EVENTS, ITEMS)
    run = run_featurize(settings)
    return settings, run, tables(run)


#: Of gold.users: what the other columns are made of, and the folder.
KEPT_TO_ADD_UP = (
    c.STARS, c.N_STARS, c.FIRST_SEEN, c.LAST_SEEN, c.PAID, c.N_PRICES, c.SPENT, c.FIRST_BOUGHT, c.LAST_BOUGHT,
    c.COUNTRY_SEEN, c.USER_BLOCK,
)  # fmt: skip


def _by(run, table, key):
    return {row[key]: row.asDict() for row in run.read(table).collect()}


def test_vocabularies(shop):
    _, run, _ = shop
    users, items = _by(run, schemas.VOCABULARY_USERS, c.USER_ID), _by(run, schemas.VOCABULARY_ITEMS, c.ITEM_ID)
    assert {name: (row[c.USER_INDEX], row[c.COUNT]) for name, row in users.items()} == {
        "u1": (0, 3), "u2": (1, 3), "bot2": (2, 1),
    }  # fmt: skip
    assert {name: (row[c.ITEM_INDEX], row[c.COUNT]) for name, row in items.items()} == {
        "lamp": (0, 5), "mug": (1, 2), "vase": (2, 0),
    }  # fmt: skip
    features = _by(run, schemas.VOCABULARY_FEATURES, c.FEATURE)
    assert {name: (row[c.FEATURE_INDEX], row[c.COUNT]) for name, row in features.items()} == {
        "price=0": (0, 1), "price=4": (1, 1), "price=9": (2, 1), "brand=Acme": (3, 1), "category=Home": (4, 2),
        "category=Home > Light": (5, 1),
    }  # fmt: skip


def test_user_profiles(shop):
    run = shop[1]
    moment = dt.datetime.fromisoformat(run.details["split"]["as_of"])
    frame = users.as_of(run.read(schemas.GOLD_USERS), moment).drop(*KEPT_TO_ADD_UP)
    rows = {row[c.USER_ID]: row.asDict() for row in frame.collect()}
    for row in rows.values():
        assert row.pop(c.AS_OF).timestamp() == at(9).timestamp()
    assert rows["u1"] == dict(
        user_index=0, user_id="u1", country="UK", n_events=3, n_views=1, n_carts=0, n_purchases=1, n_ratings=1,
        n_items=1, mean_rating=4.0, mean_price=10.0, spend=20.0, recency_days=0.5, tenure_days=8.0,
        # on 3 of the 8 days from the 1st to the 8th; one purchase day
        active_days=3, frequency=3 / 8, purchase_days=1, purchase_rate=30 / 8, purchase_gap_days=None,
        repeat_rate=0.0, mean_order=20.0, price_level=0.5, view_to_cart=0.0, cart_to_purchase=None,
        view_to_purchase=1.0, brands=[3], brand_shares=[1.0], categories=[5], category_shares=[1.0],
        # the 1st and the 8th were Wednesdays
        weekdays=[0, 0, 2, 1, 0, 0, 0], hours=[2] + [0] * 11 + [1] + [0] * 11,
    )  # fmt: skip
    assert rows["u2"] == dict(
        user_index=1, user_id="u2", country="DE", n_events=3, n_views=2, n_carts=0, n_purchases=1, n_ratings=0,
        n_items=2, mean_rating=None, mean_price=6.5, spend=9.5, recency_days=2.5, tenure_days=6.0,
        active_days=3, frequency=3 / 6, purchase_days=1, purchase_rate=30 / 6, purchase_gap_days=None,
        # the lamp was bought and not viewed, the mug viewed and not bought
        repeat_rate=0.0, mean_order=9.5, price_level=0.5, view_to_cart=0.0, cart_to_purchase=None,
        view_to_purchase=0.0, brands=[3], brand_shares=[1.0], categories=[4, 5],
        category_shares=[pytest.approx(2 / 3), pytest.approx(1 / 3)],
        # Friday, Saturday, Monday
        weekdays=[1, 0, 0, 0, 1, 1, 0], hours=[2] + [0] * 11 + [1] + [0] * 11,
    )  # fmt: skip
    assert set(rows) == {"u1", "u2", "bot2"}


def test_item_features(shop):
    items = _by(shop[1], schemas.GOLD_ITEMS, c.ITEM_ID)
    for row in items.values():
        assert row.pop(c.AS_OF).timestamp() == at(9).timestamp()
    content = {name: row.pop(c.CONTENT) for name, row in items.items()}
    assert {name for name, vector in content.items() if any(vector)} == {"lamp", "mug"}
    assert items["lamp"] == dict(
        item_index=0, item_id="lamp", name="Brass lamp", brand="Acme", category=["Home", "Light"], price=12.0,
        price_bucket=4, stock=None, for_sale=True, features=[4, 5, 3, 1], n_events=5, n_views=2, n_carts=0,
        n_purchases=2, n_ratings=1, n_users=3, mean_rating=4.0, age_days=8.0, brand_code=3, category_codes=[4, 5],
        # the only one in its category; 12 is the price from the 9th on
        price_source="catalogue", price_percentile=0.5, promotion=0.25,
        # 8, 7, 4, 2 and 0 whole days before the 9th
        popularity=2**-8 + 2**-7 + 2**-4 + 2**-2 + 1,
        # u1 and bot2 viewed it, u1 bought it; u2 bought it and had not viewed it. Of all 3 views of an item by a user
        # 1 led to a purchase, 0 to a cart; nobody had a cart.
        view_to_cart=0.0, cart_to_purchase=None, view_to_purchase=pytest.approx((1 + 2 / 3) / (2 + 2)),
        bayes_rating=4.0,
    )  # fmt: skip
    # no price in the catalogue: the median of its events before the split, 6 and 4
    assert items["mug"] == dict(
        item_index=1, item_id="mug", name="Clay mug", brand=None, category=["Home"], price=5.0, price_bucket=0,
        stock=None, for_sale=True, features=[4, 0], n_events=2, n_views=2, n_carts=0, n_purchases=0, n_ratings=0,
        n_users=1, mean_rating=None, age_days=6.0, brand_code=None, category_codes=[4],
        price_source="events", price_percentile=0.5, promotion=None, popularity=2**-6 + 2**-5,
        view_to_cart=0.0, cart_to_purchase=None, view_to_purchase=pytest.approx((0 + 2 / 3) / (1 + 2)),
        bayes_rating=4.0,
    )  # fmt: skip
    assert items["vase"] == dict(
        item_index=2, item_id="vase", name="Clay vase", brand=None, category=None, price=20.0, price_bucket=9,
        stock=None, for_sale=True, features=[2], n_events=0, n_views=0, n_carts=0, n_purchases=0, n_ratings=0,
        n_users=0, mean_rating=None, age_days=None, brand_code=None, category_codes=[],
        # without a category there is none to be dear in
        price_source="catalogue", price_percentile=None, promotion=None, popularity=0.0,
        view_to_cart=0.0, cart_to_purchase=None, view_to_purchase=pytest.approx(1 / 3), bayes_rating=4.0,
    )  # fmt: skip
    assert len(items) == 3


def test_neighbors(shop):
    rows = {tuple(row) for row in shop[1].read(schemas.GOLD_NEIGHBORS).collect()}
    # u1: lamp; u2: lamp, mug; bot2: lamp. Seen together by one of three, of three and of one; u1 and u2 bought lamps.
    cosine = 1 / math.sqrt(3 * 1)
    assert rows == {("seen", 0, 1, 1, 1, 1.0, cosine), ("seen", 1, 1, 0, 1, 1.0, cosine)}


def test_sequences(shop):
    rows = _by(shop[1], schemas.GOLD_SEQUENCES, c.USER_INDEX)
    # positions in columns.EVENT_TYPES: view 0, purchase 3, rating 5
    assert (rows[0][c.ITEM_INDEX], rows[0][c.EVENT_TYPE]) == ([0, 0, 0], [0, 3, 5])
    assert rows[0][c.VALIDATION] == [False, False, True]
    assert rows[0][c.EVENT_TIME] == [int(when.timestamp()) for when in (at(1), at(2), at(8, 12))]
    assert (rows[1][c.ITEM_INDEX], rows[1][c.EVENT_TYPE]) == ([1, 1, 0], [0, 0, 3])
    assert (rows[2][c.ITEM_INDEX], rows[2][c.CHUNK], rows[2][c.LENGTH]) == ([0], 0, 1)
    assert len(rows) == 3


def test_holdout(shop):
    rows = {
        (row[c.USER_ID], row[c.ITEM_ID]): (
            row[c.USER_INDEX], row[c.ITEM_INDEX], row[c.EVENT_TYPE], row[c.FIRST_TYPE],
            int(row[c.EVENT_TIME].timestamp()),
        )
        for row in shop[1].read(schemas.GOLD_HOLDOUT).collect()
    }  # fmt: skip
    assert rows == {
        ("u1", "mug"): (0, 1, "purchase", "view", int(at(9).timestamp())),
        ("u2", "newthing"): (1, None, "purchase", "purchase", int(at(10).timestamp())),
        ("u3", "lamp"): (None, 0, "view", "view", int(at(9).timestamp())),
    }


def test_counts_and_what_was_left_out(shop):
    run = shop[1]
    assert run.counts == dict(
        users=3, items=3, prices_filled=0, features=6, events_train=6, events_validation=1, events_test=5, test_pairs=3,
        holdout_no_goods=0, holdout_already_seen=1, test_users=3, test_users_unseen=1, test_items_unseen=1,
        test_users_only_seen=0,
    )  # fmt: skip
    left_out = {"cancelled": 1, "not_for_sale": 1, "other_type": 3, "suspect": 2}
    assert run.details["read"] == {"events": len(EVENTS), "left_out": left_out}
    assert run.details["split"]["as_of"] == "2020-01-09 00:00"


def test_a_rerun_changes_nothing(shop):
    settings, _, before = shop
    assert tables(run_featurize(settings)) == before


@pytest.fixture(scope="module")
def poisoned(make, shop):
    """The same shop, and a future that everything in it would notice; all of it is computed each time."""
    settings = make(features=FEATURES | {"full": True})
    shutil.copytree(shop[0].lake.path, settings.lake.path, dirs_exist_ok=True)
    # A training purchase is taken back, and a user turns into a bot, after the split.
    events = [row | {c.CANCELLED_AT: at(10, 5)} if row == EVENTS[1] else row for row in EVENTS]
    write_silver(settings, events + LATER, ITEMS + LATER_ITEMS)
    return settings


def _changed(before, after):
    assert set(before) == set(after)
    return {name for name in before if before[name] != after[name]}


def test_what_comes_later_does_not_change_the_past(poisoned, shop):
    assert _changed(shop[2], tables(run_featurize(poisoned))) == {schemas.GOLD_HOLDOUT.name}
    before, after = (tables(run_tastes(settings)) for settings in (shop[0], poisoned))
    assert before == after
    assert all('"model": "tastes"' in " ".join(rows) for rows in before.values())


def test_a_leak_of_the_future_would_be_noticed(poisoned, shop, monkeypatch):
    # a feature of users from all events, and the catalogue as it became
    log = Run(poisoned, "featurize", DATE).read(schemas.SILVER_EVENTS)
    monkeypatch.setattr(activity, "of_hours", lambda train: of_hours(log))
    monkeypatch.setattr(items, "as_of", lambda catalogue, moment: as_of(catalogue, moment + dt.timedelta(days=1)))
    changed = _changed(shop[2], tables(run_featurize(poisoned)))
    assert {schemas.GOLD_USERS.name, schemas.GOLD_ITEMS.name} <= changed


@pytest.fixture(scope="module")
def choosy(make):
    """A run that leaves out rare users and items."""
    settings = make(features={"min_item_events": 3, "min_user_events": 2})
    write_silver(settings, EVENTS, ITEMS)
    return run_featurize(settings)


def test_rare_items_and_users_stay_out_of_training(choosy):
    # as of the split: lamp 5 events, mug 2; without the mug u1 has 3 events, u2 and bot2 have 1
    run = choosy
    users = _by(run, schemas.VOCABULARY_USERS, c.USER_ID)
    assert set(users) == {"u1"}
    assert _by(run, schemas.VOCABULARY_ITEMS, c.ITEM_ID)["lamp"][c.COUNT] == 3
    assert run.counts["test_users_unseen"] == 2
    assert (run.counts["events_train"], run.counts["events_validation"]) == (2, 1)
    assert run.details["read"]["left_out"]["rare"] == 4


@pytest.mark.parametrize("name", ["shop", "choosy"])
def test_the_past_that_a_ranker_learns_from_is_made_as_gold_is(name, request):
    """At the moment at which featurize made gold, where nothing is held out, it is gold."""
    found = request.getfixturevalue(name)
    settings = (found[1] if name == "shop" else found).settings
    split = settings.split.model_copy(update={"validation_days": 0})
    run = Run(settings.model_copy(update={"split": split}), "train_ranker", DATE)
    past = Past(run, run.read(schemas.VOCABULARY_USERS))
    for table, frame, key in (
        (schemas.GOLD_ITEMS, past.items, c.ITEM_INDEX),
        (schemas.GOLD_USERS, past.users, c.USER_INDEX),
    ):
        expected = run.read(table).orderBy(key).collect()
        assert len(expected) > 0
        assert frame.orderBy(key).collect() == expected, table.name
    known = {row[c.USER_INDEX]: row[c.COUNTRY] for row in run.read(schemas.GOLD_USERS).collect()}
    assert {row[c.USER_INDEX]: row[c.COUNTRY] for row in past.countries.collect()} == known


def test_leave_one_out_keeps_repeats_in_the_test(make, choosy):
    # in the same lake: what another shop left there does not matter
    lake = {"path": choosy.settings.lake.path}
    settings = make(lake=lake, split={"kind": "leave_one_out"}, features={"min_rating": 4.5})
    rows = [event("u", "a", "rating", at(day), value=stars) for day, stars in ((1, 5.0), (2, 5.0), (3, 3.0), (4, 5.0))]
    write_silver(settings, rows, [item("a", 0)])
    run = run_featurize(settings)
    holdout = run.read(schemas.GOLD_HOLDOUT).collect()
    assert [(row[c.USER_ID], row[c.ITEM_ID], row[c.VALUE]) for row in holdout] == [("u", "a", 5.0)]
    assert run.read(schemas.GOLD_SEQUENCES).head()[c.VALIDATION] == [False, True]
    assert run.details["read"]["left_out"] == {"low_rating": 1}
    assert Counter(run.counts)["holdout_already_seen"] == 0
    assert "leave_one_out" in run.details["increment"]["why_full"]


def test_a_log_without_usable_events_is_an_error(shop):
    settings = shop[0]
    with pytest.raises(DataError, match=r"no event of the types .* until 2019-06-01"):
        run_featurize(settings, dt.date(2019, 6, 1))
    with pytest.raises(DataError, match="No event is left to train on"):
        run_featurize(settings, dt.date(2020, 1, 2))
