"""The users, items and events that the tests of the similarity join share, and the lists that came out of it."""

from __future__ import annotations

import datetime as dt

import numpy as np

from sparkrec import columns as c
from sparkrec import schemas

N_USERS, N_ITEMS, K, WIDTH = 40, 30, 5, 6
UNKNOWN_USERS, UNKNOWN_ITEMS = {7, 39}, {3}  # ALS has no vector for them
POSTAGE, SOLD_OUT = 11, 12
SAW_ALL, SAW_ALL_BUT_TWO = 20, 21
ITEMS = {POSTAGE: {c.FOR_SALE: False}, SOLD_OUT: {c.STOCK: 0.0}, 13: {c.STOCK: 2.0}}
AS_OF = dt.datetime(1970, 1, 1, 0, 0, 10)  # events are a second apart
GOLD = (schemas.GOLD_SEQUENCES, schemas.VOCABULARY_USERS, schemas.VOCABULARY_ITEMS, schemas.GOLD_ITEMS)


def world():
    """Users' events and the vectors of a model, drawn once."""
    random = np.random.default_rng(5)
    events = [
        [(int(i), kind, t) for t, i in enumerate(random.choice(N_ITEMS, 8)) for kind in (c.VIEW,)] + [(0, c.SEARCH, 9)]
        for _ in range(N_USERS)
    ]
    events[SAW_ALL] = [(i, c.PURCHASE, i) for i in range(N_ITEMS)]
    events[SAW_ALL_BUT_TWO] = [(i, c.VIEW, i) for i in range(N_ITEMS) if i not in (1, 2)]
    users = random.integers(-3, 4, (N_USERS, WIDTH)).astype(np.float32)  # whole numbers: many ties
    items = random.integers(-3, 4, (N_ITEMS, WIDTH)).astype(np.float32)
    return events, users, items


def tastes():
    """The brands of each user's views, in gold.users' columns; nobody knows those of users 5 and 6."""
    found = {}
    for user, events in enumerate(world()[0]):
        brands, times = np.unique([i % 4 for i, kind, _ in events if kind != c.SEARCH], return_counts=True)
        found[user] = {c.BRANDS: brands.tolist(), c.BRAND_SHARES: (times / times.sum()).tolist()}
    return found | {user: {} for user in (5, 6)}


def table(run):
    rows = run.lake.read(schemas.RECOMMENDATIONS, run.outputs["recommendations"]).collect()
    return sorted(tuple(row.asDict().values()) for row in rows)


def lists(run, model):
    """Item indices of each user's list, with its source."""
    found = {}
    for _, name, user, _rank, item, _score, source, *_ in table(run):
        if name == model:
            found.setdefault(user, ([], source))[0].append(int(item[1:]))
    return found


def best(scores, seen, allowed):
    return sorted((i for i in allowed if i not in seen), key=lambda i: (-scores[i], i))[:K]
