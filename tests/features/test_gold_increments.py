# ruff: noqa: C408  rows are easier to read as keyword arguments
"""A log that arrives in bits, late and in any order: gold in increments is gold computed at once, to the last bit."""

import datetime as dt
import itertools
import json
import os
import random
from dataclasses import dataclass, field

import handmade
import pytest
from deltalake import DeltaTable

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.features import sequences
from sparkrec.jobs.featurize import featurize
from sparkrec.pipeline import Run, execute

pytestmark = pytest.mark.spark

#: How many random logs; more are for the curious.
SEEDS = range(int(os.environ.get("SPARKREC_GOLD_SEEDS", "1")))
#: The last day that each batch knows of.
DATES = [dt.date(2020, 1, day) for day in (7, 8, 10)]
SPLIT = {"kind": "time", "test_days": 1, "validation_days": 1}
FEATURES = {"block_users": 2, "max_length": 4, "words": 0}
USERS, ITEMS, EVENTS = 30, 8, 220
#: From this day on only the first of the users are there.
QUIET, AWAKE = dt.date(2020, 1, 6), 4
KINDS = ("view", "view", "click", "cart", "purchase", "purchase", "rating", "search")


@dataclass
class Shop:
    """What silver holds after each batch: events by id, suspects, and the catalogue."""

    events: list[dict[str, dict]] = field(default_factory=list)
    suspects: list[list[tuple[str, int]]] = field(default_factory=list)
    items: list[list[tuple]] = field(default_factory=list)


def _day(number, hour=0.0):
    return dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number - 1, hours=hour)


def _shop(seed):
    """Most events come with their day; some later, some before it. Cancels come with theirs, or later."""
    chance = random.Random(seed)
    shop = Shop()
    known = [{} for _ in DATES]
    for n in range(EVENTS):
        day = chance.randint(1, 11)
        user = chance.randrange(AWAKE if dt.date(2020, 1, day) >= QUIET else USERS)
        kind = chance.choice(KINDS)
        # Several in one second, in the order of their lines.
        time = _day(day, chance.choice([0.0, 9.0, chance.randrange(86_400) / 3600]))
        value = {"purchase": chance.choice([None, 1.0, 2.5]), "rating": float(chance.randint(1, 5))}.get(kind)
        row = dict(
            event_id=f"e{n}", line=n, user_id=f"u{user}", event_type=kind, event_time=time,
            item_id=None if kind == "search" else f"i{chance.randrange(ITEMS - 1)}", event_date=time.date(),
            value=value, price=chance.choice([None, round(chance.uniform(1, 50), 2)]),
            country=chance.choice([None, "DE", "FR"]),
        )  # fmt: skip
        own = next((k for k, date in enumerate(DATES) if date >= time.date()), len(DATES) - 1)
        arrives = max(0, min(len(DATES) - 1, own + chance.choice([0, 0, 0, 0, 0, 0, 1, 2, -1])))
        cancelled = (
            time + dt.timedelta(days=chance.uniform(0, 4)) if kind == "purchase" and chance.random() < 0.4 else None
        )
        goes = arrives + 1 if chance.random() < 0.03 else len(DATES)
        for batch in range(arrives, goes):
            told = cancelled is not None and cancelled.date() <= DATES[batch]
            if batch < len(DATES):
                known[batch][row["event_id"]] = row | {"cancelled_at": cancelled if told else None}
    shop.events = known
    # One who is found late, one who is acquitted, one whose day comes only with a later split.
    shop.suspects = [[("u5", 2)], [("u4", 3), ("u6", 8)], [("u4", 3), ("u1", 9), ("u6", 8)]]
    first = []
    for n in range(ITEMS - 1):
        price = None if n == 4 else 7.0 * n + 1
        first.append((f"i{n}", 0, f"Brand {n % 3}" if n % 3 else None, ["A", "B"][: 1 + n % 2], price, True))
    # As of the splits of the 7th, 8th and 10th: another price, brand and path; no goods, and goods again; one comes and
    # goes again without a buyer.
    later = [
        ("i0", 6, None, ["A"], 90.0, True), ("i1", 7, "Brand 9", ["A", "B"], 8.0, True),
        ("i2", 4, "Brand 2", ["A"], 15.0, False), ("i2", 8, "Brand 2", ["A"], 15.0, True),
        ("i3", 8, None, ["C"], 22.0, True), ("i5", 7, "Brand 2", ["A", "B"], 36.0, False),
        ("i7", 5, "Brand 1", ["A"], 3.0, True), ("i7", 9, "Brand 1", ["A"], 3.0, False),
    ]  # fmt: skip
    shop.items = [first + later[:4], first + later, first + later]
    return shop


def _arrive(settings, shop, batch):
    """Silver as clean leaves it: only the days are written that the batch touches."""
    run = Run(settings, "clean")
    now, before = shop.events[batch], shop.events[batch - 1] if batch else {}
    touched = {row["event_date"] for key in now.keys() | before.keys() if now.get(key) != before.get(key)
               for row in (now.get(key), before.get(key)) if row}  # fmt: skip
    rows = [
        row | dict(cancelled=row["cancelled_at"] is not None) for row in now.values() if row["event_date"] in touched
    ]
    days = ", ".join(f"DATE'{day}'" for day in sorted(touched))
    handmade.write(run, schemas.SILVER_EVENTS, rows, where=f"event_date IN ({days})" if batch else None)
    suspects = [{c.USER_ID: user, c.EVENT_DATE: dt.date(2020, 1, day)} for user, day in shop.suspects[batch]]
    handmade.write(run, schemas.SILVER_SUSPECTS, suspects)
    columns = (c.ITEM_ID, c.VALID_FROM, c.BRAND, c.CATEGORY, c.PRICE, c.FOR_SALE)
    items = [dict(zip(columns, (name, _day(day), *rest), strict=True)) for name, day, *rest in shop.items[batch]]
    handmade.write(run, schemas.SILVER_ITEMS, items)
    run.finish()


def _featurize(settings, date, job=featurize):
    run = Run(settings, "featurize", date)
    execute(job, run)
    return run


def _tables(run):
    rows = {table.name: run.read(table).collect() for table in schemas.TABLES if table.name in run.outputs}
    return {name: sorted(json.dumps(row.asDict(), default=str) for row in found) for name, found in rows.items()}


def _files(run, table):
    """Block → data files."""
    found = {}
    for path in DeltaTable(run.lake.path(table), version=run.outputs[table.name]).file_uris():
        found.setdefault(int(path.split("user_block=")[1].split("/")[0]), set()).add(path)
    return found


def _indices(run, table):
    key, index = table.column_names[:2]
    return {row[key]: row[index] for row in run.read(table).collect()}


@pytest.fixture(scope="module", params=SEEDS)
def grown(request, spark, tmp_path_factory):
    """The shop, a run after each batch, and one that computes everything at the end."""
    shop = _shop(request.param)
    base = {
        "name": "bits", "lake": {"path": str(tmp_path_factory.mktemp("lake"))}, "tracking": {"enabled": False},
        "source": {"name": "generic", "path": "unused"}, "split": SPLIT, "features": FEATURES,
    }  # fmt: skip
    settings = Settings.model_validate(base)
    runs = []
    for batch, date in enumerate(DATES):
        _arrive(settings, shop, batch)
        if batch == len(DATES) - 1:
            _die(settings)
        runs.append(_featurize(settings, date))
    whole = _featurize(Settings.model_validate(base | {"features": FEATURES | {"full": True}}), DATES[-1])
    return shop, runs, whole


def _die(settings):
    """A run for another day, which stops when it has written all but the sequences."""

    def broken(pieces, max_length):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "rows", broken)
        with pytest.raises(KeyboardInterrupt):
            _featurize(settings, dt.date(2020, 1, 9))
    Run(settings, "featurize").spark.catalog.clearCache()


def test_increments_equal_a_computation_of_everything(grown):
    _, runs, whole = grown
    reasons = [run.details["increment"]["why_full"] for run in runs]
    assert reasons == ["no run of featurize has finished yet", None, None]
    assert whole.details["increment"]["why_full"] == "features.full is set"
    expected, found = _tables(whole), _tables(runs[-1])
    assert set(found) == set(expected)
    for name in expected:
        assert found[name] == expected[name], name
    assert runs[-1].counts == whole.counts
    assert whole.counts["events_validation"] > 0, "worth comparing"


def test_an_increment_says_of_how_many_events_it_speaks(grown):
    shop, runs, whole = grown
    log = [row for row in shop.events[-1].values() if row["event_date"] <= DATES[-1]]
    newest = [row for row in log if row["event_time"] >= _day(7)]  # the last run's validation began then
    assert whole.details["read"]["events"] == len(log)
    assert len(newest) <= runs[-1].details["read"]["events"] < len(log)
    searches = [sum(row["event_type"] == "search" for row in rows) for rows in (newest, log)]
    found = [run.details["read"]["left_out"]["other_type"] for run in (runs[-1], whole)]
    assert searches[0] <= found[0] <= found[1] == searches[1]


def test_indices_never_change(grown):
    _, runs, whole = grown
    for table in (schemas.VOCABULARY_USERS, schemas.VOCABULARY_ITEMS, schemas.VOCABULARY_FEATURES):
        found = [_indices(run, table) for run in (*runs, whole)]
        for older, newer in itertools.pairwise(found):
            assert older.items() <= newer.items()
        assert sorted(found[-1].values()) == list(range(len(found[-1])))


def test_an_item_that_left_keeps_its_row(grown):
    _, runs, _ = grown
    here, left = ({row[c.ITEM_ID]: row for row in run.read(schemas.GOLD_ITEMS).collect()}["i7"] for run in runs[-2:])
    assert (here[c.FOR_SALE], here[c.N_EVENTS], len(here[c.FEATURES])) == (True, 0, 3)
    assert (left[c.FOR_SALE], left[c.N_EVENTS], left[c.FEATURES]) == (False, 0, [])
    assert here[c.ITEM_INDEX] == left[c.ITEM_INDEX]


def test_only_users_with_something_new_are_written(grown):
    """At the last batch the split moves from the 8th to the 10th, and validation from the 7th to the 9th."""
    shop, runs, _ = grown
    was, now = shop.events[-2], shop.events[-1]
    both = [row for events in (was, now) for row in events.values()]
    active = {row["user_id"] for row in both if row["event_time"] >= _day(7)}
    edited = {row["user_id"] for row in both if was.get(row["event_id"]) != now.get(row["event_id"])}
    taken_back = {row["user_id"] for row in both if row["cancelled_at"] and row["cancelled_at"] >= _day(8)}
    suspected = {"u1", "u6"}
    indices = _indices(runs[-1], schemas.VOCABULARY_USERS)
    blocks = {
        indices[user] // FEATURES["block_users"] for user in active | edited | taken_back | suspected if user in indices
    }
    for table in (schemas.GOLD_SEQUENCES, schemas.GOLD_PAIRS):
        before, after = _files(runs[-2], table), _files(runs[-1], table)
        written = {block for block in before.keys() | after.keys() if before.get(block) != after.get(block)}
        assert written <= blocks, table.name
        assert written < set(after), "some users stay as they are"
    done = runs[-1].details["increment"]["events"]
    assert done["users"] <= len(active | edited | taken_back | suspected)
    assert done["blocks"] == len(written)
