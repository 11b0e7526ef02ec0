"""Ranking metrics of blocks of users, from which places of each list were hits.

Relevance is binary. ``n_relevant`` counts everything the user did in the test part, also items that no model could
know: what cannot be hit still counts in the denominators. A list shorter than k is read as if it went on with misses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]

#: The metrics that are means over users, in the order of the arrays.
NAMES = ("recall", "precision", "hit_rate", "ndcg", "map", "mrr")


def hits(lists: Ints, indptr: Ints, relevant: Ints) -> Bools:
    """Which places of each list hold a relevant item: ``[n, k]``.

    Parameters
    ----------
    lists
        Item indices, best first, ``[n, k]``; -1 is an empty place.
    indptr, relevant
        Each user's relevant items as compressed rows; each item once a user.
    """
    n = len(lists)
    span = int(max(lists.max(initial=0), relevant.max(initial=0))) + 1
    owners = np.repeat(np.arange(n, dtype=np.int64), np.diff(indptr))
    wanted = owners * span + relevant
    offered = np.arange(n, dtype=np.int64)[:, None] * span + lists
    return np.isin(offered, wanted) & (lists >= 0)


def per_user(found: Bools, n_relevant: Ints, k: int) -> F64:
    """The metrics :data:`NAMES` at ``k`` of each user: ``[n, 6]``, each in [0, 1].

    With h_r = 1 where the item at rank r (from 1) is relevant, H = Σ_{r≤k} h_r and R = ``n_relevant``:

    ==========  ==========================================================================================
    recall      H / R
    precision   H / k
    hit_rate    1 if H > 0
    ndcg        Σ_{r≤k} h_r / log₂(r + 1), over the same sum for a list of min(k, R) hits: Järvelin and
                Kekäläinen, ACM TOIS 20(4), 2002, with binary gains
    map         Σ_{r≤k} h_r · (hits up to r) / r, over min(k, R): average precision cut at k, as in Manning et
                al., Introduction to Information Retrieval, 2008, 8.4, but over the best that k places allow
    mrr         1 / rank of the first hit, 0 if there is none within k: Voorhees, TREC-8, 1999
    ==========  ==========================================================================================

    Parameters
    ----------
    found
        ``[n, K]`` with K ≥ 1: where the list hits.
    n_relevant
        ``[n]``, each at least 1.

    Raises
    ------
    ValueError
        A user without a relevant item: no metric is defined for them.
    """
    if len(n_relevant) and n_relevant.min() < 1:
        raise ValueError("a test user needs at least one relevant item")
    found = found[:, :k]
    ranks = np.arange(1, found.shape[1] + 1)
    total = found.sum(axis=1)
    best = np.minimum(k, n_relevant)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    precisions = np.cumsum(found, axis=1) / ranks
    return np.stack(
        [
            total / n_relevant,
            total / k,
            (total > 0).astype(np.float64),
            (found / np.log2(ranks + 1)).sum(axis=1) / ideal[best],
            (found * precisions).sum(axis=1) / best,
            (found / ranks).max(axis=1, initial=0.0),
        ],
        axis=1,
    )


def table(found: Bools, n_relevant: Ints, ks: Sequence[int]) -> F64:
    """:func:`per_user` for each of ``ks`` side by side: ``[n, len(ks) · 6]``, named by :func:`names`."""
    return np.concatenate([per_user(found, n_relevant, k) for k in ks], axis=1)


def names(ks: Sequence[int]) -> list[tuple[str, int]]:
    """Metric and k of each column of :func:`table`."""
    return [(name, k) for k in ks for name in NAMES]


def gini(exposures: Ints, items: Ints) -> float:
    """How unequally the places in the lists are given to items: 0 all alike, towards 1 all to one item.

    G = (2 Σ_i i·x_i) / (n Σ x) − (n + 1) / n over the exposures x sorted upwards, i from 1 (Ceriani and Verme,
    J. Economic Inequality 10, 2012); here with ``items[j]`` items that each have ``exposures[j]``.
    """
    order = np.argsort(exposures)
    x, n = np.asarray(exposures, np.float64)[order], np.asarray(items, np.float64)[order]
    total, count = float(x @ n), float(n.sum())
    if total == 0:
        return 0.0
    before = np.cumsum(n) - n
    # Σ of the places i over a group of n equal items that starts after `before`.
    places = n * before + n * (n + 1) / 2
    return float(2 * (places @ x) / (count * total) - (count + 1) / count)


def concentration(exposures: Ints, items: Ints, points: int = 100) -> F64:
    """Share of all places that go to the most popular share of items: ``[points + 1]``, at 0, 1/points, …, 1.

    The same input as :func:`gini`; items of equal exposure share their part evenly.
    """
    order = np.argsort(-np.asarray(exposures))
    x, n = np.asarray(exposures, np.float64)[order], np.asarray(items, np.float64)[order]
    share = np.concatenate([[0.0], np.cumsum(x * n)]) / max(float(x @ n), 1.0)
    where = np.concatenate([[0.0], np.cumsum(n)]) / max(float(n.sum()), 1.0)
    return np.interp(np.linspace(0, 1, points + 1), where, share)
