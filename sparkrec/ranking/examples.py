"""What a ranker learns from: candidates of users who came back, and which of them they chose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: Users of the parts: the model is fitted to the first, stops by the second, is calibrated and measured on the last.
FIT, STOP, HELD = "fit", "stop", "held"
_PARTS = (FIT, FIT, FIT, FIT, FIT, FIT, FIT, STOP, HELD, HELD)


@dataclass(frozen=True)
class Examples:
    """``users`` ``[P]``: rows of ``vectors`` and ``asked``, ascending. ``items``, ``chosen`` ``[P]``, ``features``
    ``[P, F]``.

    ``asked`` ``[n]``: how many items the user went on to choose, whether they are among the candidates or not.
    ``vectors`` ``[n, d]``: of the two-tower model, for the neural ranker; zeros for a user without one. ``index``
    ``[n]``: user_index.
    """

    users: I64
    items: I64
    features: F32
    chosen: NDArray[np.bool_]
    asked: I64
    vectors: F32
    index: I64

    def __len__(self) -> int:
        return len(self.users)

    def of_users(self, kept: NDArray[np.bool_]) -> Examples:
        """Those of some users (``[n]``), who keep their numbers."""
        rows = kept[self.users]
        return replace(
            self, users=self.users[rows], items=self.items[rows], features=self.features[rows], chosen=self.chosen[rows]
        )


def parted(examples: Examples, tickets: NDArray[np.float64]) -> dict[str, Examples]:
    """The parts by name. ``tickets`` ``[n]`` in [0, 1), by user: a user's part does not depend on the others."""
    place = (tickets * len(_PARTS)).astype(np.int64)
    part = np.asarray(_PARTS)[place]
    return {name: examples.of_users(part == name) for name in (FIT, STOP, HELD)}


def lists(examples: Examples, scores: NDArray[np.floating], k: int) -> tuple[NDArray[np.bool_], I64]:
    """Each user's ``k`` best candidates by ``scores`` (``[P]``, NaN last; ties to the lower item): which were chosen
    ``[n', k]``, and ``asked`` ``[n']`` of these users."""
    order = np.lexsort((examples.items, -np.nan_to_num(scores, nan=-np.inf), examples.users))
    owner, first = np.unique(examples.users, return_index=True)
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    row = np.searchsorted(owner, examples.users)
    found = np.zeros((len(owner), k), bool)
    best = place < k
    found[row[best], place[best]] = examples.chosen[order][best]
    return found, examples.asked[owner]
