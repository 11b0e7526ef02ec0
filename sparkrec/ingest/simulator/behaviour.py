"""What a block of users does in the simulated shop. Arrays of one entry an event; no loops over users or events.

A user has a taste (a vector near that of a segment) and a budget. Sessions fall on days and hours by habit; a session
has an intent, a category drawn from taste and season. Each view is the best of a few items that popularity suggests,
by taste, budget, promotion and drift with some noise; carts, purchases, ratings and returns follow from the views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparkrec.ingest.simulator.catalogue import CATEGORIES, WIDTH, Catalogue, Floats, Ints, season, unit
from sparkrec.ingest.simulator.options import SimulatorOptions

#: Event types; the position is the code.
VIEW, CART, PURCHASE, SEARCH, RATING, REVIEW, REMOVE, CANCEL = range(8)
SEGMENTS = ("families", "gardeners", "students", "collectors", "athletes", "givers")
COUNTRIES = ("United Kingdom", "Germany", "France", "Netherlands", "Sweden")
NONE = -1

DAY = 86_400_000  # milliseconds
_EVENTS_PER_SESSION = 4.6
_VIEWS_PER_SESSION = 2.9
_CANDIDATES = 24
_WEEKDAY = np.array([0.9, 0.85, 0.9, 0.95, 1.1, 1.25, 1.3])  # Monday first
#: Kinds of bots: a scraper at full speed for a day or two; one that asks every few minutes, day and night; a crawler
#: that walks through the catalogue in visits as long and as slow as a person's, but many of them.
BOTS = ("fast", "slow", "broad")
FAST, SLOW, BROAD = range(3)

Events = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Users:
    """A block of users: one entry each."""

    number: Ints
    segment: Ints
    taste: Floats
    budget: Floats
    arrival: Ints
    hour: Floats
    country: Ints
    bot: NDArray[np.bool_]
    bot_kind: Ints
    sessions: Ints


def users(options: SimulatorOptions, block: int) -> Users:
    """The users of a block, whatever else is drawn."""
    first = block * options.block_users
    number = np.arange(first, min(first + options.block_users, options.users))
    n, rng = len(number), np.random.default_rng([options.seed, 2, block])
    centres = unit(np.random.default_rng([options.seed, 3]).normal(size=(len(SEGMENTS), WIDTH)))
    segment = rng.integers(0, len(SEGMENTS), n)
    arrival = np.where(rng.random(n) < 0.25, rng.integers(0, options.days, n), 0)
    activity = rng.lognormal(-0.32, 0.8, n)  # mean 1
    mean = options.events / options.users / _EVENTS_PER_SESSION
    present = (options.days - arrival) / options.days / 0.875  # new users have less time; on average 1
    return Users(
        number=number,
        segment=segment,
        taste=unit(centres[segment] + 0.8 * unit(rng.normal(size=(n, WIDTH)))),
        budget=rng.normal(0.0, 0.4, n),
        arrival=arrival,
        hour=np.where(rng.random(n) < 0.7, rng.normal(20, 1.5, n), rng.normal(12.5, 1.5, n)),
        country=rng.choice(len(COUNTRIES), n, p=[0.6, 0.15, 0.1, 0.1, 0.05]),
        bot=rng.random(n) < options.dirt.bots,
        bot_kind=np.random.default_rng([options.seed, 7, block]).integers(0, len(BOTS), n),
        sessions=rng.poisson(activity * present * mean),
    )


def events(options: SimulatorOptions, catalogue: Catalogue, who: Users, block: int) -> Events:
    """All events of a block of users, before the dirt, in time order.

    Columns: user (number), item, type, time (ms since the first day), session (number within the user), order (1 where
    the event is part of one), quantity, stars, category (what was searched for), price (cents); -1 for none.
    """
    rng = np.random.default_rng([options.seed, 4, block])
    views, searches = _browse(options, catalogue, who, rng)
    bots = _crawl(options, catalogue, who, np.random.default_rng([options.seed, 6, block]))
    parts = [searches, views, bots, *_buy(options, who, catalogue, views, rng)]
    all_events = {name: np.concatenate([part[name] for part in parts]) for name in searches}
    inside = all_events["time"] < options.days * DAY
    order = np.lexsort((all_events["type"], all_events["time"]))
    order = order[inside[order]]
    return {name: values[order] for name, values in all_events.items()}


def affinity(who: Users, catalogue: Catalogue, user: Ints, item: Ints) -> Floats:
    """True preference, from -1 to 1: the cosine of taste and item. ``user`` counts within the block."""
    return np.einsum("...d,...d->...", who.taste[user], catalogue.vector[item])


def _browse(
    options: SimulatorOptions, catalogue: Catalogue, who: Users, rng: np.random.Generator
) -> tuple[Events, Events]:
    """Views and searches; ``views["user"]`` still counts within the block, ``who.number`` comes last."""
    user = np.repeat(np.arange(len(who.number)), who.sessions)
    n = len(user)
    day = _days(options, who.arrival[user], rng)
    hour = (who.hour[user] + rng.normal(0, 2.0, n)) % 24
    start = day * DAY + (hour * 3_600_000).astype(np.int64)
    session = _number_within(user, start)
    intent = _intents(options, catalogue, who, user, day, rng)

    count = np.minimum(rng.geometric(1 / _VIEWS_PER_SESSION, n), 15)
    at = np.repeat(np.arange(n), count)
    strays = rng.random(len(at)) < 0.15
    category = np.where(strays, rng.integers(0, len(CATEGORIES), len(at)), intent[at])
    item = _choose(options, catalogue, who, user[at], category, day[at], rng)
    # Some views come back to the one before.
    first = np.concatenate([[True], at[1:] != at[:-1]]) if len(at) else np.zeros(0, bool)
    again = ~first & (rng.random(len(at)) < 0.12)
    item = np.where(again, np.concatenate([item[:1], item[:-1]]), item)
    gaps = rng.exponential(45_000, len(at)).astype(np.int64) + 2_000
    elapsed = np.cumsum(gaps)
    begin = np.concatenate([[0], np.cumsum(count)])[:-1]
    elapsed = elapsed - np.repeat((elapsed - gaps)[begin] if len(at) else begin, count)
    views = _events(who, user[at], VIEW, start[at] + elapsed, item=item, session=session[at])
    views["price"] = _paid(catalogue, item, day[at])

    asked = np.flatnonzero(rng.random(n) < 0.25)
    searches = _events(who, user[asked], SEARCH, start[asked], session=session[asked], category=intent[asked])
    return views, searches


def _buy(
    options: SimulatorOptions, who: Users, catalogue: Catalogue, views: Events, rng: np.random.Generator
) -> list[Events]:
    """Carts, removals, purchases, cancellations, ratings and reviews that follow from the views."""
    user, item, time = views["user"] - who.number[0] if len(who.number) else views["user"], views["item"], views["time"]
    day = time // DAY
    liking = affinity(who, catalogue, user, item)
    tempted = -2.6 + 2.2 * liking + 3.0 * catalogue.promotion(item, day)
    carted = np.flatnonzero((rng.random(len(item)) < _logistic(tempted)) & (catalogue.stock(item, day) > 0))

    def follow(rows: Ints, kind: int | Ints, delay: Floats, **more: Ints) -> Events:
        later = time[rows] + delay.astype(np.int64)
        return _events(who, user[rows], kind, later, item=item[rows], session=views["session"][rows], **more)

    quantity = 1 + (rng.random(len(carted)) < 0.15) * rng.integers(1, 4, len(carted))
    in_cart = follow(carted, CART, np.full(len(carted), 4_000.0), quantity=quantity)
    in_cart["price"] = views["price"][carted]
    fate = rng.random(len(carted))
    bought, dropped = carted[fate < 0.55], carted[fate > 0.85]
    sold = quantity[fate < 0.55]
    one = np.ones(len(bought), np.int64)
    delay = rng.uniform(60_000, 600_000, len(bought))
    purchases = follow(bought, PURCHASE, delay, quantity=sold, order=one)
    purchases["price"] = views["price"][bought]
    removed = follow(dropped, REMOVE, rng.uniform(10_000, 60_000, len(dropped)))

    back = np.flatnonzero(rng.random(len(bought)) < options.dirt.cancelled)
    cancels = follow(bought[back], CANCEL, delay[back] + rng.uniform(1, 5, len(back)) * DAY, quantity=sold[back],
                     order=one[back])  # fmt: skip
    cancels["price"] = purchases["price"][back]
    rated = bought[rng.random(len(bought)) < 0.35]
    stars = np.clip(np.round(3.2 + 1.8 * liking[rated] + rng.normal(0, 0.7, len(rated))), 1, 5).astype(np.int64)
    kind = np.where(rng.random(len(rated)) < 0.5, RATING, REVIEW)
    ratings = follow(rated, kind, rng.uniform(2, 15, len(rated)) * DAY, stars=stars)
    return [in_cart, removed, purchases, cancels, ratings]


def _crawl(options: SimulatorOptions, catalogue: Catalogue, who: Users, rng: np.random.Generator) -> Events:
    """What bots view: for each (bot, day) of work a number of requests, their start and the pauses between them."""
    bots = np.flatnonzero(who.bot)
    kind = who.bot_kind[bots]
    days = np.choose(
        kind, [rng.integers(1, 3, len(bots)), rng.integers(3, 11, len(bots)), rng.integers(2, 7, len(bots))]
    )
    pace = np.choose(
        kind, [rng.uniform(0.8, 4, len(bots)), rng.uniform(300, 720, len(bots)), rng.uniform(15, 60, len(bots))]
    )
    jitter = np.choose(kind, [rng.uniform(0, 0.3, len(bots)), rng.uniform(0.02, 0.3, len(bots)), np.ones(len(bots))])
    first = rng.integers(0, options.days, len(bots))
    work = np.repeat(np.arange(len(bots)), days)  # a day's work
    day = first[work] + np.arange(len(work)) - np.repeat(np.cumsum(days) - days, days)
    of = kind[work]
    count = np.choose(of, [rng.integers(300, 601, len(work)), (DAY / 1000 / pace[work]).astype(np.int64),
                           rng.integers(100, 301, len(work))])  # fmt: skip
    hour = np.choose(of, [rng.uniform(0, 22, len(work)), np.zeros(len(work)), rng.uniform(7, 11, len(work))])

    at = np.repeat(np.arange(len(work)), count)
    step = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    spread = jitter[work[at]]
    steady = 1 + spread * rng.uniform(-1, 1, len(at))
    pause = pace[work[at]] * np.where(of[at] == BROAD, rng.exponential(1, len(at)) + 0.1, steady)
    visit = np.where(of[at] == BROAD, step // 40, 0)
    rest = np.where((of[at] == BROAD) & (step > 0) & (step % 40 == 0), rng.uniform(1200, 7200, len(at)), 0)
    elapsed = np.cumsum(pause + rest)
    begin = np.repeat(np.cumsum(count) - count, count)
    elapsed = elapsed - (elapsed - pause - rest)[begin] if len(at) else elapsed
    time = day[at] * DAY + (1000 * (3600 * hour[at] + elapsed)).astype(np.int64)

    present = np.flatnonzero(catalogue.arrival == 0)
    walk = (rng.integers(0, len(present), len(bots))[work[at]] + np.arange(len(at))) % len(present)
    anything = rng.integers(0, len(present), len(at))
    item = present[np.where(of[at] == FAST, anything, walk)]
    inside = time < options.days * DAY
    at, item, time, visit = at[inside], item[inside], time[inside], visit[inside]
    crawl = _events(who, bots[work[at]], VIEW, time, item=item, session=10_000 + 100 * at + visit)
    crawl["price"] = _paid(catalogue, item, time // DAY)
    return crawl


def _intents(
    options: SimulatorOptions, catalogue: Catalogue, who: Users, user: Ints, day: Ints, rng: np.random.Generator
) -> Ints:
    """The category of each session: taste and season, by the Gumbel trick."""
    if not len(user):
        return np.zeros(0, np.int64)
    month = (options.start.timetuple().tm_yday + day) / 30.4
    logits = (8.0 * who.taste @ catalogue.category_vector.T)[user] + season(month)
    return np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)


def _choose(
    options: SimulatorOptions, catalogue: Catalogue, who: Users, user: Ints, category: Ints, day: Ints,
    rng: np.random.Generator,
) -> Ints:  # fmt: skip
    """The item of each view: the best of a few that popularity suggests."""
    if not len(user):
        return np.zeros(0, np.int64)
    items = catalogue.candidates(rng, category, _CANDIDATES)
    on = day[:, None]
    price = catalogue.price(items, on) * (1 - catalogue.promotion(items, on))
    level = np.log(price).mean(axis=1, keepdims=True) + who.budget[user][:, None]
    logits = (
        5.0 * np.einsum("ed,ekd->ek", who.taste[user], catalogue.vector[items])
        + catalogue.drift[items] * (on / options.days - 0.5) * 2
        - 0.8 * np.abs(np.log(price) - level)
        + 2.0 * catalogue.promotion(items, on)
        - 1e6 * (catalogue.arrival[items] > on)
        + rng.gumbel(size=items.shape)
    )
    best = items[np.arange(len(items)), np.argmax(logits, axis=1)]
    # None of the few may have arrived yet; the first item of each category always has.
    return np.where(catalogue.arrival[best] > day, category, best)


def _days(options: SimulatorOptions, arrival: Ints, rng: np.random.Generator) -> Ints:
    """A day from arrival on, weekends busier."""
    weekday = (options.start.weekday() + np.arange(options.days)) % 7
    total = np.concatenate([[0.0], np.cumsum(_WEEKDAY[weekday])])
    point = total[arrival] + rng.random(len(arrival)) * (total[-1] - total[arrival])
    return np.clip(np.searchsorted(total, point, side="right") - 1, arrival, options.days - 1)


def _number_within(user: Ints, start: Ints) -> Ints:
    """0, 1, 2, … within each user by time; ``user`` is sorted."""
    order = np.lexsort((start, user))
    rank = np.empty(len(user), np.int64)
    first = np.searchsorted(user, user)
    rank[order] = np.arange(len(user)) - first[order]
    return rank


def _events(who: Users, user: Ints, kind: int | Ints, time: Ints, **more: Ints) -> Events:
    nothing = np.full(len(user), NONE, np.int64)
    named = ("item", "session", "order", "quantity", "stars", "category", "price")
    return {
        "user": who.number[user],
        "type": np.broadcast_to(np.asarray(kind, np.int64), user.shape),
        "time": time,
        **{name: more.get(name, nothing) for name in named},
    }


def _paid(catalogue: Catalogue, item: Ints, day: Ints) -> Ints:
    """Cents, after the promotion."""
    return np.round(100 * catalogue.price(item, day) * (1 - catalogue.promotion(item, day))).astype(np.int64)


def _logistic(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))
