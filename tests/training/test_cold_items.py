"""Items that nobody has met are placed without their id rows, which were negatives only, where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from few import FEATURES, SIZES, everywhere, make
from ranks import on_ranks

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import exported
from sparkrec.retrieval import embed
from sparkrec.training.export import export

pytestmark = pytest.mark.workers

#: Item 3 has no features; nobody meets these.
MET = ~np.isin(np.arange(SIZES.items), [3, 4, 17, 29])
FEATURES_OF = np.split(FEATURES.features, FEATURES.ends[:-1])


def expected(ids, features, alone):
    """g of every item, one at a time."""
    rows = []
    for item, own in enumerate(FEATURES_OF):
        content = features[own].mean(axis=0) if len(own) else np.zeros(4)
        rows.append(content + (0 if alone and len(own) and not MET[item] else 1) * ids[item])
    return np.asarray(rows) / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("placement", ["replicated_dense", "sharded"])
@pytest.mark.parametrize("how", [{"id_dropout": 0.3}, {"new_items_by_features": True}, {}], ids=str)
def test_they_are_served_by_their_features_alone_if_asked(tmp_path, placement, how):
    """Each rank knows its own users' events only: what one has not met, the other may have."""
    config = TwoTower(width=4, ranks=2, **how, placement=everywhere(placement))

    def rank(collective):
        trainer, loader = make(config, collective)
        ids, features = (
            np.concatenate([collective.allgather(rows) for _, rows in trainer.table_blocks(name)])
            for name in ("item_id", "item_feature")
        )
        met = loader.events.items
        assert len(set(met)) < SIZES.items - 1
        trainer.meet(met[MET[met]])
        own, vectors = trainer.own_items()
        assert len(own) == SIZES.items / 2, "no rank holds more than its share"
        found = collective.allgather(vectors)[np.argsort(collective.allgather(own))]
        export(trainer, tmp_path / "model", {})
        return ids, features, found

    ids, features, found = on_ranks(2, rank)[0]
    wanted = expected(ids, features, alone=bool(how))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    model = exported.load(tmp_path / "model")
    np.testing.assert_allclose(model.item_vectors, wanted, atol=1e-6)
    lengths = np.asarray([len(own) for own in FEATURES_OF])
    embedded = embed.item_vectors(model, np.arange(SIZES.items), lengths, FEATURES.features)
    np.testing.assert_allclose(embedded, wanted, atol=1e-6)
