"""How alike two things are: for vectors, and for ratings by the same users (:mod:`divergence` for distributions).

Vectors: dot is :func:`topk.top_k` itself, cosine is the same of :func:`unit` vectors, and the Euclidean distance is
brought to it exactly (:func:`nearest`). Ratings: blocks ``[a, w]`` of a items by w users, NaN where there is none;
:func:`together` of several blocks of users add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparkrec.retrieval.csr import take
from sparkrec.retrieval.topk import Catalogue, Csr, top_k

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_MARGIN = 16  # candidates beyond k at first


def unit(vectors: F32) -> F32:
    """Each row at length 1, so that a dot product is the cosine; rows of zeros stay."""
    sizes = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return (vectors / np.where(sizes > 0, sizes, 1.0)).astype(np.float32)


def widened(items: F32) -> F32:
    """``[m, d + 2]``: the vectors as :func:`nearest` takes them, with ‖v‖² in two floats behind."""
    squares = (items.astype(np.float64) ** 2).sum(axis=1)
    high = squares.astype(np.float32)
    return np.concatenate([items, np.stack([high, (squares - high).astype(np.float32)], axis=1)], axis=1)


def nearest(
    users: F32, wide: F32 | Catalogue, k: int, exclude: Csr | None = None, allowed: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int32], F64]:
    """The ``k`` items at the smallest Euclidean distance, equal distances by lower index; exact in double precision.

    ‖u − v‖² = ‖u‖² − (2 u·v − ‖v‖²), so the order of a user's distances is that of ⟨(2u, −1, −1), (v, a, b)⟩ with
    a + b = ‖v‖² (Bachrach et al., Speeding up the Xbox recommender system, RecSys 2014, the other way round). A score
    is rounded, so that proposes only: whatever lies outside k + :data:`_MARGIN` candidates scores at most what the last
    of them does, hence is at least so far away; where that cannot tell it from the k-th, the number is doubled.

    Parameters
    ----------
    users, wide
        ``[n, d]``, and ``[m, d + 2]`` from :func:`widened`; may be memory-mapped. Packed they serve many calls.

    Returns
    -------
    indices, distances
        ``[n, k]``; -1 and infinite where fewer than ``k`` remain.
    """
    matrix = wide.vectors if isinstance(wide, Catalogue) else wide
    items = matrix[:, :-2]
    largest = matrix[:, -2].max(initial=0).astype(np.float64)
    asking = np.concatenate([2 * users, np.full((len(users), 2), -1, np.float32)], axis=1)
    indices = np.full((len(users), k), -1, np.int32)
    distances = np.full((len(users), k), np.inf)
    left, size = np.arange(len(users)), k + _MARGIN
    while len(left) and k and len(items):
        size = min(size, len(items))
        barred = None if exclude is None else take(exclude, left)
        found, scores = top_k(asking[left], wide, size, barred, allowed)
        own = users[left].astype(np.float64)
        apart = np.full(found.shape, np.inf)
        for place in range(size):  # one place of every user at a time: n × d numbers, not n × size × d
            apart[:, place] = ((own - items[found[:, place]]) ** 2).sum(axis=1)
        apart[found < 0] = np.inf
        order = np.lexsort((found, apart), axis=1)[:, :k]
        width = order.shape[1]
        indices[left, :width] = np.take_along_axis(found, order, 1)
        distances[left, :width] = np.sqrt(np.take_along_axis(apart, order, 1))
        norms = (own**2).sum(axis=1)
        last = scores[:, -1].astype(np.float64)
        slack = np.abs(last) * 2.0**-23 + (norms + largest) * 2.0**-44
        with np.errstate(invalid="ignore"):
            certain = np.take_along_axis(apart, order, 1)[:, -1] < norms - last - slack
        left = left[~certain & (found[:, -1] >= 0)] if size < len(items) else left[:0]
        size *= 2
    indices[np.isinf(distances)] = -1
    return indices, distances


@dataclass(frozen=True)
class Together:
    """Sums over the users who rated both of two items, ``[a, b]`` each; of other users' blocks they add up."""

    n: F64
    x: F64
    y: F64
    xx: F64
    yy: F64
    xy: F64

    def __add__(self, other: Together) -> Together:
        return Together(*(getattr(self, name) + getattr(other, name) for name in ("n", "x", "y", "xx", "yy", "xy")))


def together(x: F64, y: F64) -> Together:
    """The sums of two blocks of items, ``[a, w]`` and ``[b, w]``, over the same w users: six matrix products."""
    there_x, there_y = (~np.isnan(x)).astype(np.float64), (~np.isnan(y)).astype(np.float64)
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    return Together(there_x @ there_y.T, x @ there_y.T, there_x @ y.T, x**2 @ there_y.T, there_x @ (y**2).T, x @ y.T)


def pearson(sums: Together) -> F64:
    """Correlation of two items' ratings over the users who rated both, with those users' means; 0 if undefined.

    Resnick et al., GroupLens, CSCW 1994; for items: Sarwar et al., Item-based collaborative filtering, WWW 2001.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = sums.xy - sums.x * sums.y / sums.n
        left, right = sums.xx - sums.x**2 / sums.n, sums.yy - sums.y**2 / sums.n
    return _ratio(covariance, left, right, np.maximum(sums.xx, sums.yy))


def adjusted_cosine(sums: Together) -> F64:
    """Cosine over the users who rated both, of ratings less the user's own mean; 0 if undefined.

    The caller takes the means off: ``together(x - means, y - means)``, ``means`` ``[w]`` over all that a user rated.
    Sarwar et al., WWW 2001, 3.1.3.
    """
    return _ratio(sums.xy, sums.xx, sums.yy, np.maximum(sums.xx, sums.yy))


def jaccard(both: F64, left: F64, right: F64) -> F64:
    """|A ∩ B| / |A ∪ B| from the counts of users, element by element; 0 where nobody met either."""
    union = left + right - both
    return np.divide(both, union, out=np.zeros_like(union), where=union > 0)


def _ratio(product: F64, left: F64, right: F64, scale: F64) -> F64:
    """product / √(left · right), where both are more than what rounding leaves of ``scale``."""
    nothing = 1e-12 * scale
    sure = (left > nothing) & (right > nothing)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sure, np.clip(product / np.sqrt(np.where(sure, left * right, 1.0)), -1, 1), 0.0)
