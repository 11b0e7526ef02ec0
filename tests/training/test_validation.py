"""Validation's scores by plain loops, its sets by hand."""

from __future__ import annotations

import dataclasses

import few
import numpy as np
import pytest
from ranks import on_ranks

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.models.two_tower import towers
from sparkrec.training import validation
from sparkrec.training.events import Events
from sparkrec.training.plan import Question
from sparkrec.training.validation import Validation, difference, distinct_pairs

pytestmark = pytest.mark.unit

TYPES = ("view", "click", "cart", "purchase")


#: For how long items count as seen: of every third for ever.
DAYS = np.where(np.arange(few.SIZES.items) % 3, 1 + np.arange(few.SIZES.items) % 4, np.inf)


def ages(which):
    """An event a day, the newest yesterday."""
    return which.lengths[which.owner] - (np.arange(len(which.items)) - which.starts[which.owner])


def held_out(rank=0, size=1, forgets=False):
    """The few, with events of four types in turn; the last one of each user is held out, of some the last three."""
    found = few.events(rank, size)
    number = np.arange(len(found.items)) - found.starts[found.owner]
    left = found.lengths[found.owner] - number
    held = left <= np.where(found.users % 3 == 0, 3, 1)[found.owner]
    codes = np.asarray([c.EVENT_TYPES.index(name) for name in TYPES], np.int8)
    types, forgotten = codes[(number + found.users[found.owner]) % 4], ages(found) > DAYS[found.items]
    return dataclasses.replace(
        found, types=types, validation=held, stars=None, forgotten=forgotten if forgets else None
    )


def by_loops(weights, question, max_history, forgets):
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
        met = {
            item
            for number, (item, kind, held) in enumerate(events)
            if not held and kind in question.seen and not (forgets and end - start - number > DAYS[item])
        }
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
    ("question", "forgets"),
    [
        (Question(), False), (Question(), True), (Question(("purchase",), ("purchase",)), False),
        (Question(TYPES[2:], ()), False),
    ],
    ids=str,
)  # fmt: skip
def test_scores_are_those_of_plain_loops(question, forgets, ranks):
    """Users see histories without what is held out, and the newest of it; wherever the rows of users and items lie.

    What was met so long ago that it is forgotten is offered and asked for, and stays in the history.
    """
    config = TwoTower.model_validate(
        {"width": 4, "max_history": 3, "event_types": False, "ranks": ranks, "placement": few.everywhere("mixed")}
    )

    def rank(collective):
        trainer, _ = few.make(config, collective)
        validation = Validation(held_out(collective.rank, ranks, forgets), trainer, question)
        return few.variables(trainer), validation.users, validation.score()

    for weights, users, score in on_ranks(ranks, rank):
        count, (recall, ndcg) = by_loops({name: np.float64(x) for name, x in weights.items()}, question, 3, forgets)
        assert users == count > 0
        assert 0 < score["ndcg"] < 1
        assert (score["recall"], score["ndcg"]) == pytest.approx((recall, ndcg), rel=1e-6)


@pytest.mark.parametrize("history", ["none", "attention", "gru"])
def test_no_rank_holds_more_than_its_share_of_the_items(history, monkeypatch):
    """Not even for encoders that read the items' vectors; and the scores are those of one rank that holds all."""
    packed, read = [], []
    pack, of_users = validation.pack, towers.user_vectors
    monkeypatch.setattr(validation, "pack", lambda vectors: packed.append(len(vectors)) or pack(vectors))
    monkeypatch.setattr(towers, "user_vectors", lambda *given: read.append(len(given[-1])) or of_users(*given))
    scores = []
    for ranks in (1, 3):
        config = TwoTower.model_validate(
            {"width": 4, "max_history": 2, "history": history, "item_mlp": True, "ranks": ranks}
        )

        def rank(collective, config=config, ranks=ranks):
            trainer, _ = few.make(config, collective)
            asked = held_out(collective.rank, ranks)
            return Validation(asked, trainer, Question()).score()

        scores += on_ranks(ranks, rank)
    assert packed == [30, 10, 10, 10]
    assert max(read) < few.SIZES.items if history == "none" else 0 < min(read) <= max(read) < 30
    for score in scores:
        assert score == pytest.approx(scores[0], rel=1e-6)


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
