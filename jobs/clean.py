"""clean: bronze → silver and quarantine."""

from pyspark import StorageLevel

from sparkrec import schemas
from sparkrec.clean import accounting, bots, catalogue, duplicates, funnels, outliers, rules, silver
from sparkrec.cli import run_job
from sparkrec.ingest import sources
from sparkrec.pipeline import Run

KEEP = StorageLevel.MEMORY_AND_DISK


def clean(run: Run) -> None:
    """Bronze → silver events and items; what is refused goes to quarantine with a reason.

    Repeats are merged first, then the rules are applied; near repeats, cancellations and bots are found among what
    is left. ``known`` is the catalogue's history; without a catalogue the log itself describes its items.
    """
    settings, source = run.settings.clean, sources.get(run.settings.source)
    bronze = run.read(schemas.BRONZE_EVENTS)
    arrived = accounting.arrived(bronze)
    latest = settings.latest or arrived.newest_ingest

    items = catalogue.checked(source.items(run.read(schemas.BRONZE_ITEMS)), settings).persist(KEEP)
    item_tally = accounting.tally(items, schemas.BRONZE_ITEMS.name, rules.item_rules(settings))
    item_tally.stop_above(settings.max_refused)
    known = catalogue.history(items, settings).persist(KEEP)
    has_catalogue = item_tally.distinct > item_tally.refused
    strict = has_catalogue and settings.unknown_items == "quarantine"

    events = silver.checked(source.events(bronze), known if strict else None, settings, latest).persist(KEEP)
    event_rules = rules.event_rules(settings, latest)
    tally = accounting.tally(events, schemas.BRONZE_EVENTS.name, event_rules, accounting.event_facts())
    accounting.conserve("bronze.events while merging repeats", arrived.rows, tally.rows)
    accepted = silver.accepted(events)
    merged = duplicates.merge_near(accepted, settings.near_duplicate_seconds)
    tally = tally.noticing(outliers.notice(events, known if has_catalogue else None, settings))
    tally = tally.noticing(funnels.notice(merged, settings))
    tally.stop_above(settings.max_refused)
    run.say(f"{tally.rows:,} rows, {tally.distinct:,} distinct, {tally.refused:,} refused")

    any_cancels = tally.facts["cancel_rows"] > 0
    run.write(schemas.SILVER_EVENTS, silver.finished(merged, any_cancels))
    run.write(schemas.SILVER_SUSPECTS, bots.suspects(merged, settings.bots))
    from_log = None if strict else catalogue.from_log(accepted, settings)
    run.write(schemas.SILVER_ITEMS, catalogue.finished(known, from_log, source.is_goods))
    refused = silver.quarantined(events, schemas.BRONZE_EVENTS, run.stage)
    run.write(schemas.QUARANTINE, refused.unionByName(silver.quarantined(items, schemas.BRONZE_ITEMS, run.stage)))

    run.count(**accounting.balance(run, tally, item_tally))
    run.detail(
        rules=tally.by_rule + item_tally.by_rule,
        suspects=accounting.suspects(run),
        facts=accounting.facts(arrived, tally, run.counts["kept"], events),
    )
    run.spark.catalog.clearCache()


if __name__ == "__main__":
    run_job(clean)
