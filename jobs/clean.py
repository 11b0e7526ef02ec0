"""clean: bronze → silver and quarantine."""

from functools import partial

from pyspark import StorageLevel

from sparkrec import schemas
from sparkrec.clean import accounting, catalogue, increments, rules, silver, state
from sparkrec.cli import run_job
from sparkrec.ingest import sources
from sparkrec.pipeline import Run

KEEP = StorageLevel.MEMORY_AND_DISK


def clean(run: Run) -> None:
    """Bronze → silver events and items; what is refused goes to quarantine with a reason.

    Only the rows are read that came since the last run, and only the days are written that they touch; ``start`` says
    where to go on, or why all is computed. Repeats are merged first, then the rules are applied; near repeats,
    sessions, cancellations and bots are found among what is left. ``known`` is the catalogue's history; without a
    catalogue the log itself describes its items.
    """
    settings, source = run.settings.clean, sources.get(run.settings.source)
    start = state.begin(run, source.row_by_row)
    if start.nothing_new(run):
        run.say("nothing has come since the last run")
        return start.stay(run)
    run.pin(schemas.BRONZE_ITEMS, newest=True)
    items = catalogue.checked(source.items(run.read(schemas.BRONZE_ITEMS)), settings).persist(KEEP)
    item_tally = accounting.tally(items, schemas.BRONZE_ITEMS.name, rules.item_rules(settings))
    item_tally.stop_above(settings.max_refused)
    known = catalogue.history(items, settings).persist(KEEP)
    has_catalogue = item_tally.distinct > item_tally.refused
    strict = known if has_catalogue and settings.unknown_items == "quarantine" else None

    start = start.if_still(run, strict is not None)
    bronze = start.new_rows(run)
    arrived = accounting.arrived(bronze, start.full)
    judge = partial(silver.checked, known_items=strict, settings=settings)
    checked = judge(source.events(bronze)).persist(KEEP)
    event_rules = rules.event_rules(settings, settings.latest)
    tally = accounting.tally(checked, schemas.BRONZE_EVENTS.name, event_rules, accounting.event_facts())
    accounting.conserve("bronze.events while merging repeats", arrived.rows, tally.rows)
    tally.stop_above(settings.max_refused)
    run.say(f"{tally.rows:,} new rows, {tally.distinct:,} distinct, {tally.refused:,} refused; {start.begins}")

    new = silver.typed(checked)
    days = increments.touched(run, start, new, strict)
    rows = increments.merged(run, start, days, new, lambda raw: silver.typed(judge(source.events(raw))))
    linked = silver.linked(silver.accepted(rows), increments.context(run, start, days), settings).persist(KEEP)
    any_cancels = tally.facts["cancel_rows"] + start.counts.get("cancellations", 0) > 0
    events, written = increments.with_cancellations(run, start, days, linked, any_cancels)

    increments.write(run, start, schemas.SILVER_EVENTS, silver.finished(events, settings), written)
    increments.write(run, start, schemas.SILVER_REPEATS, silver.repeats(linked), days)
    if strict is None:
        described = increments.item_days(run, start, days, linked)
        increments.write(run, start, schemas.SILVER_ITEM_DAYS, described, days)
    else:
        run.keep(schemas.SILVER_ITEM_DAYS, start.bases[schemas.SILVER_ITEM_DAYS.name])
    from_log = catalogue.from_log(run.read(schemas.SILVER_ITEM_DAYS)) if strict is None else None
    items_now = catalogue.finished(known, from_log, source.is_goods)
    run.write(schemas.SILVER_ITEMS, items_now, base=start.bases[schemas.SILVER_ITEMS.name])
    refused = silver.quarantined(rows, schemas.BRONZE_EVENTS, run.stage)
    refused_items = silver.quarantined(items, schemas.BRONZE_ITEMS, run.stage)
    increments.write(run, start, schemas.QUARANTINE, refused.unionByName(refused_items), days)

    run.count(**accounting.balance(run, start, written, arrived, item_tally))
    by_rule = accounting.refused(run, start, tally, event_rules) + item_tally.by_rule
    run.detail(
        refused_by_rule=[rule for rule in by_rule if rule["all"]],
        **accounting.facts(run, start, tally, checked),
        shape=state.shape(run.settings),
        strict=strict is not None,
        increment={"why_full": start.why_full, "days": written.names},
    )
    run.spark.catalog.clearCache()


if __name__ == "__main__":
    run_job(clean)
