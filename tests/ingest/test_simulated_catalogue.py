import numpy as np
import pytest

from sparkrec.ingest.simulator import SimulatorOptions, catalogue

pytestmark = pytest.mark.unit

OPTIONS = SimulatorOptions(users=100, items=400, days=40, events=4000)
ITEMS = catalogue.build(OPTIONS)


def test_the_same_options_give_the_same_catalogue() -> None:
    again, other = catalogue.build(OPTIONS), catalogue.build(OPTIONS.model_copy(update={"seed": 18}))
    assert np.array_equal(ITEMS.vector, again.vector)
    assert np.array_equal(ITEMS.base_price, again.base_price)
    assert not np.array_equal(ITEMS.vector, other.vector)


def test_every_category_has_an_item_from_the_first_day() -> None:
    assert set(ITEMS.category[ITEMS.arrival == 0]) == set(range(len(catalogue.CATEGORIES)))
    assert np.array_equal(ITEMS.category[: len(catalogue.CATEGORIES)], np.arange(len(catalogue.CATEGORIES)))
    assert 0 < (ITEMS.arrival > 0).mean() < 0.25


def test_items_of_a_category_taste_alike() -> None:
    np.testing.assert_allclose(np.linalg.norm(ITEMS.vector, axis=1), 1)
    alike = ITEMS.category[:, None] == ITEMS.category[None, :]
    cosine = ITEMS.vector @ ITEMS.vector.T
    assert cosine[alike].mean() > cosine[~alike].mean() + 0.3


def test_candidates_come_from_their_category_by_popularity() -> None:
    rng = np.random.default_rng(0)
    asked = np.repeat([3, 17], 20_000)
    drawn = ITEMS.candidates(rng, asked, 2)
    assert np.array_equal(ITEMS.category[drawn], np.repeat(asked[:, None], 2, axis=1))
    mine = np.flatnonzero(ITEMS.category == 3)
    expected = np.exp(ITEMS.log_popularity[mine]) / np.exp(ITEMS.log_popularity[mine]).sum()
    share = np.bincount(drawn[:20_000].ravel(), minlength=OPTIONS.items)[mine] / 40_000
    np.testing.assert_allclose(share, expected, atol=0.015)


def test_changes_are_the_days_on_which_something_changed() -> None:
    items = np.arange(50)
    rows = catalogue.changes(ITEMS, items, OPTIONS.days)
    state = {}
    found = list(zip(*(rows[name].tolist() for name in ("item", "day", "price", "promotion", "stock")), strict=True))
    assert found == sorted(found)
    by_day = {(item, day): rest for item, day, *rest in found}
    for item in items.tolist():
        for day in range(int(ITEMS.arrival[item]), OPTIONS.days):
            one, on = np.array([item]), np.array([day])
            today = [float(ITEMS.price(one, on)[0]), float(ITEMS.promotion(one, on)[0]), int(ITEMS.stock(one, on)[0])]
            assert ((item, day) in by_day) == (state.get(item) != today)
            state[item] = by_day.get((item, day), state.get(item))
            assert state[item] == today
    assert min(day for _, day, *_ in found) == 0


def test_seasons_peak_where_they_should() -> None:
    may, december = catalogue.season(np.array([4.0, 11.0]))
    garden = catalogue.CATEGORIES.index("Garden > Benches")
    baking = catalogue.CATEGORIES.index("Kitchen > Baking")
    assert may[garden] > may[baking]
    assert december[baking] > december[garden]
