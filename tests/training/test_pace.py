"""How fast, and how long yet, by a clock that is told the time."""

from __future__ import annotations

import time

import pytest

from sparkrec.training.pace import Pace

pytestmark = pytest.mark.unit


def test_what_was_done_before_a_stop_counts_for_nothing(monkeypatch):
    """Gone on with at step 90 with 9,000 examples; ten seconds later 5 steps with 500 examples more are done."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace, fresh = Pace(90, 9000.0), Pace()
    now[0] += 10
    assert pace.rate(9500.0) == pytest.approx(50)
    assert pace.seconds_left(95, 100) == pytest.approx(200)
    assert fresh.rate(500.0) == pytest.approx(50)
    assert fresh.seconds_left(5, 100) == pytest.approx(200)
    assert pace.seconds_left(90, 100) == pytest.approx(1000), "none is done yet: at least so long a step"
