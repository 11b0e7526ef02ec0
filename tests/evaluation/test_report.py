"""The report and its plots, rendered from a small example."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparkrec.evaluation import bootstrap, console, metrics, plots, records, report
from sparkrec.evaluation.comparison import Comparison, Difference, Measure
from sparkrec.evaluation.outcomes import Totals
from sparkrec.evaluation.report import Report

pytestmark = pytest.mark.unit


def record(stage, counts, **details):
    return {"stage": stage, "seconds": 1.0, "counts": counts, "details": details}


def example(**changes):
    """Three models on two metrics; two-tower ahead of popularity, level with ALS."""
    values = {"popularity": 0.1, "als": 0.26, "two_tower": 0.27}
    measures = [
        Measure(model, metric, 20, segment, value, value - 0.01, value + 0.01, n)
        for model, value in values.items()
        for metric in ("recall", "ndcg")
        for segment, n in (("all", 1200), ("new", 200), ("heavy", 1000))
    ]
    level = {"als", "two_tower"}
    differences = []
    for a in values:
        for b in values:
            gap = values[a] - values[b]
            words = "inside the noise" if {a, b} == level else "ahead" if gap > 0 else "behind"
            if a != b:
                differences.append(Difference(a, b, "ndcg", 20, gap, gap - 0.02, gap + 0.02, words, 456))
    rule = {
        "table": "bronze.events",
        "rule": "price",
        "severity": "quarantine",
        "expects": "a price",
        "first": 3,
        "all": 4,
        "example": "f, line 2",
    }
    mended = rule | {"rule": "comma", "severity": "repair", "first": 0, "all": 1234, "example": "f, line 7"}
    quiet = rule | {"rule": "rating", "all": 0, "first": 0, "expects": "stars", "example": None}
    reasons = [{"reason": "around_the_clock", "users": 5, "days": 9}]
    suspects = {"users": 6, "days": 12, "events": 4321, "reasons": reasons}
    person = {
        "user": "<b>u1</b>",
        "history": [{"name": "Red mug", "event": "view"}],
        "after": [{"name": "Blue mug", "event": "purchase"}],
        "after_all": 9,
        "lists": {
            m: [{"name": "Blue mug" if m == "als" else "Tea towel", "reason": "popular", "hit": m == "als"}]
            for m in values
        },
    }
    clean = {"rows_in": 12345, "kept": 12000, "duplicates": 300, "quarantined": 45}
    curve = [{"phase": "choose", "epoch": n, "loss": 5 / n, "ndcg": 0.1 * n, "recall": 0.1 * n} for n in (1, 2, 3)]
    ranks = [{"rank": n, "events": 5000 + n, "users": 100, "hash": "ab"} for n in (0, 1)]
    fields = {
        "title": "demo",
        "run_id": "demo-all",
        "primary": ("ndcg", 20),
        "models": tuple(values),
        "measures": measures,
        "differences": differences,
        "test_users": 1200,
        "test_pairs": 3456,
        "test_pairs_unknown": 78,
        "breadth": [(m, name, 20, 0.4) for m in values for name in ("coverage", "gini")],
        "exposure": [("the log", [n / 100 for n in range(101)]), ("als", [(n / 100) ** 0.5 for n in range(101)])],
        "samples": [person],
        "records": [
            record("clean", clean, rules=[rule, mended, quiet], suspects=suspects, facts={"countries": 38}),
            record("featurize", {"users": 10}, split={"kind": "time", "test": "2026-01-01", "end": "2026-01-08"}),
            record("train_two_tower", {}, two_tower={"curve": curve, "ranks": ranks}),
        ],
        "settings": {"name": "demo", "recommend": {"exclude_seen": ["view"]}, "evaluate": {"bootstrap": 1000}},
        "versions": {"metrics": 3},
    }
    return Report(**(fields | changes))


@pytest.fixture(scope="module")
def page():
    return report.render(example())


def test_headline_says_who_wins_by_how_much_and_what_is_noise():
    text = report.headline(example())
    assert text.startswith("Two-tower has the best lists: NDCG@20 is 0.2700 (95\u00a0% interval 0.2600 to 0.2800).")
    assert "That is 170% above Most popular (0.1000)." in text
    assert text.endswith("It is level with ALS (0.2600): the difference is inside the noise.")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (bootstrap.TOO_FEW, "better than ALS (0.2600) and Most popular (0.1000) cannot be told: too few users have"),
        (bootstrap.UNTESTED, "better than ALS (0.2600) and Most popular (0.1000) by more than chance was not tested."),
    ],
)
def test_a_headline_without_evidence_claims_nothing(verdict, words):
    gaps = [replace(d, verdict=verdict, low=None, high=None) for d in example().differences]
    text = report.headline(example(differences=gaps))
    assert words in text
    assert "above" not in text


def test_the_page_says_what_was_not_tested():
    settings = {"recommend": {"exclude_seen": ["view"]}, "evaluate": {"bootstrap": 0}}
    page = report.render(example(settings=settings))
    assert page.count("not tested") + page.count("not\ntested") == 2
    assert "resamples" not in page


def test_the_page_says_whom_it_left_out_and_what_the_search_missed(page):
    plain = " ".join(page.split())
    assert "all 1,200 users of the test part, none left out." in plain
    assert "the same exact search" in plain
    assert "Each of the 3 pairs of models is judged for itself" in plain
    assert "<td>456</td>" in page
    kept = [r for r in example().records if r["stage"] != "featurize"]
    found = {"popularity": {"plan": "…"}, "als for ranker": {"plan": "…", "size": 100, "recall": 0.98765}}
    told = [record("featurize", {"test_users_only_seen": 77}), record("recommend", {}, search=found)]
    other = " ".join(report.render(example(records=[*kept, *told])).split())
    assert "77 others came back" in other
    assert "none left out" not in other
    assert "approximate: of the best items that an exact one finds, it found 98.8% for als for ranker" in other


def test_the_page_needs_nothing_from_outside(page):
    assert not re.search(r"(src|href)=|@import|url\(|<script", page)


def test_the_page_shows_what_was_measured_counted_and_refused(page):
    measured = ("0.2700", "0.2600 – 0.2800", "inside the noise", "Of the 3,456 items", "78 were not known", "40.0 %")
    counted = ("12,345", "<b>45</b>rows refused", "<td>countries</td><td>38</td>", "metrics version 3", "2 processes")
    plain = " ".join(page.split())
    for text in (*measured, *counted, "5,001 events", "Blue mug ✓", "before 2026-01-01", "first 1 of 9"):
        assert text in plain, text


def test_names_from_the_log_are_escaped(page):
    assert "<b>u1</b>" not in page
    assert "&lt;b&gt;u1&lt;/b&gt;" in page


def test_every_plot_is_well_formed(page):
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) == 6  # two metrics, concentration, loss, NDCG, recall
    for svg in drawn:
        ET.fromstring(svg)


def test_a_run_without_a_test_part_still_has_a_page():
    empty = report.render(example(measures=[], differences=[], test_users=0, samples=[], records=[], exposure=[]))
    assert "Nothing was held out" in empty
    assert "Which model has the better lists" not in empty


WARM = {
    "run": "demo-monday", "full": "demo-sunday", "times": 2, "since": 1767225600, "new_users": 321,
    "new_rows": {"user_id": 12, "item_id": 3}, "new_targets": 1234, "replayed_targets": 5678,
    "trainings": [
        {"run": "demo-all", "seconds": 40.0, "ranks": 1, "epochs": 2, "as_of": 1767312000, "value": 0.27},
        {"run": "demo-sunday", "seconds": 160.0, "ranks": 2, "epochs": 9, "as_of": 1767139200, "value": 0.28},
    ],
    "seconds_saved": 120.0, "gain": -0.01, "same_test": False,
}  # fmt: skip


def test_a_warm_start_is_told_with_what_it_saved_and_lost():
    text = report.render(example(warm_start=WARM))
    for words in (
        "run demo-monday", "before 2026-01-01 00:00", "number 2 since the full training demo-sunday",
        "1,234 new targets",
        "5,678 old ones", "It took 40 s and the last full training 160 s: 75% less.",
        "NDCG@20 is 0.2700 against 0.2800: 0.0100 lower.", "on different test parts",
    ):  # fmt: skip
        assert words in " ".join(text.split()), words
    assert "warm start" not in report.render(example())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"same_test": True}, "chance is not ruled out"),
        ({"gain": 0.00001}, "0.2800: the same."),
        ({"trainings": WARM["trainings"][:1]}, "No full training of another run"),
        ({"new_users": 0}, "the model is as it was"),
    ],
)
def test_a_warm_start_says_what_cannot_be_said(changes, words):
    assert words in " ".join(report.render(example(warm_start=WARM | changes)).split())
    without = {name: value for name, value in WARM.items() if name not in ("gain", "same_test")}
    assert "is not known for both" in report.render(example(warm_start=without))


def test_writing_replaces_the_page_whole(tmp_path):
    place = str(tmp_path / "reports" / "run" / "report.html")
    for title in ("first", "second"):
        assert report.write(example(title=title), place) == place
    assert "second: recommendations report" in Path(place).read_text(encoding="utf-8")
    assert [p.name for p in (tmp_path / "reports" / "run").iterdir()] == ["report.html"]


def test_a_bar_is_as_long_as_its_value_and_its_interval_is_drawn():
    svg = ET.fromstring(plots.bars([plots.Bar("a", 0.5), plots.Bar("b", 0.25, 0.2, 0.4)], "t"))
    space = "{http://www.w3.org/2000/svg}" if svg.tag.startswith("{") else ""
    first, second = svg.findall(f"{space}rect")
    assert float(first.get("width")) == pytest.approx(2 * float(second.get("width")), abs=0.2)
    assert len(svg.findall(f"{space}path")) == 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 10, [0, 2, 4, 6, 8, 10]), (0.11, 0.19, [0.12, 0.14, 0.16, 0.18])],
)
def test_ticks_are_round(low, high, expected):
    assert plots.ticks(low, high) == pytest.approx(expected)


def test_ticks_of_epochs_are_whole():
    assert plots.ticks(1, 3, whole=True) == [1, 2, 3]


def test_the_console_shows_models_recommendations_and_where_to_look():
    text = console.summary(example(), "lake/report.html", "sqlite:///x.db")
    assert re.search(r"Two-tower +0.2700 +0.2700 +40.0%", text)
    assert "1. Tea towel  (popular)" in text
    assert "Report: lake/report.html" in text
    assert "mlflow ui --backend-store-uri sqlite:///x.db" in text
    of_server = console.summary(example(), "lake/report.html", "https://me:hunter2@mlflow.example")
    assert "MLflow: https://**********@mlflow.example" in of_server


def test_the_price_of_diversity_is_drawn_and_said():
    assert "What diversity would cost" not in report.render(example())
    points = [{"weight": w, "ndcg": 0.3 - w / 10, "diversity": 0.5 + w, "coverage": 0.25 + w} for w in (0.0, 0.1)]
    confirmed = {"users": 250, "ndcg": 0.2875, "ndcg_before": 0.2912, "diversity": 0.61, "diversity_before": 0.52}
    traded = {"model": "als", "method": "mmr", "users": 500, "points": points, "chosen": 0.1, "confirmed": confirmed}
    settings = {"recommend": {"k": 20, "exclude_seen": ["view"]}, "evaluate": {"bootstrap": 1000}}
    page = report.render(example(tradeoff=traded, settings=settings))
    for text in ("What diversity would cost", "weight 0.1, the largest", "0.2912", "0.2875", "35.0 %", "NDCG@20"):
        assert text in page


def test_the_price_of_calibrated_lists_is_drawn_over_their_miscalibration():
    points = [
        {"weight": w, "ndcg": 0.3 - w, "diversity": 0.5, "coverage": 0.2, "miscalibration": 0.43 - 3 * w}
        for w in (0.0, 0.1)
    ]
    confirmed = {"users": 9, "ndcg": 0.28, "ndcg_before": 0.29, "diversity": 0.6, "diversity_before": 0.5,
                 "miscalibration": 0.1357, "miscalibration_before": 0.4321}  # fmt: skip
    traded = {"model": "als", "method": "calibrated", "kind": "brand", "users": 18, "points": points, "chosen": 0.1,
              "confirmed": confirmed}  # fmt: skip
    settings = {"recommend": {"k": 20, "exclude_seen": ["view"]}, "evaluate": {"bootstrap": 1000}}
    page = report.render(example(tradeoff=traded, settings=settings))
    page = re.sub(r"\s+", " ", page)
    for text in ("What calibrated lists would cost", "over miscalibration", "brands from those", "0.1357", "0.4321"):
        assert text in page


def test_the_ranker_is_told_with_its_orders_and_its_calibration():
    assert "How the ranker learned" not in report.render(example())
    table = [{"rows": 100, "said": 0.01, "happened": 0.02}, {"rows": 100, "said": 0.2, "happened": 0.18}]
    about = {
        "candidates": 5000, "chosen": 321, "users": {"fit": 70, "stop": 10, "held": 20}, "reach": 0.4567,
        "ndcg": {"ranker": 0.2234, "als": 0.1729}, "calibration": table, "importance": {"als_score": 0.61},
    }  # fmt: skip
    records = [*example().records, record("train_ranker", {}, ranker=about)]
    base = example()
    measures = [*base.measures, *[replace(m, model="ranker") for m in base.measures if m.model == "als"]]
    gaps = [replace(d, other="ranker") for d in base.differences if d.other == "als"]
    changes = {
        "measures": measures,
        "differences": [*base.differences, *gaps],
        "records": records,
        "reliability": table[1:],
    }
    page = report.render(example(models=[*base.models, "ranker"], **changes))
    for text in (
        "How the ranker learned",
        "5,000 candidates of 100",
        "45.7 %",
        "0.2234",
        "als score",
        "61 %",
        "test users",
    ):
        assert text in page


def newcomers(n=40):
    """New users after one item: the tower is right for all of them, the most popular item for the first ten."""
    found = np.zeros((n, 2), bool)
    found[:10, 0], found[:, 1] = True, True
    one = np.ones(n, int)
    values = np.concatenate([metrics.table(found[:, [n]], one, (20,)) for n in range(2)], axis=1)
    sums, apart = bootstrap.sums(values, np.arange(n, dtype=np.uint64), 50), np.full(6, n - 10)
    totals = Totals(np.stack([sums, np.zeros_like(sums)]), np.stack([apart, np.zeros_like(apart)]))
    return Comparison(totals, ("popularity", "two_tower"), (20,), ("new_users_1", "none"))


def test_newcomers_have_a_section_with_what_they_gain():
    page = report.render(example(newcomers=[newcomers()], new_items=7))
    assert "<h2>Newcomers</h2>" in page
    assert "New users after 1 item: 40 users" in page
    assert "Two-tower: ahead, +0.7500 (" in page
    assert "among the 7 new ones" in page
    assert "<h2>Newcomers</h2>" not in report.render(example())
    line = "New users after 1 item (40 users), NDCG@20: Most popular 0.2500, Two-tower 1.0000"
    assert line in console.summary(example(newcomers=[newcomers()]), "here", None)
    (row,) = records.gains([newcomers()], ("ndcg", 20))
    assert (row["segment"], row["model"], row["other"], row["verdict"]) == (
        "new_users_1",
        "two_tower",
        "popularity",
        "ahead",
    )


@pytest.mark.parametrize(("n", "told"), [(10, False), (19, False), (20, True)])
def test_a_mean_over_few_users_has_no_interval_anywhere(n, told):
    found = newcomers(n)
    measures = found.measures()
    assert {m.n_users for m in measures} == {n}
    assert {m.low is not None for m in measures} | {m.high is not None for m in measures} == {told}
    rows = records.metric_rows("demo", measures, {})
    assert {row["low"] is not None for row in rows} == {told}
    differences = found.differences("ndcg", 20, "new_users_1")
    assert {d.verdict for d in differences} == {"too few to tell"}, "also where nobody has different results"
    shown = {"models": found.models, "measures": measures, "differences": found.differences("ndcg", 20)}
    page = report.render(example(**shown, newcomers=[found], samples=[], breadth=[]))
    assert ('class="interval"' in page) == told
    assert ("<small>too few users</small>" in page) == (not told)
    assert (f"(too few users for an interval: {n})" in report.headline(example(**shown))) == (not told)


def test_an_axis_of_fractions_has_its_numbers():
    drawn = plots.curves([plots.Line("a", [(0.0, 0.0), (0.05, 0.1)], "m1")], "t", "said", "happened")
    assert ">0.02</text>" in drawn
    of_epochs = plots.curves([plots.Line("a", [(1, 0.0), (3, 0.1)], "m1")], "t", "epoch", "")
    assert ">2</text>" in of_epochs
    assert ">1.5</text>" not in of_epochs
