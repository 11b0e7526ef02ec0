"""clean: bronze → silver and quarantine."""

from dataclasses import asdict

from sparkrec import schemas
from sparkrec.clean import accounting, bots, catalogue, funnels, increments, outliers, rules, silver, state
from sparkrec.cli import run_job
from sparkrec.ingest import sources
from sparkrec.lake import continued
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run


def clean(run: Run) -> None:
    """Bronze → silver events and items; what is refused goes to quarantine with a reason.

    Only the rows are read that came since the last run, and only the days are written that they touch; ``start`` says
    where to go on, or why all is computed. Each row is judged by itself, and repeats are merged; near repeats,
    sessions, cancellations and bots are found among what is good. Without a catalogue the log describes its items.
    """
    settings, source = run.settings.clean, sources.of(run)
    start = state.begin(run, source)
    if start.nothing_new(run):
        run.say("nothing has come since the last run")
        return start.stay(run)
    items = catalogue.load(run, start, source)
    start = start.if_still(run, items.strict, increments.notes_hold(run, start, items.known, settings))
    judge = silver.Judge(source.events, items.known, settings, items.few)

    bronze = start.new_rows(run)
    arrived = accounting.arrived(bronze, start.full)
    new = persisted(judge.typed(bronze))
    event_rules = rules.event_rules(settings, settings.latest)
    tally = accounting.tally(new, schemas.BRONZE_EVENTS.name, event_rules, list(accounting.event_facts()))
    accounting.conserve("bronze.events while merging repeats", arrived.rows, tally.rows)
    good = silver.accepted(new)
    tally = tally.noticing(outliers.notice(good, items.history, settings))
    tally = tally.noticing(funnels.notice(good, settings))
    tally.stop_above(settings.max_refused)
    run.say(f"{tally.rows:,} new rows, {tally.distinct:,} distinct, {tally.refused:,} refused; {start.begins}")

    days = increments.touched(run, start, new, items.known, judge.again)
    rows = increments.merged(run, start, days, new, judge.again)
    linked = persisted(silver.linked(silver.accepted(rows), increments.context(run, start, days), settings))
    any_cancels = tally.facts["cancel_rows"] + start.details.get("sums", {}).get("cancel_rows", 0) > 0
    events, written = increments.with_cancellations(run, start, days, linked, any_cancels)

    increments.write(run, start, schemas.SILVER_EVENTS, silver.finished(events), written)
    increments.write(run, start, schemas.SILVER_REPEATS, silver.repeats(linked), days)
    suspects = bots.suspects(silver.standing(linked), settings.bots, source.has_times)
    increments.write(run, start, schemas.SILVER_SUSPECTS, suspects, days)
    described = increments.item_days(run, start, days, linked, items)
    increments.write(run, start, schemas.SILVER_ITEM_DAYS, described, days)
    from_log = None if items.strict else catalogue.from_log(run.read(schemas.SILVER_ITEM_DAYS))
    catalogue_now = catalogue.finished(items.history, from_log, source.is_goods)
    n_items = run.write(schemas.SILVER_ITEMS, catalogue_now, base=start.bases[schemas.SILVER_ITEMS.name])
    increments.write(run, start, schemas.QUARANTINE, silver.quarantined(rows, items.refused, run.stage), days)

    changes = accounting.changes(run, start, written)
    run.count(**accounting.balance(run, start, changes, arrived, items.tally, n_items))
    of_events = accounting.by_rule(run, start, changes, tally, event_rules)
    run.detail(
        rules=of_events["rules"] + items.tally.by_rule,
        noted=of_events["noted"],
        suspects=accounting.suspects(run),
        **accounting.facts(run, start, tally, new),
        increment={"why_full": start.why_full, "days": written.names},
        shape=state.shape(run.settings, source),
        strict=items.strict,
        items=asdict(items.tally),
    )
    continued.require_kept(run, state.WRITTEN)
    run.spark.catalog.clearCache()


if __name__ == "__main__":
    run_job(clean)
