"""Sessions and chains of near repeats against a loop over the rows, and day by day against all at once."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import sessions, silver
from sparkrec.clean.duplicates import BEFORE
from sparkrec.clean.sessions import PREFIX
from sparkrec.config import Clean

pytestmark = pytest.mark.spark

START = 1_700_006_400  # a midnight, UTC
DAY = 86_400
SETTINGS = Clean(near_duplicate_seconds=5, session_gap_minutes=30)
SCHEMA = (
    "event_id string, user_id string, item_id string, event_type string, query string, session_id string, at long, "
    "merged_into string"
)
Row = tuple[str, str, str, str, str | None, str | None, int, None]


def _random_rows() -> list[Row]:
    """Many users, each a small case of its own: pauses around the limits, over midnight, some with a shop's session."""
    chance, rows = random.Random(3), []
    for user in range(150):
        at = START + DAY - chance.choice([30, 2000, 5000])
        for _ in range(chance.randint(1, 12)):
            at += chance.choice([0, 1, 5, 6, 600, 1799, 1800, 1801, DAY])
            own = f"shop {at // 3000}" if chance.random() < 0.2 else None
            item, query = chance.choice([("a", None), ("a", None), ("b", None), (None, "lamp")])
            rows.append((f"e{len(rows):04}", f"u{user}", item, "search" if query else "view", query, own, at, None))
    return rows


def _by_hand(rows: list[Row]) -> dict[str, tuple[str | None, str]]:
    """event → (what it repeats, the first event of its session or the shop's own id)."""
    found: dict[str, tuple[str | None, str]] = {}
    last: dict[Any, tuple[int, str]] = {}
    for event, user, item, kind, query, own, at, _ in sorted(rows, key=lambda row: (row[6], row[0])):
        chain, pause = (user, item, kind, query), (user, "pause")
        head = last[chain][1] if chain in last and at - last[chain][0] <= 5 else event
        last[chain] = (at, head)
        session = own
        if own is None:
            begun = last[pause][1] if pause in last and at - last[pause][0] <= 1800 else event
            last[pause] = (at, begun)
            session = begun
        assert session is not None
        found[event] = (None if head == event else head, session)
    return found


def _frame(spark: Any, rows: list[Row]) -> Any:
    time = {c.EVENT_TIME: F.timestamp_seconds("at"), c.EVENT_DATE: F.timestamp_seconds("at").cast("date")}
    return spark.createDataFrame(rows, SCHEMA).withColumns(time)


@pytest.fixture(scope="module")
def marked(spark: Any) -> tuple[list[Row], Any]:
    rows = _random_rows()
    return rows, silver.linked(_frame(spark, rows), None, SETTINGS).cache()


def test_sessions_and_chains_are_those_of_a_loop(marked: Any) -> None:
    rows, frame = marked
    found = {row[c.EVENT_ID]: row for row in frame.collect()}
    expected = _by_hand(rows)
    assert {event: row[c.MERGED_INTO] for event, row in found.items()} == {e: head for e, (head, _) in expected.items()}
    of_session: dict[str, set[str]] = {}
    for event, (_, session) in expected.items():
        of_session.setdefault(session if session.startswith("shop") else f"{PREFIX}{session}", set()).add(
            found[event][c.SESSION_ID]
        )
    assert all(len(ids) == 1 for ids in of_session.values()), "one id a session"
    gaps = [ids.pop() for session, ids in of_session.items() if session.startswith(PREFIX)]
    assert len(set(gaps)) == len(gaps), "one session an id"
    assert all(gap.startswith(PREFIX) for gap in gaps)
    over_midnight = {
        e for e, (_, s) in expected.items() if s in found and found[s][c.EVENT_DATE] != found[e][c.EVENT_DATE]
    }
    assert over_midnight, "worth testing"


def test_a_day_after_the_other_is_as_all_at_once(marked: Any) -> None:
    _, whole = marked
    days = sorted(row[0] for row in whole.select(c.EVENT_DATE).distinct().collect())
    again = []
    for day in days:
        context = sessions.before(whole, {day}, 1800)
        bare = whole.where(F.col(c.EVENT_DATE) == day).withColumns({c.MERGED_INTO: F.lit(None).cast("string")})
        again.append(silver.linked(bare, context, SETTINGS))
    columns = (c.EVENT_ID, c.SESSION_ID, c.MERGED_INTO)
    found = sorted(tuple(row) for part in again for row in part.select(*columns).collect())
    assert found == sorted(tuple(row) for row in whole.select(*columns).collect())


def test_the_shops_own_sessions_stay_and_the_gap_can_be_switched_off(spark: Any) -> None:
    rows: list[Row] = [("e1", "u", "a", "view", None, "s", 0, None), ("e2", "u", "a", "view", None, "gap-1", 9, None)]
    frame = _frame(spark, rows).withColumn(BEFORE, F.lit(False))
    assert [row[c.SESSION_ID] for row in sessions.mark(frame, None).orderBy("at").collect()] == ["s", None]


def test_days_that_hang_together(spark: Any) -> None:
    """u: an unbroken evening, a whole day without a pause, a morning; v: a pause at midnight; w has nothing new."""

    def day(number: int) -> dt.date:
        return dt.datetime.fromtimestamp(START + number * DAY, dt.UTC).date()

    times = {
        "u": [DAY - 60, *range(DAY + 60, 2 * DAY, 1700), 2 * DAY + 60, 2 * DAY + 5000],
        "v": [DAY - 60, DAY + 1800],
        "w": [DAY - 1, DAY, 3 * DAY - 1, 3 * DAY],
    }
    rows = [
        (f"{u}{i}", u, "a", "view", None, None, START + at, None)
        for u, all_ in times.items()
        for i, at in enumerate(all_)
    ]
    events = _frame(spark, rows)
    for users, expected in {"uv": {0, 1, 2}, "v": {0}, "vw": {0, 1}}.items():
        changed = events.where(F.col(c.USER_ID).isin(*users) & (F.col(c.EVENT_DATE) == day(0)))
        found = sessions.linked_days(changed.select(c.USER_ID, c.EVENT_DATE).distinct(), events, {day(0)}, 1800)
        assert found == {day(n) for n in expected}, users
