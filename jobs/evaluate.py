"""evaluate: the lists against what users did after the split; metrics, the report, and a table on the screen."""

from __future__ import annotations

from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas, tracking
from sparkrec.cli import run_job
from sparkrec.evaluation import cold, console, exposure, outcomes, records, reliability, report, samples, tradeoff
from sparkrec.evaluation.comparison import Comparison
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run
from sparkrec.ranking import known
from sparkrec.ranking import model as ranker
from sparkrec.retrieval import rules, shortfall
from sparkrec.retrieval.catalogue import ALLOWED


def evaluate(run: Run) -> None:
    """Lists and held-out events → metrics with intervals, differences between models, and the report."""
    settings, models = run.settings.evaluate, run.settings.recommend.models
    shortfall.require_made(run, models)
    page_file = str(run.folder("reports", run.run_id, "report.html"))
    holdout = run.read(schemas.GOLD_HOLDOUT)
    lists = run.read(schemas.RECOMMENDATIONS, {c.RUN_ID: run.run_id}).where(F.col(c.MODEL).isin(*models))
    users = persisted(outcomes.test_users(holdout, run.read(schemas.GOLD_USERS), settings.seed))

    hits = outcomes.hits(holdout, lists, models, max(settings.ks))
    sums = outcomes.totals(users, hits, len(models), settings.ks, settings.bootstrap)
    comparison = Comparison(sums, tuple(models), settings.ks)
    run.say(f"compared {len(models)} models on {comparison.users:,} test users")

    items = run.read(schemas.GOLD_ITEMS)
    shelf = rules.offered(items, run.settings.recommend, rules.read_lists(run))
    offered = shelf.where(ALLOWED)
    shown = exposure.of_lists(lists, settings.ks, offered.count())
    log = exposure.of_log(items.join(offered, c.ITEM_INDEX, "left_semi"))

    fresh, new_items = cold.measured(run, holdout)
    apart = [m for found in fresh for m in found.measures() if m.segment != "all"]
    rows = records.metric_rows(run.run_id, [*comparison.measures(), *apart], shown)
    run.write(schemas.METRICS, run.spark.createDataFrame(rows, schemas.METRICS.struct()), {c.RUN_ID: run.run_id})
    drawn = samples.draw(users, settings.sample_users)
    people = samples.describe(drawn, run.read(schemas.GOLD_SEQUENCES), holdout, lists, items, models)
    traded = tradeoff.sweep(run, users, holdout, shelf) if settings.tradeoff_users else None
    users.unpersist()
    came_true = None
    if ranker.NAME in models and set(goal := known.goal(run.settings)) <= set(run.settings.features.target_types):
        came_true = reliability.of_lists(lists, holdout, ranker.NAME, goal)

    page = records.report(run, comparison, shown, log, people, holdout, traded, fresh, new_items, came_true)
    place = report.write(page, page_file)
    run.count(test_users=page.test_users, test_pairs=page.test_pairs, test_pairs_unknown=page.test_pairs_unknown)
    run.detail(headline=report.headline(page), report=place)
    if fresh:
        run.detail(newcomers=records.gains(fresh, page.primary), new_items=new_items)
    if traded:
        run.detail(tradeoff=traded)
    if came_true:
        run.detail(reliability=came_true)
    everyone = [row for row in rows if row[c.SEGMENT] == "all"]
    run.tracker.metrics({f"{row[c.MODEL]}.{row[c.METRIC]}@{row[c.K]}": row[c.VALUE] for row in everyone})
    if page.warm_start:
        run.detail(warm_start=page.warm_start)
        gained = {name: page.warm_start[name] for name in ("gain", "seconds_saved") if name in page.warm_start}
        run.tracker.metrics({f"warm_start.{name}": float(value) for name, value in gained.items()})
    run.tracker.artifact(place)
    print(console.summary(page, place, tracking.default_uri(run.settings) if run.settings.tracking.enabled else None))


if __name__ == "__main__":
    run_job(evaluate)
