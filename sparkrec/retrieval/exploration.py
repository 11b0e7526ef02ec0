"""Places given away by lot, so that what was never shown can be learnt about, with the chance of every row.

The last ``places`` places of a list take part. Each, independently and with probability ε, shows instead of its own
item one of the R items of the pool that are not in the list, all equally likely and none twice. So an item's
propensity, the probability that just it stands in just that place, is 1 − ε for the place's own item, ε / R for one
that came by lot (in a random order of R items each is equally likely to be the j-th), and 1 where no lot is drawn.

With these, the value of another policy π is estimated without bias from what was shown (Horvitz and Thompson 1952;
Li et al., Unbiased offline evaluation of contextual-bandit-based news article recommendation algorithms, WSDM 2011):
V(π) = mean over users of Σ over places of reward · [π shows this item in this place] / propensity, for every π that
shows in those places the list's own item or one of the R, and elsewhere the list's own.

The lot is a hash of a number of the user's (seed, run and user id make it) and of the item or place: whoever computes
the list again, in any partition, draws the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec.splitmix import STEP, U64, finalised


def explore(
    picks: NDArray[np.int64],
    free: NDArray[np.bool_],
    items: NDArray[np.integer],
    keys: U64,
    places: NDArray[np.bool_],
    probability: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draws the lots.

    Parameters
    ----------
    picks
        ``[n, k]`` positions in the pool, from :func:`sparkrec.retrieval.diversity.greedy`.
    free
        ``[n, p]``: candidates that may come in by lot; none of them is in the list.
    items
        ``[n, p]`` item indices, which name the candidates in the lot.
    keys
        ``[n]``, one number a user.
    places
        ``[n, k]``: places that take part.

    Returns
    -------
    picks, propensity
        ``[n, k]`` each.
    """
    picks, propensity = picks.copy(), np.ones(picks.shape)
    if not places.any() or not probability:
        return picks, propensity
    lots = np.where(free, mixed(keys[:, None] ^ mixed(items.astype(np.int64).view(np.uint64))), np.iinfo(np.uint64).max)
    order = np.argsort(lots, axis=1, kind="stable")
    number = free.sum(axis=1)
    turn = np.zeros(len(picks), np.int64)  # which of the drawn items is this place's
    for place in range(picks.shape[1]):
        taking_part = places[:, place] & (turn < number)
        rows = np.flatnonzero(taking_part)
        lucky = uniform(keys[rows], place) < probability
        propensity[rows, place] = np.where(lucky, probability / number[rows], 1 - probability)
        picks[rows[lucky], place] = order[rows[lucky], turn[rows[lucky]]]
        turn[rows] += 1
    return picks, propensity


def uniform(keys: U64, stream: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each key; streams are independent of each other."""
    with np.errstate(over="ignore"):
        salted = mixed(keys + STEP * np.uint64(stream + 1))
    return (salted >> np.uint64(11)) * 2.0**-53


def mixed(values: U64) -> U64:
    """What SplitMix64 draws after these states."""
    with np.errstate(over="ignore"):
        return finalised(values + STEP)
