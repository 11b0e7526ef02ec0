"""Recall and NDCG on the validation events after an epoch, by the retrieval that also serves; the epoch they choose.

Memory of a rank: the vectors of its share of the items, and once more in the form that is searched, so 8 · width bytes
an item over the number of ranks; the events of the sample; and of a block of users of every rank the vectors and what
they have seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkrec import columns as c
from sparkrec.evaluation import metrics
from sparkrec.retrieval.topk import pack
from sparkrec.training import order, search
from sparkrec.training.events import Events, without_validation
from sparkrec.training.loader import whole_histories
from sparkrec.training.loop import Trainer
from sparkrec.training.plan import Question

K = 20
_BLOCK = 4096  # users searched for at a time, on all ranks together: each has what all of them have seen
_RECALL_AND_NDCG = [metrics.NAMES.index(name) for name in ("recall", "ndcg")]


class Validation:
    """This rank's users of the sample, what they are asked for and what they have seen.

    Asked for are the distinct items of a user's validation events of the types in ``question`` that the user has not
    met before in a way that ``recommend`` excludes and has not forgotten.
    """

    def __init__(self, events: Events, trainer: Trainer, question: Question) -> None:
        settings, collective = trainer.settings, trainer.collective
        self._trainer = trainer
        asked, excluded = (
            np.asarray([name in types for name in c.EVENT_TYPES]) for types in (question.asked, question.seen)
        )
        own = events.of(np.unique(events.owner[events.validation & asked[events.types]]))
        past, wanted = without_validation(own), distinct_pairs(own.where(own.validation & asked[own.types]))
        counts = excluded[past.types] if past.forgotten is None else excluded[past.types] & ~past.forgotten
        seen = distinct_pairs(past.where(counts))
        wanted = difference(wanted, seen, trainer.sizes.items)
        candidates = np.flatnonzero(np.diff(wanted[0]) > 0)
        total = float(collective.allreduce(np.asarray([len(candidates)], np.float64))[0])
        share = settings.validation_users / max(total, 1.0)
        rows = candidates[order.uniform(settings.seed, own.users[candidates], 3) < share]
        self._past, self._seen, self._asked = past.of(rows), _select(seen, rows), _select(wanted, rows)
        self.users = int(collective.allreduce(np.asarray([len(rows)], np.float64))[0])

    def score(self) -> dict[str, float]:
        """``recall@20`` and ``ndcg@20``, means over the sample on all ranks."""
        trainer, n = self._trainer, len(self._past.users)
        items, vectors = trainer.own_items()
        shelf, sums = pack(vectors), np.zeros(2)
        # Rows and items may lie on other ranks, so all ranks ask equally often, in the end for nobody.
        block = max(1, _BLOCK // trainer.collective.size)
        blocks = max(trainer.collective.allgather(np.asarray([-(-n // block)])).tolist())
        for start in range(0, blocks * block, block):
            trainer.alive()
            rows = np.arange(start, min(start + block, n))
            users = trainer.user_vectors(whole_histories(self._past, rows, trainer.settings.max_history))
            lists = search.best(trainer.collective, users, _select(self._seen, rows), items, shelf, K)
            if not len(rows):
                continue
            indptr, asked = _select(self._asked, rows)
            found = metrics.per_user(metrics.hits(lists, indptr, asked), np.diff(indptr), K)
            sums += found[:, _RECALL_AND_NDCG].sum(axis=0)
        recall, ndcg = trainer.collective.allreduce(sums) / max(self.users, 1)
        return {"recall": float(recall), "ndcg": float(ndcg)}


def distinct_pairs(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """Each user's distinct items, ascending, as compressed rows."""
    width = int(events.items.max(initial=0)) + 1
    keys = np.unique(events.owner * width + events.items)
    counts = np.bincount(keys // width, minlength=len(events.users))
    return np.append(0, np.cumsum(counts)), (keys % width).astype(np.int32)


def difference(
    these: tuple[np.ndarray, np.ndarray], those: tuple[np.ndarray, np.ndarray], n_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row by row, the items of ``these`` that are not in ``those``."""
    rows = [np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) for indptr, _ in (these, those)]
    kept = ~np.isin(rows[0] * n_items + these[1], rows[1] * n_items + those[1])
    counts = np.bincount(rows[0][kept], minlength=len(these[0]) - 1)
    return np.append(0, np.cumsum(counts)), these[1][kept]


def _select(pairs: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indptr, items = pairs
    lengths = np.diff(indptr)[rows]
    return np.append(0, np.cumsum(lengths)), items[order.ranges(indptr[rows], lengths)]


def best_epoch(curve: list[dict[str, Any]]) -> int:
    """The epoch with the best validation NDCG, the first of equals; 0 where none was scored, or all of them with 0."""
    scored = [row for row in curve if row.get("ndcg")]
    return max(scored, key=lambda row: (row["ndcg"], -row["epoch"]))["epoch"] if scored else 0


def given_up(curve: list[dict[str, Any]], patience: int) -> bool:
    """Whether the last ``patience`` epochs brought nothing better."""
    return bool(curve) and curve[-1]["epoch"] - best_epoch(curve) >= patience
