"""Tastes: distributions of users and items by hand. As a job: tests/retrieval/test_join.py, and the future's part in
tests/features/test_featurize_job.py."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec.config.tastes import Tastes
from sparkrec.errors import ConfigError
from sparkrec.models import tastes

pytestmark = pytest.mark.spark

DAY = 86_400
#: Of items 0 to 5. Nobody has met the last one, and nobody can say what item 4 is.
BRANDS = [7, 7, 3, 5, None, 9]
#: Users' items; two of user 0's are the same. User 2 has met no item of a brand.
MET = [[0, 0, 2], [1, 4], [4], [3]]


@pytest.fixture(scope="module")
def shop(spark):
    items = spark.createDataFrame(
        [(n, f"i{n}", brand, [100, 100 + brand] if brand else []) for n, brand in enumerate(BRANDS)],
        f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {c.BRAND_CODE} int, {c.CATEGORY_CODES} array<int>",
    )
    sequences = spark.createDataFrame(
        [(user, met, [DAY * n for n in range(len(met))]) for user, met in enumerate(MET)],
        f"{c.USER_INDEX} int, {c.ITEM_INDEX} array<int>, {c.EVENT_TIME} array<bigint>",
    )
    vocabulary = spark.createDataFrame([(n, f"u{n}") for n in range(5)], f"{c.USER_INDEX} int, {c.USER_ID} string")
    return items, sequences, vocabulary


def vectors(shop, settings, half_life_days=None):
    """Kinds, and p of users and q of items by index."""
    items, sequences, vocabulary = shop
    met = tastes.met(sequences, half_life_days)
    kinds = tastes.kinds(met, items, settings)
    liked = tastes.of_users(met, items, kinds, settings)
    users = tastes.user_vectors(vocabulary, liked, kinds).collect()
    found = tastes.item_vectors(items, met, liked, kinds, settings).collect()
    p = {row[c.USER_ID]: row[c.VECTOR] for row in users}
    return kinds, p, {row[c.ITEM_ID]: np.exp(row[c.VECTOR]).tolist() for row in found}


def near(*shares):
    return pytest.approx(list(shares), abs=2e-6)  # sums are kept to millionths


def test_distributions_by_hand(shop):
    """Brand 7 has three events; 3 and 5 have one, and the lower code is a kind; 5 and 9 are the rest."""
    kinds, p, q = vectors(shop, Tastes(by="brand", width=2, prior=4, own=0.5))
    assert kinds == tastes.Kinds((7, 3), (4 / 8, 2 / 8, 2 / 8))
    assert p == {"u0": near(2 / 3, 1 / 3, 0), "u1": near(1, 0, 0), "u3": near(0, 0, 1)}
    # The prior adds (2, 1, 1) to what the audience likes; then half is the item's own kind.
    assert q == {
        "i0": near((2 * 2 / 3 + 2) / 6 / 2 + 1 / 2, (2 * 1 / 3 + 1) / 6 / 2, 1 / 6 / 2),  # user 0, twice
        "i1": near(3 / 5 / 2 + 1 / 2, 1 / 5 / 2, 1 / 5 / 2),  # user 1
        "i2": near((2 / 3 + 2) / 5 / 2, (1 / 3 + 1) / 5 / 2 + 1 / 2, 1 / 5 / 2),  # user 0
        "i3": near(2 / 5 / 2, 1 / 5 / 2, 2 / 5 / 2 + 1 / 2),  # user 3
        "i4": near(3 / 5, 1 / 5, 1 / 5),  # users 1 and 2, of whom one has a taste; no kind of its own
        "i5": near(1 / 4, 1 / 8, 1 / 8 + 1 / 2),  # nobody: the shop's, and its own kind
    }


def test_whole_paths_with_room_for_all_and_events_that_fade(shop):
    """Categories 107, 103, 105 and 109, no rest. The newest event is a day-2 one, and a day halves."""
    kinds, p, q = vectors(shop, Tastes(by="category", width=4, prior=4, own=0), half_life_days=1)
    # Item 0 on days 0 and 1 (¼, ½), item 2 on day 2 (1), items 1 and 3 on day 0 (¼); item 4 is of no kind.
    assert kinds.codes == (103, 107, 105, 109)
    shares = np.array([1 + 1, 1 + 1, 1 / 4 + 1, 0 + 1]) / (9 / 4 + 4)
    assert kinds.shares == pytest.approx(shares)
    assert p["u0"] == near(4 / 7, 3 / 7, 0, 0)
    assert q["i0"] == near(*((3 / 4 * np.array([4 / 7, 3 / 7, 0, 0]) + 4 * shares) / (3 / 4 + 4)))
    assert q["i5"] == near(*shares)


def test_where_no_item_has_a_kind_it_is_said(shop):
    items, sequences, _ = shop
    met = tastes.met(sequences, None)
    with pytest.raises(ConfigError, match=r"tastes\.by is brand, and no item of gold\.items has a brand.*to category"):
        tastes.kinds(met, items.where(items[c.BRAND_CODE].isNull()), Tastes(by="brand"))
