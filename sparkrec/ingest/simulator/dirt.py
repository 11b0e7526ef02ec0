"""The dirt of real logs, put on clean events; what was done to which event is the truth that tests read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec.ingest.simulator.behaviour import DAY, NONE, Events
from sparkrec.ingest.simulator.options import Dirt, SimulatorOptions

#: What can be wrong with an event, at most one thing each; the position is the code. 0 is clean.
KINDS = (
    "clean", "duplicates", "near_duplicates", "late", "malformed", "wrong_types", "impossible_times", "unknown_items",
    "missing_prices",
)  # fmt: skip
(CLEAN, DUPLICATE, NEAR_DUPLICATE, LATE, MALFORMED, WRONG_TYPE, IMPOSSIBLE_TIME, UNKNOWN_ITEM, MISSING_PRICE) = range(9)


def soil(events: Events, options: SimulatorOptions, block: int) -> Events:
    """Adds ``id`` (number within the block), ``dirt`` and ``arrival`` (the day of the file), and the extra rows."""
    rng = np.random.default_rng([options.seed, 5, block])
    n = len(events["time"])
    kind = _kinds(rng, n, options.dirt)
    kind[(kind == UNKNOWN_ITEM) & (events["item"] == NONE)] = CLEAN
    kind[(kind == MISSING_PRICE) & (events["price"] == NONE)] = CLEAN
    day = events["time"] // DAY
    late = kind == LATE
    # Late on the last day would be in no file.
    kind[late & (day == options.days - 1)] = CLEAN
    arrival = np.where(kind == LATE, np.minimum(day + rng.integers(1, 6, n), options.days - 1), day)
    soiled = events | {"id": np.arange(n), "dirt": kind, "arrival": arrival}
    soiled["price"] = np.where(kind == MISSING_PRICE, NONE, events["price"])
    soiled["time"] = np.where(kind == IMPOSSIBLE_TIME, _impossible(rng, n, options), events["time"])

    twice = {name: values[kind == DUPLICATE] for name, values in soiled.items()}
    nearly = {name: values[kind == NEAR_DUPLICATE] for name, values in soiled.items()}
    nearly["id"] = nearly["id"] + n
    nearly["time"] = nearly["time"] + rng.integers(100, 900, len(nearly["time"]))
    # The first of a pair is clean; the second is the dirt.
    soiled["dirt"] = np.where(np.isin(kind, (DUPLICATE, NEAR_DUPLICATE)), CLEAN, kind)
    return {name: np.concatenate([soiled[name], twice[name], nearly[name]]) for name in soiled}


def _kinds(rng: np.random.Generator, n: int, dirt: Dirt) -> NDArray[np.int64]:
    shares = [getattr(dirt, name) for name in KINDS[1:]]
    edges = np.cumsum(shares)
    return (np.searchsorted(edges, rng.random(n), side="right") + 1) % len(KINDS)


def _impossible(rng: np.random.Generator, n: int, options: SimulatorOptions) -> NDArray[np.int64]:
    """Milliseconds since the first day of a time in January 1970 or in the year 2099."""
    past = -(options.start.toordinal() - 719_163) * DAY
    future = past + 129 * 365 * DAY
    return np.where(rng.random(n) < 0.5, past, future) + rng.integers(0, 30 * DAY, n)
