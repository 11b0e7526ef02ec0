"""Validation's scores by plain loops, its sets by hand."""

from __future__ import annotations

import dataclasses

import few
import numpy as np
import pytest
from ranks import on_ranks

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.training.events import Events
from sparkrec.training.plan import Question
from sparkrec.training.validation import Validation, difference, distinct_pairs

pytestmark = pytest.mark.unit

TYPES = ("view", "click", "cart", "purchase")


def held_out(rank=0, size=1):
    """The few, with events of four types in turn; the last one of each user is held out, of some the last three."""
    found = few.events(rank, size)
    number = np.arange(len(found.items)) - found.starts[found.owner]
    left = found.lengths[found.owner] - number
    held = left <= np.where(found.users % 3 == 0, 3, 1)[found.owner]
    codes = np.asarray([c.EVENT_TYPES.index(name) for name in TYPES], np.int8)
    return dataclasses.replace(found, types=codes[(number + found.users[found.owner]) % 4], validation=held, stars=None)


def by_loops(weights, question, max_history):
    """Recall and NDCG, mean over users: histories and what was met from what is not held out, and from nothing else."""
    which, scores = held_out(), []
    content = np.split(few.FEATURES.features, few.FEATURES.ends[:-1])
    items = np.asarray(
        [
            weights["item_id"][i] + (weights["item_feature"][f].mean(axis=0) if len(f) else 0)
            for i, f in enumerate(content)
        ]
    )
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    for user, start, end in zip(which.users, which.starts, which.ends, strict=True):
        events = [(which.items[e], c.EVENT_TYPES[which.types[e]], which.validation[e]) for e in range(start, end)]
        met = {item for item, kind, held in events if not held and kind in question.seen}
        asked = {item for item, kind, held in events if held and kind in question.asked} - met
        if not asked:
            continue
        history = [item for item, _, held in events if not held][-max_history:]
        vector = weights["user_id"][user]
        if history:
            vector = (
                vector + weights["history_gate"] * weights["history_item"][history].sum(axis=0) / len(history) ** 0.5
            )
        best = sorted(set(range(len(items))) - met, key=lambda item: -(items[item] @ vector))[:20]
        hits = [1 / np.log2(place + 2) for place, item in enumerate(best) if item in asked]
        ideal = sum(1 / np.log2(place + 2) for place in range(len(asked)))
        scores.append((len(hits) / len(asked), sum(hits) / ideal))
    return len(scores), np.mean(scores, axis=0)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(
    "question", [Question(), Question(("purchase",), ("purchase",)), Question(TYPES[2:], ())], ids=str
)
def test_scores_are_those_of_plain_loops(question, ranks):
    """Users see histories without what is held out, and the newest of it; wherever the rows of users and items lie."""
    config = TwoTower.model_validate(
        {"width": 4, "max_history": 3, "event_types": False, "ranks": ranks, "placement": few.everywhere("mixed")}
    )

    def rank(collective):
        trainer, _ = few.make(config, collective)
        validation = Validation(held_out(collective.rank, ranks), trainer, question)
        return few.variables(trainer), validation.users, validation.score()

    for weights, users, score in on_ranks(ranks, rank):
        count, (recall, ndcg) = by_loops({name: np.float64(x) for name, x in weights.items()}, question, 3)
        assert users == count > 0
        assert 0 < score["ndcg"] < 1
        assert (score["recall"], score["ndcg"]) == pytest.approx((recall, ndcg), rel=1e-6)


def test_a_sample_of_users_is_asked():
    config = TwoTower.model_validate({"width": 4, "validation_users": 8, "ranks": 2})

    def rank(collective):
        trainer, _ = few.make(config, collective)
        return Validation(held_out(collective.rank, 2), trainer, Question()).users

    first, second = on_ranks(2, rank)
    assert first == second
    assert 0 < first < 20


def test_what_was_met_before_is_not_asked_for():
    n = 6
    events = Events(
        np.asarray([4, 8], np.int32), np.asarray([4, n]), np.asarray([2, 1, 2, 5, 1, 1], np.int32),
        np.zeros(n, np.int8), np.zeros(n, bool),
    )  # fmt: skip
    indptr, items = distinct_pairs(events)
    assert (indptr.tolist(), items.tolist()) == ([0, 3, 4], [1, 2, 5, 1])
    asked = np.asarray([0, 2, 4]), np.asarray([2, 3, 1, 0], np.int32)
    left, rest = difference(asked, (indptr, items), 6)
    assert (left.tolist(), rest.tolist()) == ([0, 1, 2], [3, 0])
