"""Rows that hypothesis invents, many for one Spark job."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

#: What a typed column is given besides any text at all.
NASTY = (
    "", " ", "\x00", "\ufeff", "0", "-0", "1e308", "-1e309", "NaN", "Infinity", "1,5", "1.234,50", "1,234",
    "\uff11\uff12",
    "€ 3", "3 kr", "2 dozen", "20%", "9" * 400, "0x1F", "1_000", "null", "true", "[]", "{}", "<b>", "&#x110000;",
    "&amp", "'", '"', "\\", "a\nb", "a\rb", "\u2028", "\u202ex", "e\u0301" * 50, "\U0010ffff", "🦄", "\ud7ff",
    "x" * 5000,
    "0000-00-00", "0000-01-01", "9999-12-31T23:59:59.999999999+14:00", "2024-02-30", "2024-03-31 02:30:00",
    "1970-01-01", "2024-10-27 02:30:00", "2024-06-30 23:59:60", "24:00", "-2024-01-01",
    "9999-12-31", "9999-12-31T23:00:00-05:00", "0001-01-01",
    "2024-01-01T00:00:00+99:99", "now", "1700000000",
)  # fmt: skip
GOOD = {
    "user_id": "u", "item_id": "i", "event_type": "purchase", "event_time": "2024-05-05 12:00:00", "value": "1",
    "price": "2.50", "currency": "EUR", "valid_from": "2024-05-05",
}  # fmt: skip


def _sometimes(anything: st.SearchStrategy[Any], good: str | None, lot: int) -> st.SearchStrategy[Any]:
    return st.just(good) if lot else anything


def rows(names: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Rows of text or null in these columns, the same ones every time: each nasty text in each column, and ``count``
    invented ones.

    Most of the fields are as they should be: else every row would be refused for its first column.
    """
    anything = st.one_of(
        st.none(), st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    )
    # By a number: one_of makes nothing of the same strategy given twice.
    field = {name: st.integers(0, 5).flatmap(partial(_sometimes, anything, GOOD.get(name))) for name in names}
    good = {name: GOOD.get(name) for name in names}
    found = [good | {name: text} for name in names for text in NASTY]

    @settings(max_examples=count, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries(field))
    def collect(row: dict[str, Any]) -> None:
        found.append(row)

    collect()
    return found
