import pytest

from sparkrec.clean import parsing

pytestmark = pytest.mark.spark


def _parse(spark, parse, texts):
    from pyspark.sql import functions as F

    frame = spark.createDataFrame([(i, text) for i, text in enumerate(texts)], "i int, text string")
    return [row[0] for row in frame.orderBy("i").select(parse(F.col("text"))).collect()]


def test_numbers_are_decimal_text_and_nothing_else(spark):
    texts = ["3", " -4.50 ", "+.5", "1e3", "7.", "", None, "abc", "NaN", "Infinity", "1d", "0x10", "1,5", "1e999"]
    expected = [3.0, -4.5, 0.5, 1000.0, 7.0] + [None] * 9
    assert _parse(spark, parsing.number, texts) == expected


def test_timestamps_are_iso_and_utc(spark):
    from pyspark.sql import functions as F

    texts = [
        "2011-12-09 12:50:00", "2011-12-09T12:50:00Z", "2011-12-09T14:50:00+02:00", "2011-12-09", "2011-12-09T12:50",
        "12:50", "2011", "2011-02-30 10:00:00", "2011-13-01", "yesterday", "1323435000", "", None,
        "9999-12-31", "9999-12-31T23:00:00-05:00", "0000-01-01",  # no day of Python's, or none that has a next one
        "2011-12-09T12:50Z", "2011-12-09 14:50+02:00", "\t2011-12-09T12:50:00Z\xa0",
    ]  # fmt: skip
    noon = 1323435000  # 2011-12-09 12:50:00 UTC, by `date -u -d`
    midnight = noon - 12 * 3600 - 50 * 60
    expected = [noon, noon, noon, midnight, noon] + [None] * 11 + [noon] * 3
    assert _parse(spark, lambda text: F.unix_seconds(parsing.timestamp(text)), texts) == expected


def test_paths_are_split_and_trimmed(spark):
    texts = ["Home > Kitchen>Mugs", " Home ", ">", "", None]
    assert _parse(spark, parsing.path, texts) == [["Home", "Kitchen", "Mugs"], ["Home"], None, None, None]
