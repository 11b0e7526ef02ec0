"""Yesterday's model and today's events: what is asked for, and the same on any number of ranks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from few import events
from ranks import on_ranks
from small import plan_of, train
from test_resume import stopped, timeless

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, DataError
from sparkrec.models.two_tower import exported
from sparkrec.training import warm_start
from sparkrec.training.loader import Loader
from sparkrec.training.supervisor import _prepare
from sparkrec.training.tables import initial_rows

pytestmark = pytest.mark.workers

#: Times of the events: yesterday's lie before DAY, today's before 2 · DAY.
DAY = 100
SETTINGS = {
    "epochs": 3, "average": 0.9, "select_on_validation": False, "checkpoint_epochs": 2, "checkpoint_steps": 2,
    "replay": 0.3, "placement": {"user_id": "sharded", "history_item": "replicated_sparse"},
}  # fmt: skip


def day_plan(folder, day, base=None, today=True, **settings):
    """Day 1: 40 users on 30 items. Day 2: six users more on 36 items, and every fourth of the old ones comes back.

    Without ``today`` the vocabulary of day 2 has grown, and nothing has happened.
    """
    rng = np.random.default_rng(8)
    old = [rng.integers(15, size=rng.integers(2, 15)) * 2 + user % 2 for user in range(40)]
    late = {user: rng.integers(18, size=3) * 2 + user % 2 for user in [*range(0, 40, 4), *range(40, 46)]}
    users, n_items = (40, 30) if day == 1 else (46, 36)
    walks = [list(old[user]) if user < 40 else [] for user in range(users)]
    times = [list(range(len(walk))) for walk in walks]
    for user, walk in late.items() if day == 2 and today else ():
        walks[user] += list(walk)
        times[user] += [DAY + i for i in range(3)]
    sequences = pa.table(
        {
            c.USER_INDEX: pa.array(range(users), pa.int32()),
            c.CHUNK: pa.array([0] * users, pa.int32()),
            c.ITEM_INDEX: pa.array(walks, pa.list_(pa.int32())),
            c.EVENT_TYPE: pa.array([[i % 4 for i in walk] for walk in walks], pa.list_(pa.int8())),
            c.EVENT_TIME: pa.array(times, pa.list_(pa.int64())),
            c.VALIDATION: pa.array([[False] * len(walk) for walk in walks], pa.list_(pa.bool_())),
        }
    )
    return plan_of(folder, sequences, n_items, base, day * DAY, **SETTINGS | settings)


def trained(plan):
    """Its result; the folder is what a finished training leaves."""
    plan.save()
    return train(plan)[0]


def base_of(plan, **settings):
    """What the job hands to the ranks of day 2, or why it cannot."""
    config = TwoTower.model_validate({"width": 8, "batch": 16, "max_history": 6, **SETTINGS, **settings})
    sizes = {"users": 46, "items": 36, "features": 4}
    return warm_start._open(plan.path(), "yesterday", config, sizes, 2 * DAY)


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory):
    plan = day_plan(tmp_path_factory.mktemp("yesterday"), 1, ranks=2)
    trained(plan)
    return plan


@pytest.fixture(scope="module")
def today(tmp_path_factory, yesterday):
    plan = day_plan(tmp_path_factory.mktemp("today"), 2, base_of(yesterday), ranks=2)
    return trained(plan) | {"model": exported.load(plan.path("model")).weights}


# --- what is asked for -----------------------------------------------------------------------------------


def marked(rank=0, size=1, users=(1, 5, 6, 10, 17), last=2):
    """The few; the last events of some users are new."""
    few = events(rank, size)
    new = np.zeros(len(few.items), bool)
    for user, start, end in zip(few.users, few.starts, few.ends, strict=True):
        if user in users:
            new[max(start, end - last) : end] = True
    return dataclasses.replace(few, stars=None, new=new)


def cut(settings, rank=0, size=1, collective=None, which=None, begun=0, n_users=24):
    config = TwoTower.model_validate({"batch": 4, "width": 4, "max_history": 5, "user_weight": 0, **settings})
    return Loader(which or marked(rank, size), n_users, 30, config, collective, begun)


def asked(batches, epoch, mode):
    """(user, item, weight) of every target with a weight, in an epoch."""
    found = []
    for number in range(batches.steps_per_epoch):
        (part,) = batches.step(epoch, number).parts
        users = part["users"][part["target_segment"]]
        found += [x for x in zip(users, part["target_items"], part["target_weight"], strict=True) if x[2] > 0]
    return sorted((int(u), int(i)) for u, i, _ in found)


def expected(epoch, mode, replay):
    """By a plain loop: the new targets of everyone, and all targets of those whose lot is drawn."""
    few, found = marked(), []
    drawn = cut({"replay": replay, "mode": mode})._replayed(epoch)
    for place, user in enumerate(few.users.tolist()):
        rows = range(few.starts[place], few.ends[place])
        met = set()
        for row in rows:
            item = int(few.items[row])
            again = few.new[row] if mode == "position" else any(few.new[r] for r in rows if few.items[r] == item)
            first = item not in met and (mode == "user" or row > rows[0])
            met.add(item)
            if first and (again or drawn[place]):
                found.append((user, item))
    return sorted(found)


@pytest.mark.parametrize("mode", ["user", "position"])
@pytest.mark.parametrize("replay", [0.0, 0.4])
def test_an_epoch_asks_for_the_new_targets_and_for_all_of_those_who_are_replayed(mode, replay):
    batches = cut({"replay": replay, "mode": mode})
    for epoch in (0, 1, 7):
        assert asked(batches, epoch, mode) == expected(epoch, mode, replay)
    news, replayed = batches.trained(3)
    every = [len(expected(epoch, mode, replay)) for epoch in range(3)]
    assert news + replayed == sum(every)
    assert news == 3 * len(expected(0, mode, 0.0))
    users, all_users = (len({user for user, _ in expected(0, mode, share)}) for share in (0.0, 1.0))
    assert batches.new_users == users
    assert batches.steps_per_epoch == np.ceil(np.ceil(users + replay * (all_users - users)) / 4)


def test_replay_draws_other_users_each_epoch():
    batches = cut({"replay": 0.25})
    drawn = np.asarray([batches._replayed(epoch) for epoch in range(400)])
    assert drawn.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / drawn.size))
    assert drawn.any(axis=0).all()
    assert len({tuple(row) for row in drawn[:20]}) > 15


@pytest.mark.parametrize("mode", ["user", "position"])
def test_another_day_draws_what_a_later_epoch_would(mode):
    """So that it is not the same users who are replayed each day."""
    yesterday, today = cut({"mode": mode, "negatives": 5}), cut({"mode": mode, "negatives": 5}, begun=40)
    assert asked(today, 1, mode) == asked(yesterday, 41, mode) != asked(yesterday, 1, mode)
    np.testing.assert_array_equal(today.step(1, 0).negatives, yesterday.step(41, 0).negatives)
    assert today.trained(2)[1] == sum(len(asked(yesterday, epoch, mode)) for epoch in (40, 41)) - today.trained(2)[0]


@pytest.mark.parametrize("mode", ["user", "position"])
@pytest.mark.parametrize("every", [1, 7])
def test_with_all_users_replayed_the_batches_are_those_of_a_training_from_nothing(mode, every):
    """Also where only every seventh index is a user who is still there."""
    some = dataclasses.replace(marked(), users=marked().users * every)
    ordinary, warm = (
        cut({"mode": mode, "replay": 1.0}, which=which, n_users=24 * every)
        for which in (dataclasses.replace(some, new=None), some)
    )
    asking = len({user for user, _ in expected(0, mode, 1.0)})
    assert ordinary.steps_per_epoch == warm.steps_per_epoch == -(-asking // 4)
    for step in range(ordinary.steps_per_epoch):
        (a,), (b,) = ordinary.step(3, step).parts, warm.step(3, step).parts
        for name in ("users", "target_items", "target_weight") if mode == "user" else ("target_items", "target_weight"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_old_positives_are_nobodys_negatives_and_the_history_is_whole():
    batches = cut({"replay": 0.0, "history_keep": 1.0})
    for step in range(batches.steps_per_epoch):
        (part,) = batches.step(0, step).parts
        for place, user in enumerate(part["users"].tolist()):
            own = marked().items[marked().owner == user]
            assert set(part["target_items"][part["target_segment"] == place]) == set(own)
            assert part["history_items"][part["history_segment"] == place].tolist() == own[-5:].tolist()


def test_by_position_windows_of_old_events_alone_are_left_out():
    """Users 1, 5, …: two new events each, so that no token lies before the window of the last one but one."""
    batches = cut({"replay": 0.0, "mode": "position", "max_history": 2, "repeats": True})
    for step in range(batches.steps_per_epoch):
        (part,) = batches.step(0, step).parts
        assert np.bincount(part["users"], minlength=24).max(initial=0) <= 2
        assert len(np.unique(part["history_segment"])) == part["history_segment"].max(initial=-1) + 1


@pytest.mark.parametrize("mode", ["user", "position"])
def test_the_expected_counts_of_targets_are_those_of_many_epochs(mode):
    batches = cut({"mode": mode, "replay": 0.3})
    total = np.zeros(30)
    for epoch in range(300):
        for step in range(batches.steps_per_epoch):
            total += np.bincount(batches.step(epoch, step).parts[0]["target_items"], minlength=30)
    # Each of at most ten targets of an item is drawn or not: four standard errors.
    np.testing.assert_allclose(total / 300, batches.target_counts(), atol=4 * np.sqrt(10 * 0.21 / 300))


@pytest.mark.parametrize("mode", ["user", "position"])
def test_any_number_of_ranks_asks_for_the_same_in_every_step(mode):
    def steps(size):
        def rank(collective):
            batches = cut({"mode": mode, "replay": 0.3, "batch": 5}, collective.rank, size, collective)
            parts = [batches.step(2, step).parts[0] for step in range(batches.steps_per_epoch)]
            return [sorted(zip(p["target_items"].tolist(), p["target_weight"].tolist(), strict=True)) for p in parts]

        return [sorted(pair for part in parts for pair in part) for parts in zip(*on_ranks(size, rank), strict=True)]

    assert steps(1) == steps(2) == steps(4)


# --- the training ----------------------------------------------------------------------------------------


def test_what_was_trained_is_said(today):
    warm = today["warm_start"]
    assert (warm["run"], warm["full"], warm["times"], warm["since"]) == ("yesterday", "yesterday", 1, DAY)
    assert warm["new_rows"] == {"item_id": 6, "item_feature": 0, "user_id": 6, "history_item": 6}
    assert warm["new_users"] == 16
    assert warm["new_targets"] > 0
    assert warm["replayed_targets"] > 0
    assert (today["epochs"], today["as_of"]) == (3, 2 * DAY)


@pytest.mark.parametrize("recipe", ["user", "position"])
def test_ranks_do_not_change_a_warm_start(tmp_path, yesterday, recipe):
    """One, two and four ranks from what two ranks left, with shards; for position, from a model of its own."""
    extra = {"checkpoint_steps": 0}
    start, ranks_of_today = yesterday, (1, 2, 4)
    if recipe == "position":
        extra |= {"mode": "position", "history": "recency", "in_batch": True, "dropout": 0.3}
        extra |= {"placement": {"user_id": "sharded", "item_id": "sharded"}, "table_optimizer": "lazy_adam"}
        start, ranks_of_today = day_plan(tmp_path / "first", 1, ranks=2, **extra), (1, 4)
        trained(start)
    outcome = []
    for ranks in ranks_of_today:
        plan = day_plan(tmp_path / str(ranks), 2, base_of(start, **extra), ranks=ranks, **extra)
        result = trained(plan)
        outcome.append((result, exported.load(plan.path("model")).weights))
    one = outcome[0]
    for other in outcome[1:]:
        assert one[0]["warm_start"] == other[0]["warm_start"]
        for a, b in zip(one[0]["curve"], other[0]["curve"], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        for name, weight in one[1].items():
            np.testing.assert_allclose(weight, other[1][name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("steps", [2, 4, 5])
def test_killed_and_resumed_is_undisturbed(tmp_path, yesterday, today, steps):
    plan = day_plan(tmp_path, 2, base_of(yesterday), ranks=2)
    stopped(plan, steps)
    _prepare(plan, print)
    notes = []
    result = train(plan, lambda training: setattr(training, "_warn", notes.append))[0]
    assert any("resumed from the checkpoint" in note for note in notes) == (steps > 2)
    assert result["hash"] == today["hash"]
    assert timeless(result["curve"]) == timeless(today["curve"])
    assert result["warm_start"] == today["warm_start"]


def test_the_loss_scale_of_float16_begins_anew(tmp_path):
    """It counts the steps that its own training left out."""
    extra = {"precision": "float16", "ranks": 2, "checkpoint_steps": 0}
    first = day_plan(tmp_path / "first", 1, **extra)
    trained(first)
    base = base_of(first, **extra)
    scales, steps = [], []

    def look(training):
        train_phase = training._train

        def begun(trainer, phase, place, epochs):
            scales.append(trainer.scaling._state.numpy().tolist())
            train_phase(trainer, phase, place, epochs)
            steps.append(trainer.steps + trainer.scaling.skipped - base.steps)

        training._train = begun

    plan = day_plan(tmp_path / "second", 2, base, **extra)
    plan.save()
    result = train(plan, look)[0]
    assert scales == [[2.0**7, 0, 0, 0]] * 2
    assert steps == [result["epochs"] * 2] * 2  # 16 users with new events, .3 of 30: 25 in batches of 16
    assert all(np.isfinite(row["loss"]) for row in result["curve"])


def test_a_checkpoint_belongs_to_one_warm_start(tmp_path, yesterday):
    base = base_of(yesterday)
    plan = day_plan(tmp_path, 2, base, ranks=1)
    same = dataclasses.replace(plan, two_tower=plan.two_tower | {"warm_start": "last"})
    assert same.fingerprint == plan.fingerprint  # by whatever name it was found
    others = [None, *(dataclasses.replace(base, **x) for x in ({"hash": "0"}, {"run_id": "a"}, {"since": 5}))]
    changed = [dataclasses.replace(plan, base=other).fingerprint for other in others]
    assert len({plan.fingerprint, *changed}) == 5


def test_with_nothing_new_the_model_stays_as_it_was_but_for_the_rows_that_it_grows_by(tmp_path, yesterday):
    plan = day_plan(tmp_path, 2, base_of(yesterday), today=False, ranks=2)
    result = trained(plan)
    assert (result["epochs"], result["curve"], result["warm_start"]["new_users"]) == (0, [], 0)
    before, after = (exported.load(x.path("model")).weights for x in (yesterday, plan))
    for name, weight in before.items():
        np.testing.assert_array_equal(after[name][: len(weight)], weight, err_msg=name)
    np.testing.assert_array_equal(after["history_item"][30:], initial_rows(17, "history_item", np.arange(30, 36), 8))
    assert not after["user_id"][40:].any()  # of whom only the history is known
    # It is a model that tomorrow's may start from.
    assert base_of(plan).times == 2


def test_what_is_new_is_learned_and_what_is_old_is_not_lost(tmp_path):
    """Even users only ever meet even items, so that their rows are nearer to those."""
    extra = {"history": "none", "ranks": 1, "checkpoint_steps": 0, "placement": {"user_id": "sharded"}, "average": 0.0}
    extra["table_learning_rate"] = 0.05
    first = day_plan(tmp_path / "first", 1, epochs=12, **extra)
    trained(first)

    def right(plan):
        model = exported.load(plan.path("model"))
        scores = model.weights["user_id"] @ model.item_vectors[:30].T
        even = scores[:, ::2].mean(axis=1) > scores[:, 1::2].mean(axis=1)
        return even == (np.arange(len(even)) % 2 == 0)

    unchanged = day_plan(tmp_path / "nothing", 2, base_of(first, **extra), today=False, **extra)
    trained(unchanged)
    plan = day_plan(tmp_path / "second", 2, base_of(first, **extra), epochs=12, **extra)
    trained(plan)
    assert not right(unchanged)[40:].all()  # their rows are still by chance
    assert right(plan).all()


# --- what cannot be started from -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"width": 16}, "two_tower.width was 8 and is 16"),
        ({"mode": "position", "history": "gru"}, "two_tower.mode was user and is position, two_tower.history was mean"),
        ({"event_types": False}, "two_tower.event_types was True and is False"),
        ({"placement": {"user_id": "replicated_dense"}}, "placement of user_id was sharded and is replicated_dense"),
    ],
)
def test_what_differs_is_named(yesterday, settings, expected):
    assert expected in base_of(yesterday, **settings)


def test_what_does_not_shape_the_model_may_differ(yesterday):
    base = base_of(
        yesterday, learning_rate=1e-3, max_history=3, layers=7, batch=4, placement={"user_id": "replicated_sparse"}
    )
    assert base.since == DAY
    assert base.placement["user_id"] == "sharded"
    now = TwoTower(history="attention", max_history=20, width=8)
    then = TwoTower(history="attention", max_history=30, width=8, attention_heads=4)
    assert warm_start.differing(now, then) == [
        "two_tower.attention_heads was 4 and is 2", "two_tower.max_history was 30 and is 20",
    ]  # fmt: skip
    heads = {"head": "purchase", "weights": {"purchase": 1.0, "view": 1.0}}
    assert "two_tower.weights" in warm_start.differing(TwoTower(head="purchase"), TwoTower.model_validate(heads))[0]


def test_a_later_a_larger_and_an_unfinished_model_are_refused(tmp_path, yesterday):
    config = TwoTower.model_validate({"width": 8, **SETTINGS})
    whole = {"users": 46, "items": 36, "features": 4}
    opened = [
        warm_start._open(yesterday.path(), "y", config, whole, DAY - 1),
        warm_start._open(yesterday.path(), "y", config, whole | {"items": 29}, 2 * DAY),
        warm_start._open(tmp_path, "y", config, whole, 2 * DAY),
    ]
    for found, words in zip(
        opened, ("trained on events up to", "knows more items", "no finished training"), strict=True
    ):
        assert words in found


@pytest.mark.parametrize("file", ["result.json", "plan.json"])
def test_what_a_crash_has_torn_is_refused(tmp_path, file):
    plan = day_plan(tmp_path, 1)
    plan.save()
    plan.path("result.json").write_text("{}")
    plan.path(file).write_text("")
    assert "is damaged" in base_of(plan)


def test_a_model_that_has_changed_since_the_job_looked_is_refused(tmp_path, yesterday):
    base = dataclasses.replace(base_of(yesterday), steps=1)
    with pytest.raises(DataError, match=r"run yesterday.*warm_start=none"):
        train(day_plan(tmp_path, 2, base, ranks=1))


def test_what_does_not_fit_any_more_is_refused(tmp_path, yesterday):
    with pytest.raises(ConfigError, match="memory_gb"):
        train(day_plan(tmp_path, 2, base_of(yesterday), ranks=1, memory_gb=1e-6))
