"""What evaluate prints at the end: models and metrics, ten recommendations, and where to look further."""

from __future__ import annotations

from sparkrec.config.secrets import without_login
from sparkrec.evaluation.report import Report, headline, metric_name, model_name, newcomers_title

_SAMPLES = 10


def summary(report: Report, place: str, tracking_uri: str | None) -> str:
    """The text. Ten sample recommendations come from the best model's lists, two a user."""
    parts = [
        "",
        headline(report),
        "",
        *_table(report),
        *_newcomers(report),
        "",
        *_samples(report),
        "",
        f"Report: {place}",
    ]
    if tracking_uri:
        local = tracking_uri.startswith("sqlite:")
        parts.append(f"MLflow: {'mlflow ui --backend-store-uri ' if local else ''}{without_login(tracking_uri)}")
    return "\n".join(parts)


def _table(report: Report) -> list[str]:
    k = report.primary[1]
    names = list(dict.fromkeys(m.metric for m in report.measures))
    header = [f"{'model':<14}", *[f"{metric_name(name, k):>14}" for name in names], f"{f'coverage@{k}':>14}"]
    rows = ["".join(header)]
    for model in report.models:
        values = [report.value(model, name, k) for name in names]
        covered = next((v for m, name, n, v in report.breadth if (m, name, n) == (model, "coverage", k)), 0.0)
        cells = [f"{m.value:>14.4f}" if m else f"{'-':>14}" for m in values]
        rows.append("".join([f"{model_name(model):<14}", *cells, f"{covered:>14.1%}"]))
    return rows


def _newcomers(report: Report) -> list[str]:
    """One line a group of :attr:`Report.newcomers`."""
    metric, k = report.primary
    rows: dict[str, list[str]] = {}
    for m in (m for comparison in report.newcomers for m in comparison.measures()):
        if (m.metric, m.k) == (metric, k) and m.segment != "all":
            rows.setdefault(f"{newcomers_title(m.segment)} ({m.n_users:,} users)", []).append(
                f"{model_name(m.model)} {m.value:.4f}"
            )
    found = [f"{title}, {metric_name(metric, k)}: {', '.join(values)}" for title, values in rows.items()]
    return ["", *found] if found else []


def _samples(report: Report) -> list[str]:
    if not report.samples:
        return []
    ranking = report.ranking()
    best = ranking[0].model if ranking else report.models[-1]
    rows = [f"{_SAMPLES} sample recommendations of {model_name(best)}:"]
    for person in report.samples:
        for place, row in enumerate(person["lists"][best][: max(1, _SAMPLES // len(report.samples))], start=1):
            rows.append(f"  user {person['user']:<14} {place}. {row['name']}  ({row['reason']})")
    return rows[: _SAMPLES + 1]
