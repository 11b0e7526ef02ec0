import pytest

from sparkrec.clean.accounting import Tally, conserve
from sparkrec.errors import DataError

pytestmark = pytest.mark.unit

BY_RULE = [
    {"table": "bronze.events", "rule": "bad_price", "expects": "", "first": 10, "all": 60, "example": "…"},
    {"table": "bronze.events", "rule": "missing_user", "expects": "", "first": 50, "all": 50,
     "example": "a.csv, line 7: user_id is missing; expected a user id"},
]  # fmt: skip


def test_too_many_refusals_name_the_rule_that_refused_most():
    tally = Tally("bronze.events", rows=120, distinct=100, refused=60, by_rule=BY_RULE, facts={})
    tally.stop_above(0.6)
    with pytest.raises(DataError) as error:
        tally.stop_above(0.59)
    text = str(error.value)
    for part in ("60 of 100", "60.0%", "59%", "'missing_user': 50 rows", "a.csv, line 7", "clean.max_refused"):
        assert part in text


def test_no_rows_are_not_too_many():
    Tally("bronze.items", 0, 0, 0, [], {}).stop_above(0.01)


def test_a_lost_row_is_a_defect():
    conserve("bronze.events", 5, 5)
    with pytest.raises(RuntimeError, match=r"bronze\.events are not conserved: 5 came in, and 4"):
        conserve("bronze.events", 5, 4)
