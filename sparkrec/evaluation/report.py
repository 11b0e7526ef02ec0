"""The report: one HTML file without outside links, written for somebody who decides and does not program."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from sparkrec.evaluation import bootstrap, plots
from sparkrec.evaluation.comparison import Comparison, Difference, Measure
from sparkrec.evaluation.outcomes import SEGMENT_DOCS

_MODELS = {
    "popularity": "Most popular", "als": "ALS", "two_tower": "Two-tower", "ranker": "Ranker",
    "segment_popularity": "In segment", "kind_popularity": "Of its kind", "tastes": "Tastes",
}  # fmt: skip
_METRICS = {
    "recall": "Recall", "precision": "Precision", "hit_rate": "Hit rate", "ndcg": "NDCG", "map": "MAP", "mrr": "MRR",
    "coverage": "Coverage", "gini": "Gini",
}  # fmt: skip
METRIC_DOCS = {
    "recall": "of what users went on to choose, the part that was in their list",
    "precision": "of the places in a list, the part that was chosen",
    "hit_rate": "users for whom at least one item of the list was right",
    "ndcg": "like recall, but hits near the top count more; 1 is a perfect list",
    "map": "precision at each hit, averaged; rewards hits at the top",
    "mrr": "one over the place of the first hit, averaged",
    "coverage": "the part of the catalogue that appears in somebody's list",
    "gini": "0: every item is shown equally often; 1: one item gets all places",
}
_SPLITS = {
    "time": "The log was cut in time. Models saw what happened before {as_of}; they were tested on what users did from "
    "{test} until {end}. Pairs of user and item that no model may recommend, because the user had met the item before, "
    "are not asked for.",
    "leave_one_out": "Of each user, the last event was held out for the test and the last but one for validation; "
    "models were then trained on everything but the test event. This is the protocol of published next-item numbers.",
    "given": "The data comes with its own train and test part, and both were used as they are.",
    "none": "Nothing was held out: all events train, and there is no test.",
}
#: What a verdict other than ahead means for the best model.
_SAID = {
    bootstrap.NOISE: "It is level with {}: the difference is inside the noise",
    bootstrap.TOO_FEW: "Whether it is better than {} cannot be told: too few users have different results by the two",
    bootstrap.UNTESTED: "Whether it is better than {} by more than chance was not tested",
}
_SEVERITIES = {"quarantine": "refused", "repair": "mended", "warn": "noted"}
_TABLES = {
    "user_id": "users", "item_id": "items", "item_feature": "item features", "history_item": "items in histories",
}  # fmt: skip
_FACTS = {
    "cancel_rows": "rows of cancellations", "rows_without_user": "rows without a user",
    "negative_values": "negative quantities", "zero_prices": "prices of zero", "negative_prices": "negative prices",
    "rows_without_item_name": "rows without a description", "exact_repeats": "rows that repeat an earlier one exactly",
    "near_repeats": "rows that nearly repeat an earlier one", "clean_purchases": "clean purchases",
    "clean_purchase_users": "users with a clean purchase", "clean_purchase_items": "items with a clean purchase",
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What the page shows; everything in it is small.

    ``records`` are run records as plain dictionaries, oldest first, one a stage. ``exposure`` is (name, curve) pairs:
    the log first, then the models. ``breadth`` is rows of model, metric, k, value.
    ``warm_start`` : ``records.warm_start``. ``tradeoff`` : ``tradeoff.sweep``. ``reliability`` :
    ``reliability.of_lists``. ``newcomers`` : of new users, and of new items, each where it was measured; ``new_items``
    are so many.
    """

    title: str
    run_id: str
    primary: tuple[str, int]
    models: Sequence[str]
    measures: Sequence[Measure]
    differences: Sequence[Difference]
    test_users: int = 0
    test_pairs: int = 0
    test_pairs_unknown: int = 0
    breadth: Sequence[tuple[str, str, int, float]] = ()
    exposure: Sequence[tuple[str, Sequence[float]]] = ()
    samples: Sequence[Mapping[str, Any]] = ()
    records: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    warm_start: Mapping[str, Any] | None = None
    tradeoff: Mapping[str, Any] | None = None
    reliability: Sequence[Mapping[str, Any]] | None = None
    newcomers: Sequence[Comparison] = ()
    new_items: int = 0

    def value(self, model: str, metric: str, k: int, segment: str = "all") -> Measure | None:
        """The measure of a model, or None where it was not measured."""
        wanted = (model, metric, k, segment)
        return next((m for m in self.measures if (m.model, m.metric, m.k, m.segment) == wanted), None)

    def ranking(self) -> list[Measure]:
        """The models by the primary metric, best first."""
        found = [self.value(model, *self.primary) for model in self.models]
        return sorted((m for m in found if m is not None), key=lambda m: -m.value)

    def record(self, stage: str) -> Mapping[str, Any]:
        """Counts and details of the newest record of a stage; empty if it did not run."""
        return next((r for r in reversed(self.records) if r["stage"] == stage), {"counts": {}, "details": {}})


def model_name(model: str) -> str:
    """``two_tower`` → ``Two-tower``."""
    return _MODELS.get(model, model.replace("_", " ").capitalize())


def metric_name(metric: str, k: int) -> str:
    """``ndcg``, 20 → ``NDCG@20``."""
    return f"{_METRICS.get(metric, metric)}@{k}"


def headline(report: Report) -> str:
    """Which model wins on the primary metric and by how much, in one or two sentences."""
    ranking = report.ranking()
    if not ranking:
        return "Nothing was held out, so nothing can be said about quality."
    best, name = ranking[0], metric_name(*report.primary)
    text = f"{model_name(best.model)} has the best lists: {name} is {best.value:.4f}"
    if best.low is not None and best.high is not None:
        text += f" (95\u00a0% interval {best.low:.4f} to {best.high:.4f})"
    elif best.few:
        text += f" (too few users for an interval: {best.n_users})"
    ahead: list[str] = []
    others: dict[str, list[str]] = {bootstrap.NOISE: [], bootstrap.TOO_FEW: [], bootstrap.UNTESTED: []}
    for other in ranking[1:]:
        gap = next(d for d in report.differences if (d.model, d.other) == (best.model, other.model))
        where = f"{model_name(other.model)} ({other.value:.4f})"
        if gap.verdict in others:
            others[gap.verdict].append(where)
        else:
            ahead.append(f"{gap.value / other.value:.0%} above {where}" if other.value else f"above {where}")
    sentences = [text, *([f"That is {' and '.join(ahead)}"] if ahead else [])]
    sentences += [_SAID[verdict].format(" and ".join(rows)) for verdict, rows in others.items() if rows]
    return ". ".join(sentences) + "."


def render(report: Report) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["thousands"] = lambda value: f"{value:,}" if isinstance(value, int) else value
    environment.filters["moment"] = lambda seconds: f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M}"
    here = files("sparkrec.evaluation")
    template = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        css=(here / "report.css").read_text(encoding="utf-8"),
        headline=headline(report),
        model_name=model_name,
        metric_name=metric_name,
        metric_docs=METRIC_DOCS,
        segment_docs=SEGMENT_DOCS,
        severities=_SEVERITIES,
        style=_style,
        number=plots.number_text,
        metric_bars=_metric_bars(report),
        numbers=_numbers(report),
        exposure=_exposure(report),
        learning=_learning(report),
        warm_start=_warm_start(report),
        ranker=_ranker(report),
        tradeoff=_tradeoff(report),
        newcomers=_newcomers(report),
        table_names=_TABLES,
        flow=_flow(report),
        facts={
            _FACTS.get(n, n.replace("_", " ")): v for n, v in report.record("clean")["details"].get("facts", {}).items()
        },
        split=_split(report),
        search=_search(report),
        fewest=bootstrap.FEWEST,
        left_out=report.record("featurize")["counts"].get("test_users_only_seen", 0),
        configuration=yaml.safe_dump(dict(report.settings), sort_keys=False, allow_unicode=True),
        made=f"{dt.datetime.now(dt.UTC):%d %B %Y, %H:%M} UTC",
    )


def write(report: Report, path: str) -> str:
    """Writes the page; a reader sees the old one or the new one, never half of one. Returns the path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(render(report))
    os.replace(path + ".new", path)
    return path


def _style(report: Report, model: str) -> str:
    return f"m{list(report.models).index(model) % 5}"


def _metric_bars(report: Report) -> list[tuple[str, str, str]]:
    """(name, explanation, plot) of each metric at the primary k, the primary metric first."""
    k, found = report.primary[1], []
    names = dict.fromkeys([report.primary[0], *[m.metric for m in report.measures]])
    for metric in names:
        rows = [report.value(model, metric, k) for model in report.models]
        drawn = [plots.Bar(model_name(m.model), m.value, m.low, m.high, _style(report, m.model)) for m in rows if m]
        if drawn:
            name = metric_name(metric, k)
            found.append((name, METRIC_DOCS[metric], plots.bars(drawn, f"{name} of each model")))
    return found


def _numbers(report: Report) -> list[tuple[str, list[Measure], float]]:
    """(name, a measure of each model, the best value) of every metric and k over all test users."""
    found = []
    order = {name: number for number, name in enumerate(METRIC_DOCS)}
    for k, metric in sorted({(m.k, m.metric) for m in report.measures}, key=lambda pair: (pair[0], order[pair[1]])):
        row = [m for m in (report.value(model, metric, k) for model in report.models) if m is not None]
        found.append((metric_name(metric, k), row, max(m.value for m in row)))
    return found


def _exposure(report: Report) -> str:
    lines = []
    for name, curve in report.exposure:
        style = "log" if name not in report.models else _style(report, name)
        label = "the log" if name not in report.models else model_name(name)
        lines.append(plots.Line(label, [(i / (len(curve) - 1), y) for i, y in enumerate(curve)], style))
    return plots.curves(lines, "Concentration on popular items", "most popular items", "share of all places", True)


def _learning(report: Report) -> list[tuple[str, str]]:
    """(title, plot) of the two-tower model's loss and validation by epoch."""
    rows = report.record("train_two_tower")["details"].get("two_tower", {}).get("curve", [])
    phases = list(dict.fromkeys(row.get("phase", "") for row in rows))
    found = []
    for value, title in (("loss", "Loss"), ("ndcg", "NDCG on validation"), ("recall", "Recall on validation")):
        lines = [
            plots.Line(
                {"choose": "choosing the epochs", "final": "final training"}.get(phase, phase) or "training",
                [(row["epoch"], row[value]) for row in rows if row.get("phase", "") == phase and value in row],
                f"m{number}",
            )
            for number, phase in enumerate(phases)
        ]
        lines = [line for line in lines if line.points]
        if lines:
            found.append((title, plots.curves(lines, title, "epoch", "")))
    return found


def _ranker(report: Report) -> str:
    """What the ranker said against what happened, to users whom it was not trained on; empty where there is none."""
    aside = report.record("train_ranker")["details"].get("ranker", {}).get("calibration", [])
    if not aside or "ranker" not in report.models:
        return ""
    style, found = _style(report, "ranker"), []
    for label, table, kind in (("users set aside", aside, style), ("test users", report.reliability or [], "m1")):
        points = [(row["said"], row["happened"]) for row in table]
        found += [plots.Line(label, points, kind)] if points else []
    most = max(value for line in found for point in line.points for value in point)
    lines = [*found, plots.Line("exact", [(0, 0), (most, most)], "log")]
    return plots.curves(lines, "Probabilities said and shares that happened", "said", "happened")


def _tradeoff(report: Report) -> str:
    """NDCG over intra-list diversity (miscalibration), a point for each weight; empty where it was not measured."""
    if not report.tradeoff:
        return ""
    against = "miscalibration" if report.tradeoff["method"] == "calibrated" else "diversity"
    line = [(point[against], point["ndcg"]) for point in report.tradeoff["points"]]
    title = "The price of diversity" if against == "diversity" else "The price of calibrated lists"
    label = f"NDCG@{report.settings['recommend']['k']}"
    style = _style(report, report.tradeoff["model"])
    return plots.curves([plots.Line(_method(report.tradeoff["method"]), line, style)], title, against, label)


def _method(name: str) -> str:
    return name if name == "calibrated" else name.upper()


def _newcomers(report: Report) -> list[tuple[str, str, list[tuple[Measure, Difference | None]]]]:
    """(title, plot, rows) of each group: a model's measure, and its difference from the base."""
    metric, k = report.primary
    found = []
    for comparison in report.newcomers:
        gains = comparison.gains(metric, k)
        for segment in comparison.segments:
            rows = [m for m in comparison.measures() if (m.metric, m.k, m.segment) == (metric, k, segment)]
            if not rows:
                continue
            gaps = {gain.model: gain for gain in gains[segment]}
            title = f"{newcomers_title(segment)}: {rows[0].n_users:,} users"
            drawn = [plots.Bar(model_name(m.model), m.value, m.low, m.high, f"m{n}") for n, m in enumerate(rows)]
            plot = plots.bars(drawn, f"{metric_name(metric, k)}, {title}")
            found.append((title, plot, [(m, gaps.get(m.model)) for m in rows]))
    return found


def newcomers_title(segment: str) -> str:
    """``new_users_3`` → ``New users after 3 items``."""
    number = segment.removeprefix("new_users_")
    if number == segment:
        return "New items among themselves"
    return (
        f"New users after {number} item{'s' if number != '1' else ''}" if number != "0" else "New users at first sight"
    )


def _warm_start(report: Report) -> str:
    """What a warm start cost and was worth against the last full training, in sentences; empty where there is none."""
    warm = report.warm_start
    if not warm:
        return ""
    own, *others = warm["trainings"]
    if not others:
        return "No full training of another run is in the records, so nothing can be said about what it saved or lost."
    full, saved = others[0], warm["seconds_saved"]
    part = (
        f"{abs(saved) / full['seconds']:.0%} {'less' if saved >= 0 else 'more'}" if full["seconds"] else "incomparable"
    )
    text = [f"It took {own['seconds']:,.0f} s and the last full training {full['seconds']:,.0f} s: {part}."]
    name = metric_name(*report.primary)
    if "gain" not in warm:
        return " ".join([*text, f"{name} is not known for both, so nothing can be said about what it lost or won."])
    gain = warm["gain"]
    verdict = f"{abs(gain):.4f} {'higher' if gain > 0 else 'lower'}" if round(gain, 4) else "the same"
    text.append(f"{name} is {own['value']:.4f} against {full['value']:.4f}: {verdict}.")
    if warm["same_test"]:
        text.append(
            "Both were measured on the same test part; without the lists side by side, chance is not ruled out."
        )
    else:
        text.append("They were measured on different test parts, so the difference is also that between the days.")
    return " ".join(text)


def _flow(report: Report) -> list[tuple[str, int]]:
    """What happened to the rows, as (words, number)."""
    clean, featurize = report.record("clean")["counts"], report.record("featurize")["counts"]
    steps = [
        ("raw rows", clean.get("rows_in")), ("repeats merged", clean.get("duplicates")),
        ("rows refused, each with its reason", clean.get("quarantined")), ("clean events kept", clean.get("kept")),
        ("events on days of suspected bots", clean.get("suspect_events")),
        ("cancellations, with the purchase found", clean.get("cancellations_matched")),
        ("cancellations, all", clean.get("cancellations")),
        ("users to train on", featurize.get("users")), ("items to recommend from", featurize.get("items")),
        ("training events", featurize.get("events_train")), ("validation events", featurize.get("events_validation")),
        ("test events", featurize.get("events_test")),
        ("test users who were not known before", featurize.get("test_users_unseen")),
        ("test items that were not known before", featurize.get("test_items_unseen")),
        ("pairs with what is no goods and came later, not asked for", featurize.get("holdout_no_goods")),
        ("pairs met again in the test part, not asked for", featurize.get("holdout_already_seen")),
        ("users who came back to nothing else, not asked", featurize.get("test_users_only_seen")),
    ]  # fmt: skip
    return [(words, int(n)) for words, n in steps if n is not None]


def _split(report: Report) -> str:
    split = report.record("featurize")["details"].get("split", {})
    kind = split.get("kind") or report.settings.get("split", {}).get("kind", "none")
    test = split.get("test", "the split")
    as_of, end = split.get("as_of", test), split.get("end", "the end of the log")
    return _SPLITS[kind].format(as_of=as_of, test=test, end=end)


def _search(report: Report) -> str:
    """Whether lists are exact, and how much of the exact ones an approximate search was found to find."""
    found = report.record("recommend")["details"].get("search", {})
    missing = [f"{how['recall']:.1%} for {use.replace('_', ' ')}" for use, how in found.items() if "recall" in how]
    if not missing:
        return "Lists of every model are made from the same items by the same exact search."
    return (
        "Lists of every model are made from the same items by the same search, which is approximate: of the best items "
        f"that an exact one finds, it found {', '.join(missing)}, measured on users of this run."
    )
