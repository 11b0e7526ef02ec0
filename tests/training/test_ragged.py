"""Rows that cannot be shared out evenly: no rank waits for ever, all take the same steps, and learn what one learns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from small import plan_of, train

from sparkrec import columns as c
from sparkrec.models.two_tower import exported

pytestmark = pytest.mark.workers

#: Events of each user: a giant, users of one event and of none, and of two.
LENGTHS = [300, 1, 0, 2]


def sequences() -> pa.Table:
    """One row group holds everything, so that of several ranks one reads and the others have nothing to read."""
    rng = np.random.default_rng(4)
    walks = [rng.integers(20, size=length).tolist() for length in LENGTHS]
    return pa.table(
        {
            c.USER_INDEX: pa.array(range(len(walks)), pa.int32()),
            c.CHUNK: pa.array([0] * len(walks), pa.int32()),
            c.ITEM_INDEX: pa.array(walks, pa.list_(pa.int32())),
            c.EVENT_TYPE: pa.array([[0] * len(walk) for walk in walks], pa.list_(pa.int8())),
            c.VALIDATION: pa.array([[False] * len(walk) for walk in walks], pa.list_(pa.bool_())),
        }
    )


@pytest.mark.parametrize("mode", ["user", "position"])
@pytest.mark.parametrize("ranks", [2, 5])
def test_one_giant_row_group_and_ranks_without_any(tmp_path, mode, ranks):
    settings = {"mode": mode, "batch": 2, "history_keep": 0.1, "epochs": 2, "placement": {"item_id": "sharded"}}
    results = {}
    for size in (1, ranks):
        plan = plan_of(tmp_path / str(size), sequences(), 20, ranks=size, **settings)
        assert sum(bool(pieces) for pieces in plan.sequences.ranks) == 1
        results[size] = train(plan)[0], exported.load(plan.path("model")).weights
    (alone, whole), (together, shared) = results[1], results[ranks]
    assert [rank["users"] for rank in together["ranks"]] == [len(range(r, len(LENGTHS), ranks)) for r in range(ranks)]
    losses = [[row["loss"] for row in result["curve"]] for result in (alone, together)]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    for name, weight in whole.items():
        np.testing.assert_allclose(weight, shared[name], atol=1e-5, err_msg=name)
