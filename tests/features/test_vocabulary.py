import random

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.features import vocabulary

pytestmark = pytest.mark.spark
TABLE = schemas.VOCABULARY_ITEMS


def _found(spark, ids):
    """ids: {id: (count, first seen in seconds or None)}"""
    rows = [(name, count, first) for name, (count, first) in ids.items()]
    return spark.createDataFrame(rows, "item_id string, count long, at long").selectExpr(
        "item_id", "count", "timestamp_seconds(at) AS first_seen", "timestamp_seconds(at) AS last_seen"
    )


def _indices(frame):
    rows = frame.collect()
    assert frame.columns == TABLE.column_names
    assert len({row[c.ITEM_INDEX] for row in rows}) == len(rows)
    return {row[c.ITEM_ID]: row[c.ITEM_INDEX] for row in rows}


def test_order_is_first_seen_then_length_then_id_and_never_seen_last(spark):
    ids = {"10": (1, 5), "9": (1, 5), "b": (1, 5), "zz": (3, 1), "new": (0, None), "a": (0, None)}
    assert _indices(vocabulary.extend(TABLE, None, _found(spark, ids))) == {
        "zz": 0, "9": 1, "b": 2, "10": 3, "a": 4, "new": 5,
    }  # fmt: skip


def test_many_ids_over_many_partitions_agree_with_a_sort(spark):
    draw = random.Random(1)
    ids = {str(draw.randrange(10**6)): (1, draw.choice([None, *range(40)])) for _ in range(3000)}
    found = _found(spark, ids).repartition(7)
    key = {name: (first is None, first or 0, len(name), name) for name, (_, first) in ids.items()}
    expected = {name: i for i, name in enumerate(sorted(ids, key=key.__getitem__))}
    assert _indices(vocabulary.extend(TABLE, None, found)) == expected


def test_old_ids_keep_their_index_and_new_ones_are_appended(spark):
    old = vocabulary.extend(TABLE, None, _found(spark, {"a": (2, 10), "b": (1, 20), "c": (1, 30)})).localCheckpoint()
    now = {"c": (5, 1), "d": (1, 0), "a": (2, 10), "e": (0, None)}
    grown = vocabulary.extend(TABLE, old, _found(spark, now)).localCheckpoint()
    assert _indices(grown) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    counts = {row[c.ITEM_ID]: (row[c.COUNT], row[c.FIRST_SEEN]) for row in grown.collect()}
    assert counts["b"] == (0, None)
    assert counts["c"][0] == 5
    again = vocabulary.extend(TABLE, grown, _found(spark, now))
    assert sorted(again.collect()) == sorted(grown.collect())


def test_an_index_that_does_not_fit_is_an_error(spark):
    old = spark.createDataFrame([("a", 2**31 - 2, 1, None, None)], TABLE.struct())
    assert max(_indices(vocabulary.extend(TABLE, old, _found(spark, {"b": (1, 1)}))).values()) == 2**31 - 1
    with pytest.raises(DataError, match="item_id would need 2,147,483,649 indices"):
        vocabulary.extend(TABLE, old, _found(spark, {"b": (1, 1), "c": (1, 1)}))
