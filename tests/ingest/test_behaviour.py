import numpy as np
import pytest

from sparkrec.ingest.simulator import SimulatorOptions, behaviour, catalogue
from sparkrec.ingest.simulator.behaviour import CANCEL, CART, DAY, NONE, PURCHASE, RATING, REVIEW, SEARCH, VIEW

pytestmark = pytest.mark.unit

OPTIONS = SimulatorOptions(users=400, items=300, days=60, events=24_000)
ITEMS = catalogue.build(OPTIONS)
USERS = behaviour.users(OPTIONS, 0)
EVENTS = behaviour.events(OPTIONS, ITEMS, USERS, 0)


def of(*kinds: int) -> dict[str, np.ndarray]:
    rows = np.isin(EVENTS["type"], kinds)
    return {name: values[rows] for name, values in EVENTS.items()}


def test_about_as_many_events_as_asked_for_in_time_order() -> None:
    assert OPTIONS.blocks == 1
    bots = int(np.isin(EVENTS["user"], USERS.number[USERS.bot]).sum())
    assert 0.8 < (len(EVENTS["time"]) - bots) / OPTIONS.events < 1.25
    assert (np.diff(EVENTS["time"]) >= 0).all()
    assert EVENTS["time"].min() >= 0
    assert EVENTS["time"].max() < OPTIONS.days * DAY


def test_blocks_do_not_depend_on_each_other() -> None:
    options = OPTIONS.model_copy(update={"events": 4_000_000})
    assert options.block_users < options.users
    again = behaviour.users(options, 1)
    assert again.number[0] == options.block_users
    assert np.array_equal(behaviour.users(options, 1).taste, again.taste)
    assert not np.array_equal(behaviour.users(options, 0).taste, again.taste)


def test_nobody_acts_before_arrival_and_nothing_is_seen_before_it_is_there() -> None:
    day = EVENTS["time"] // DAY
    real = ~USERS.bot[EVENTS["user"]]
    assert (day >= USERS.arrival[EVENTS["user"]])[real].all()
    with_item = EVENTS["item"] != NONE
    assert (day[with_item] >= ITEMS.arrival[EVENTS["item"][with_item]]).all()
    assert (EVENTS["item"][EVENTS["type"] == SEARCH] == NONE).all()


def test_the_funnel_narrows() -> None:
    counts = np.bincount(EVENTS["type"], minlength=8)
    assert counts[VIEW] > 2 * counts[CART] > 2 * counts[PURCHASE] > 0
    assert counts[PURCHASE] > counts[RATING] + counts[REVIEW] > counts[CANCEL] > 0


def test_a_purchase_follows_a_cart_and_a_cart_a_view() -> None:
    def keys(part: dict[str, np.ndarray]) -> set[tuple[int, int, int]]:
        return set(zip(part["user"].tolist(), part["session"].tolist(), part["item"].tolist(), strict=True))

    assert keys(of(PURCHASE)) <= keys(of(CART)) <= keys(of(VIEW))
    assert keys(of(CANCEL, RATING, REVIEW)) <= keys(of(PURCHASE))


def test_tastes_can_be_learned() -> None:
    """What a user views is far more to their taste than what is viewed on the whole."""
    views = of(VIEW)
    real = ~USERS.bot[views["user"]]
    user, item = views["user"][real], views["item"][real]
    own = behaviour.affinity(USERS, ITEMS, user, item).mean()
    others = behaviour.affinity(USERS, ITEMS, user, np.random.default_rng(0).permutation(item)).mean()
    assert own > others + 0.4
    stars = of(RATING, REVIEW)
    liking = behaviour.affinity(USERS, ITEMS, stars["user"], stars["item"])
    assert np.corrcoef(liking, stars["stars"])[0, 1] > 0.2
    assert stars["stars"].min() >= 1
    assert stars["stars"].max() <= 5


def test_weekends_are_busier_and_evenings_too() -> None:
    views = of(VIEW)
    real = ~USERS.bot[views["user"]]
    time = views["time"][real]
    weekday = (OPTIONS.start.weekday() + time // DAY) % 7
    per_day = np.bincount(weekday, minlength=7)
    assert per_day[5:].mean() > 1.1 * per_day[:4].mean()
    hour = time // 3_600_000 % 24
    assert np.isin(hour, range(18, 23)).mean() > 2 * np.isin(hour, range(2, 7)).mean()


def test_bots_hammer_and_buy_nothing() -> None:
    options = OPTIONS.model_copy(update={"dirt": OPTIONS.dirt.model_copy(update={"bots": 0.05})})
    who = behaviour.users(options, 0)
    events = behaviour.events(options, ITEMS, who, 0)
    key = events["user"] * 1000 + events["time"] // DAY
    busy = np.unique(key, return_counts=True)
    of_bots = np.isin(busy[0] // 1000, who.number[who.bot])
    assert who.bot.sum() > 5
    assert busy[1][of_bots].max() >= 300
    assert busy[1][~of_bots].max() < 200, "people stay below what clean.bot_events_per_day says in conf/demo.yaml"
