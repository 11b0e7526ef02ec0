"""Batches: worked by hand, and the same for any number of ranks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ranks import on_ranks

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.training.events import Events, read_events, without_validation
from sparkrec.training.loader import Loader
from sparkrec.training.manifest import Piece, deal

pytestmark = pytest.mark.unit

VIEW, PURCHASE, REMOVE, RATING = (c.EVENT_TYPES.index(name) for name in (c.VIEW, c.PURCHASE, c.REMOVE, c.RATING))


def events(*histories, types=None, stars=None, users=None):
    """Users 0, 1, … with these items each; views unless said."""
    lengths = [len(items) for items in histories]
    n = sum(lengths)
    return Events(
        np.asarray(range(len(histories)) if users is None else users, np.int32), np.cumsum(lengths),
        np.concatenate([np.asarray(items, np.int32) for items in histories]),
        np.asarray(types if types is not None else [VIEW] * n, np.int8), np.zeros(n, bool),
        None if stars is None else np.asarray(stars, np.float32),
    )  # fmt: skip


def one_batch(which, **settings):
    return Loader(which, len(which.users), 10, TwoTower(batch=100, user_weight=0, **settings)).step(0, 0).parts[0]


def by_user(batch, user, names):
    """The batch's values of one user, whatever row it came to stand in."""
    row = batch["users"].tolist().index(user)
    segment = names[0].split("_")[0] + "_segment"
    return [batch[name][batch[segment] == row].tolist() for name in names]


def test_by_user_an_item_counts_once_with_its_strongest_event():
    which = events([3, 4, 3], [5, 6], [7], types=[VIEW, VIEW, PURCHASE, REMOVE, VIEW, REMOVE])
    batch = one_batch(which, history_keep=1, history="recency")
    assert by_user(batch, 0, ["target_items", "target_weight"]) == [[3, 4], [3.0, 1.0]]
    assert by_user(batch, 0, ["history_items", "history_lag"]) == [[3, 4, 3], [2, 1, 0]]
    # User 1 only removed item 5: history, but no target. User 2 has no target at all, and takes nobody's place.
    assert by_user(batch, 1, ["target_items", "target_weight"]) == [[6], [1.0]]
    assert by_user(batch, 1, ["history_items", "history_lag"]) == [[5, 6], [1, 0]]
    assert sorted(batch["users"].tolist()) == [0, 1]


def test_by_user_of_equally_strong_events_the_newest_counts():
    which = events([3, 4, 3], types=[RATING] * 3, stars=[1, 2, 5])
    batch = one_batch(which, loss="mse", weights={"rating": 1})
    assert batch["target_items"].tolist() == [3, 4]
    assert batch["target_label"].tolist() == [5, 2]
    which = events([3, 4, 3], types=[VIEW, VIEW, PURCHASE])
    heads = one_batch(which, head="purchase", weights={"view": 1, "purchase": 1})
    assert heads["target_types"].tolist() == [PURCHASE, VIEW]


def test_the_history_is_the_newest_events_and_a_part_of_it_in_training():
    which = events(list(range(8)) * 100)
    whole = one_batch(which, history_keep=1, max_history=5)
    assert whole["history_items"].tolist() == [3, 4, 5, 6, 7]
    part = one_batch(which, history_keep=0.5, max_history=800)
    assert len(part["history_items"]) == pytest.approx(400, abs=4 * 14.2)
    again = one_batch(which, history_keep=0.5, max_history=800)
    np.testing.assert_array_equal(part["history_items"], again["history_items"])


def test_user_weights_are_a_power_of_the_summed_target_weights():
    which = events([1, 2, 3, 4], [5])
    batch = Loader(which, 2, 10, TwoTower(user_weight=-0.5)).step(0, 0).parts[0]
    assert dict(zip(batch["users"].tolist(), batch["user_weight"].tolist(), strict=True)) == {0: 0.5, 1: 1.0}


def test_by_position_every_event_asks_for_the_next_in_windows_from_the_newest():
    batch = one_batch(events([0, 1, 2, 3, 4, 5], [6], [7, 8]), mode="position", max_history=2)
    rows = batch["users"].tolist()
    zero = [i for i, user in enumerate(rows) if user == 0]
    assert [batch["history_items"][i] for i in zero] == [0, 1, 2, 3, 4]
    # Five positions in windows of two, counted from the end: 0 | 1 2 | 3 4.
    windows = batch["history_segment"][zero] - batch["history_segment"][zero[0]]
    assert windows.tolist() == [0, 1, 1, 2, 2]
    asked = dict(zip(batch["target_segment"].tolist(), batch["target_items"].tolist(), strict=True))
    assert [asked[i] for i in zero] == [1, 2, 3, 4, 5]
    assert 1 not in rows  # one event asks for nothing
    assert asked[rows.index(2)] == 8


def test_by_position_one_user_of_many_events_is_cut_between_windows():
    """Put together again the parts are the batch; none has more than its share and a window."""
    which = events(list(range(10)) * 4, [1, 2], [3], [4, 5, 6], types=[VIEW, PURCHASE] * 23)
    settings = {"mode": "position", "max_history": 3, "repeats": True, "weights": {"purchase": 1.0}, "head": "purchase"}
    whole = one_batch(which, **settings)
    for n in (2, 5, 30):
        parts = Loader(which, 4, 10, TwoTower(batch=100, user_weight=0, accumulate=n, **settings)).step(0, 0).parts
        lengths = [len(part["users"]) for part in parts]
        assert len(parts) == n
        assert max(lengths) < len(whole["users"]) / n + 3
        for name, array in whole.items():
            after = {"history_segment": [0, *np.cumsum([len(set(p[name].tolist())) for p in parts])],
                     "target_segment": [0, *np.cumsum(lengths)]}.get(name, [0] * n)  # fmt: skip
            joined = np.concatenate([part[name] + first for part, first in zip(parts, after, strict=False)])
            np.testing.assert_array_equal(joined, array, err_msg=name)
            assert {part[name].dtype for part in parts} == {array.dtype}


@pytest.mark.parametrize(("repeats", "expected"), [(False, [2, 3]), (True, [2, 1, 3, 3])])
def test_by_position_an_item_met_before_is_a_target_only_if_asked(repeats, expected):
    batch = one_batch(events([1, 2, 1, 3, 3]), mode="position", repeats=repeats)
    assert batch["target_items"].tolist() == expected


# Item 2 is viewed and then bought, twice; item 3 is viewed twice.
FUNNEL = events([1, 2, 2, 3, 2, 3], types=[VIEW, VIEW, PURCHASE, VIEW, PURCHASE, VIEW])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(2, VIEW), (3, VIEW)]),
        ({"weights": {"purchase": 1}}, [(2, PURCHASE)]),
        ({"weights": {"purchase": 1}, "repeats": True}, [(2, PURCHASE), (2, PURCHASE)]),
        ({"weights": {"view": 1}}, [(2, VIEW), (3, VIEW)]),
        ({"head": "purchase"}, [(2, VIEW), (2, PURCHASE), (3, VIEW)]),
    ],
)
def test_by_position_a_target_is_the_first_event_on_its_item_that_counts(settings, expected):
    """With heads the first of its type, so that each head has something to learn."""
    cut = Loader(FUNNEL, 1, 10, TwoTower.model_validate({"mode": "position", "head": None, **settings}))
    batch = cut.step(0, 0).parts[0]
    places = [order + 1 for order in batch["target_segment"].tolist()]
    assert [(int(FUNNEL.items[place]), int(FUNNEL.types[place])) for place in places] == expected
    assert batch["target_items"].tolist() == [item for item, _ in expected]
    counted = [cut.targets_by_type()[kind] for kind in (VIEW, PURCHASE)]
    assert counted == [sum(kind == which for _, kind in expected) for which in (VIEW, PURCHASE)]


def test_by_position_stars_that_follow_a_view_of_the_item_are_learned():
    which = events([1, 2, 2, 3, 3], types=[VIEW, VIEW, RATING, RATING, RATING], stars=[np.nan, np.nan, 4, np.nan, 2])
    batch = one_batch(which, mode="position", loss="mse", weights={"rating": 1})
    assert batch["target_items"].tolist() == [2, 3]
    assert batch["target_label"].tolist() == [4, 2]


@pytest.mark.parametrize("mode", ["user", "position"])
def test_a_batch_is_of_users_who_have_targets(mode):
    """40 of 1,000 indices are users who bought something; half of the others viewed something; the rest are gone."""
    buyers = set(range(0, 1000, 25))
    settings = TwoTower.model_validate({"batch": 8, "mode": mode, "weights": {"purchase": 1}})

    def steps(ranks):
        def rank(collective):
            own = [user for user in range(collective.rank, 1000, ranks) if user in buyers or user % 2]
            walks = [[1, 2] if user in buyers else [3] for user in own]
            types = [kind for user in own for kind in ([VIEW, PURCHASE] if user in buyers else [VIEW])]
            cut = Loader(events(*walks, types=types, users=own), 1000, 10, settings, collective)
            return [cut.step(3, number).parts[0]["users"].tolist() for number in range(cut.steps_per_epoch)]

        return [sorted(user for part in parts for user in part) for parts in zip(*on_ranks(ranks, rank), strict=True)]

    found = steps(1)
    assert len(found) == 5
    assert sorted(user for users in found for user in users) == sorted(buyers)
    # Each of 40 is in a step or not: eight are expected, within four standard deviations.
    assert all(abs(len(users) - 8) < 4 * np.sqrt(40 * 0.2 * 0.8) for users in found)
    assert found == steps(3)


def test_negatives_are_distinct_shared_and_new_each_step():
    which = events(*[[1, 2]] * 8)
    cut = Loader(which, 8, 1000, TwoTower(batch=4, negatives=100))
    first, second = cut.step(0, 0).negatives, cut.step(0, 1).negatives
    assert len(set(first.tolist())) == 100
    assert first.tolist() != second.tolist()
    other = Loader(events([9, 9]), 8, 1000, TwoTower(batch=4, negatives=100))
    np.testing.assert_array_equal(other.step(0, 0).negatives, first)


def test_an_epoch_shows_every_user_once():
    which = events(*[[user % 7] for user in range(23)])
    cut = Loader(which, 23, 10, TwoTower(batch=5))
    assert cut.steps_per_epoch == 5
    seen = [cut.step(2, step).parts[0]["users"].tolist() for step in range(5)]
    assert [len(users) for users in seen] == [5, 5, 5, 5, 3]
    assert sorted(user for users in seen for user in users) == list(range(23))


def test_events_without_validation_keep_users_that_lose_all():
    which = events([1, 2], [3], [4, 5])
    held = Events(which.users, which.ends, which.items, which.types, np.asarray([0, 1, 1, 0, 0], bool))
    left = without_validation(held)
    assert left.lengths.tolist() == [1, 0, 2]
    assert left.items.tolist() == [1, 4, 5]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Nine users in one to three chunks each, in no order, in two files of small row groups."""
    folder = tmp_path_factory.mktemp("sequences")
    rows = [(u, k, [10 * u + 2 - k] * (k + 1)) for u in range(9) for k in range(u % 3 + 1)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    found = []
    for name, part in (("a.parquet", rows[:7]), ("b.parquet", rows[7:])):
        table = pa.table(
            {
                c.USER_INDEX: pa.array([r[0] for r in part], pa.int32()),
                c.CHUNK: pa.array([r[1] for r in part], pa.int32()),
                c.ITEM_INDEX: pa.array([r[2] for r in part], pa.list_(pa.int32())),
                c.EVENT_TYPE: pa.array([[r[1]] * len(r[2]) for r in part], pa.list_(pa.int8())),
                c.VALIDATION: pa.array([[r[1] == 0] * len(r[2]) for r in part], pa.list_(pa.bool_())),
                c.EVENT_TIME: pa.array([[1000 - r[1]] * len(r[2]) for r in part], pa.list_(pa.int64())),
            }
        )
        pq.write_table(table, folder / name, row_group_size=3)
        groups = pq.read_metadata(folder / name)
        found += [Piece(str(folder / name), g, groups.row_group(g).num_rows) for g in range(groups.num_row_groups)]
    return found


def as_dict(read):
    """user → (items, types, validation)."""
    cut = np.split(np.arange(len(read.items)), read.ends[:-1]) if len(read.users) else []
    return {
        int(user): (read.items[rows].tolist(), read.types[rows].tolist(), read.validation[rows].tolist())
        for user, rows in zip(read.users, cut, strict=True)
    }


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_user_lands_whole_on_one_rank_in_time_order(pieces, size):
    """Eight ranks are more than there are row groups: some read nothing, and still own users."""
    hands = deal(pieces, size)
    parts = on_ranks(size, lambda collective: as_dict(read_events(hands[collective.rank], collective)))
    together = {user: row for part in parts for user, row in part.items()}
    assert sum(len(part) for part in parts) == len(together) == 9
    # User 5 has chunks 2, 1, 0 (oldest first) of 3, 2, 1 events.
    assert together[5] == ([50, 50, 50, 51, 51, 52], [2, 2, 2, 1, 1, 0], [False] * 5 + [True])
    assert all(set(part) <= set(range(rank, 9, size)) for rank, part in enumerate(parts))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_what_is_new_and_what_is_forgotten_goes_along_with_its_event(pieces, size):
    """Of items and times: chunk k is of time 1000 - k, and of item 10 · user + 2 - k."""
    hands = deal(pieces, size)

    def rank(collective):
        odd = read_events(hands[collective.rank], collective, False, 999, lambda: None, lambda items, _: items % 2 == 1)
        return odd, odd.of(np.flatnonzero(odd.users % 2 == 0))

    for whole, even in on_ranks(size, rank):
        for read in (whole, even):
            assert (read.new.dtype, read.forgotten.dtype) == (bool, bool)
            np.testing.assert_array_equal(read.new, read.items % 10 >= 1)
            np.testing.assert_array_equal(read.forgotten, read.items % 2 == 1)
        wanted = as_dict(whole)
        assert as_dict(even) == {user: wanted[user] for user in wanted if user % 2 == 0}
        assert whole.nbytes == 12 * len(whole.users) + 8 * len(whole.items)


@pytest.mark.parametrize("mode", ["user", "position"])
def test_any_number_of_ranks_sees_the_same_batches(pieces, mode):
    settings = TwoTower(batch=4, mode=mode, negatives=5)

    def targets(size):
        def rank(collective):
            cut = Loader(read_events(deal(pieces, size)[collective.rank], collective), 9, 100, settings, collective)
            steps = [cut.step(1, step).parts[0] for step in range(cut.steps_per_epoch)]
            return [sorted(zip(b["target_items"].tolist(), b["target_weight"].tolist(), strict=True)) for b in steps]

        return [sorted(pair for part in parts for pair in part) for parts in zip(*on_ranks(size, rank), strict=True)]

    assert targets(1) == targets(2) == targets(5)
