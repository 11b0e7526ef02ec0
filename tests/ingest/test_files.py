import datetime as dt
import re

import pytest

from sparkrec.errors import DataError
from sparkrec.ingest.files import File, regex, up_to

pytestmark = pytest.mark.unit

PATTERN = "events/{date}/*.csv"


def files(*days: str) -> list[File]:
    return [File(f"file:/logs/events/{day}/a.csv", f"events/{day}/a.csv", 1) for day in days]


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "b/a.csv", False),
        ("*.csv", "acsv", False),
        ("{train,test}.txt", "test.txt", True),
        ("{train,test}.txt", "valid.txt", False),
        ("part-?.json", "part-1.json", True),
        ("part-?.json", "part-12.json", False),
        ("[ab].csv", "b.csv", True),
        (PATTERN, "events/2026-01-31/x+y.csv", True),
        (PATTERN, "events/january/x.csv", False),
    ],
)
def test_regex_of_a_glob(pattern: str, name: str, matches: bool) -> None:
    assert bool(re.match(regex(pattern), name)) is matches


def test_files_up_to_a_date() -> None:
    found = files("2026-01-01", "2026-01-02", "2026-01-04")
    assert up_to(found, PATTERN, dt.date(2026, 1, 2), set()) == found[:2]
    assert up_to(found, PATTERN, None, set()) == found
    assert up_to(found, "events/*/*.csv", dt.date(2026, 1, 1), set()) == found, "no {date}: the date says nothing"
    assert up_to(found, "{events,items}/{date}/[ab].csv", dt.date(2026, 1, 2), set()) == found[:2]


def test_a_date_without_data_names_the_nearest() -> None:
    found = files("2026-01-01", "2026-01-02", "2026-01-04", "2026-01-05")
    with pytest.raises(DataError, match=r"events/2026-01-03/\*\.csv.*2026-01-02 and 2026-01-04\."):
        up_to(found, PATTERN, dt.date(2026, 1, 3), set())
    with pytest.raises(DataError, match=r"none"):
        up_to([], PATTERN, dt.date(2026, 1, 3), set())
    # The file was read, and then moved away: bronze has it.
    assert up_to(found, PATTERN, dt.date(2026, 1, 3), {"events/2026-01-03/a.csv"}) == found[:2]
    # A catalogue need not change every day.
    assert up_to(found, PATTERN, dt.date(2026, 1, 3), set(), must_have_date=False) == found[:2]


def test_what_spark_would_take_for_a_glob_is_escaped() -> None:
    assert File("file:/a[1]{x}*.csv", "", 0).for_spark == r"file:/a\[1\]\{x\}\*.csv"
