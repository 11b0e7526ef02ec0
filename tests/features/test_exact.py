"""Sums that do not depend on order, against Python's fractions."""

import random
from fractions import Fraction

import pytest
from pyspark.sql import functions as F

from sparkrec.features import exact

pytestmark = pytest.mark.spark
CHANCE = random.Random(1)
VALUES = [round(CHANCE.uniform(-2, 3) * 10 ** CHANCE.randint(0, 9), 6) for _ in range(400)] + [None, 0.1, 0.2, 1e12]


def test_sums_of_sums_in_any_order(spark):
    found = set()
    for order in (VALUES, sorted(VALUES, key=lambda x: (x is None, x)), VALUES[::-1]):
        frame = spark.createDataFrame([(n % 7, value) for n, value in enumerate(order)], "part int, x double")
        parts = frame.groupBy("part").agg(exact.sum_of(F.col("x")).alias("s"))
        found.add(parts.agg(exact.total(exact.fold("s"))).head()[0])
    expected = sum(Fraction(str(value)) for value in VALUES if value is not None)
    assert len(found) == 1
    assert found.pop() == pytest.approx(float(expected), rel=1e-15)


def test_of_nothing_is_null(spark):
    frame = spark.createDataFrame([(None,)], "x double")
    assert frame.agg(exact.total(exact.sum_of(F.col("x")))).head()[0] is None
    cents = spark.createDataFrame([(0.1,), (0.2,), (20.37,)], "x double")
    assert cents.agg(exact.total(exact.sum_of(F.col("x")))).head()[0] == 20.67
