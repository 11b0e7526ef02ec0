import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.config import Split
from sparkrec.errors import DataError
from sparkrec.evaluation import splits

START = dt.datetime(2020, 1, 1)


@pytest.mark.unit
def test_borders_by_hand():
    at = splits.borders(Split(test_days=7, gap_days=1, validation_days=2.5), dt.datetime(2020, 2, 1))
    assert at.end == dt.datetime(2020, 2, 1)
    assert at.test == dt.datetime(2020, 1, 25)
    assert at.as_of == dt.datetime(2020, 1, 24)
    assert at.validation == dt.datetime(2020, 1, 21, 12)


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["leave_one_out", "given", "none"])
def test_other_kinds_do_not_cut_by_time(kind):
    at = splits.borders(Split(kind=kind), START)
    assert set(vars(at).values()) == {START}


@pytest.mark.unit
@given(st.floats(0.1, 30), st.floats(0, 10), st.floats(0, 30))
def test_borders_are_in_order(test_days, gap_days, validation_days):
    at = splits.borders(Split(test_days=test_days, gap_days=gap_days, validation_days=validation_days), START)
    assert at.validation <= at.as_of <= at.test < at.end


@pytest.mark.unit
def test_the_end_of_a_day_is_the_next_midnight():
    assert splits.midnight_after(dt.date(2020, 2, 29)) == dt.datetime(2020, 3, 1)
    assert splits.midnight_after(dt.datetime(2020, 12, 31)) == dt.datetime(2021, 1, 1)
    assert splits.midnight_after(dt.datetime(2020, 12, 31, 23, 59, 59)) == dt.datetime(2021, 1, 1)


@pytest.mark.unit
def test_nothing_to_train_on_says_what_to_change():
    at = splits.borders(Split(test_days=3), dt.datetime(2020, 1, 4))
    splits.require_training_events({splits.TRAIN: 1}, Split(test_days=3), at)
    with pytest.raises(DataError, match=r"before 2020-01-01 00:00 UTC.*2020-01-04 00:00.*split\.test_days"):
        splits.require_training_events({}, Split(test_days=3), at)


@pytest.fixture(scope="module")
def log():
    """Random events: (i, user, item, second, split), many of them in the same second."""
    draw = random.Random(3)
    given = ("train", "test")
    return [
        (i, f"u{draw.randrange(12)}", f"i{draw.randrange(30)}", draw.randrange(40) * 7200, draw.choice(given))
        for i in range(250)
    ] + [(900, "two", "i1", 5, None), (901, "two", "i2", 6, None), (902, "three", "i1", 5, None),
         (903, "three", "i1", 5, None), (904, "three", "i1", 5, "test")]  # fmt: skip


def _assign(spark, log, split, at):
    frame = spark.createDataFrame(log, "i int, user_id string, item_id string, at long, split string").selectExpr(
        "*", "timestamp_seconds(at + 1577836800) AS event_time", "CAST(1000 - i AS BIGINT) AS line",
        "CAST(i AS STRING) AS event_id",
    )  # fmt: skip
    return {row["i"]: row[splits.PART] for row in splits.assign(frame, split, at).collect()}


@pytest.mark.spark
def test_time_agrees_with_a_loop(spark, log):
    split = Split(test_days=1, gap_days=0.5, validation_days=0.75)
    at = splits.borders(split, START + dt.timedelta(days=3))
    hours = {"validation": 24 * 1.5 - 18, "as_of": 24 * 1.5, "test": 48, "end": 72}

    def part(second):
        hour = second / 3600
        if hour < hours["validation"]:
            return splits.TRAIN
        if hour < hours["as_of"]:
            return splits.VALIDATION
        return splits.TEST if hours["test"] <= hour < hours["end"] else splits.UNUSED

    expected = {i: part(second) for i, _, _, second, _ in log}
    assert set(expected.values()) == {splits.TRAIN, splits.VALIDATION, splits.TEST, splits.UNUSED}
    assert _assign(spark, log, split, at) == expected


@pytest.mark.spark
def test_leave_one_out_agrees_with_a_loop(spark, log):
    expected = {}
    for user in {row[1] for row in log}:
        # the same second: by line, which runs against i here
        mine = sorted((row for row in log if row[1] == user), key=lambda row: (row[3], 1000 - row[0]))
        for row in mine:
            expected[row[0]] = splits.TRAIN
        if len(mine) >= 3:
            expected[mine[-1][0]], expected[mine[-2][0]] = splits.TEST, splits.VALIDATION
    split = Split(kind="leave_one_out")
    found = _assign(spark, log, split, splits.borders(split, START))
    assert found == expected
    assert (found[900], found[901]) == (splits.TRAIN, splits.TRAIN)
    assert (found[902], found[903], found[904]) == (splits.TEST, splits.VALIDATION, splits.TRAIN)


@pytest.mark.spark
def test_given_keeps_the_test_and_draws_validation_by_pair(spark):
    pairs = [(i, f"u{i % 50}", f"i{i // 50}", i, "test" if i % 10 == 0 else "train") for i in range(4000)]
    repeats = [(i + 10_000, user, item, at + 99, part) for i, user, item, at, part in pairs[:500]]
    at = splits.borders(Split(kind="given"), START)
    tenth = _assign(spark, pairs + repeats, Split(kind="given", validation_fraction=0.1), at)
    third = _assign(spark, pairs + repeats, Split(kind="given", validation_fraction=0.3), at)
    none = _assign(spark, pairs + repeats, Split(kind="given", validation_fraction=0), at)

    assert {i for i, part in tenth.items() if part == splits.TEST} == {
        row[0] for row in pairs + repeats if row[4] == "test"
    }
    validation = {i for i, part in tenth.items() if part == splits.VALIDATION}
    # 3,600 draws at .1: three standard deviations are 54.
    assert abs(len({i for i in validation if i < 10_000}) - 360) < 54
    assert all((i in validation) == (i + 10_000 in validation) for i in range(500))
    assert validation < {i for i, part in third.items() if part == splits.VALIDATION}
    assert set(none.values()) == {splits.TRAIN, splits.TEST}


@pytest.mark.spark
def test_none_has_no_test(spark, log):
    split = Split(kind="none", validation_fraction=0.3)
    parts = _assign(spark, log, split, splits.borders(split, START))
    assert set(parts.values()) == {splits.TRAIN, splits.VALIDATION}
