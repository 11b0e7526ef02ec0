"""clean: bronze → silver and quarantine."""

from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import accounting, cancellations, catalogue, duplicates, rules, silver
from sparkrec.cli import run_job
from sparkrec.ingest import sources
from sparkrec.pipeline import Run

KEEP = StorageLevel.MEMORY_AND_DISK


def clean(run: Run) -> None:
    """Bronze → silver events and items; what is refused goes to quarantine with a reason."""
    settings = run.settings.clean
    source = sources.get(run.settings.source)
    bronze = run.read(schemas.BRONZE_EVENTS)
    arrived = accounting.arrived(bronze)
    latest = settings.latest or arrived.newest_ingest

    items = catalogue.checked(source.items(run.read(schemas.BRONZE_ITEMS)), settings).persist(KEEP)
    item_tally = accounting.tally(items, "bronze.items", rules.item_rules(settings))
    item_tally.stop_above(settings.max_refused)
    known = catalogue.history(items, settings).persist(KEEP)
    has_catalogue = item_tally.distinct > item_tally.refused
    strict = has_catalogue and settings.unknown_items == "quarantine"

    events = silver.checked(source.events(bronze), known if strict else None, settings, latest).persist(KEEP)
    tally = accounting.tally(events, "bronze.events", rules.event_rules(settings, latest), accounting.event_facts())
    accounting.conserve("bronze.events after merging repeats", arrived.rows, tally.rows)
    tally.stop_above(settings.max_refused)
    run.say(f"{tally.rows:,} rows, {tally.distinct:,} distinct, {tally.refused:,} refused")

    accepted = silver.accepted(events)
    merged = duplicates.merge_near(accepted, settings.near_duplicate_seconds)
    pairs = cancellations.match(merged).persist(KEEP)
    kept = run.write(schemas.SILVER_EVENTS, silver.finished(merged, pairs, settings))
    log_items = None if strict else catalogue.from_log(accepted, settings)
    kept_items = run.write(schemas.SILVER_ITEMS, catalogue.finished(known, log_items, source.is_goods))
    refused = silver.quarantined(events, schemas.BRONZE_EVENTS, run.stage)
    refused_items = silver.quarantined(items, schemas.BRONZE_ITEMS, run.stage)
    run.write(schemas.QUARANTINE, refused.unionByName(refused_items))

    written = run.read(schemas.SILVER_EVENTS)
    quarantine = run.read(schemas.QUARANTINE)
    of_events = quarantine.where(F.col(c.TABLE) == schemas.BRONZE_EVENTS.name)
    accounting.conserve("bronze.events", arrived.rows, accounting.copies(written) + accounting.copies(of_events))
    of_items = accounting.copies(quarantine) - accounting.copies(of_events)
    item_copies = accounting.copies(run.read(schemas.SILVER_ITEMS)) + of_items
    accounting.conserve("the catalogue", item_tally.rows, item_copies)

    cancels = int(written.where(F.col(c.EVENT_TYPE) == c.CANCEL).count())
    run.count(
        rows_in=arrived.rows,
        kept=kept,
        duplicates=arrived.rows - kept - tally.refused,
        quarantined=tally.refused,
        items_rows_in=item_tally.rows,
        items_kept=kept_items,
        items_quarantined=item_tally.refused,
        cancellations=cancels,
        cancellations_matched=pairs.count(),
        purchases_cancelled=written.where(c.CANCELLED).count(),
        suspect_events=written.where(c.SUSPECT).count(),
    )
    run.detail(
        refused_by_rule=[rule for rule in tally.by_rule + item_tally.by_rule if rule["all"]],
        facts={
            "rows": arrived.rows,
            "files": arrived.files,
            "exact_repeats": tally.rows - tally.distinct,
            "near_repeats": tally.distinct - tally.refused - kept,
            **tally.facts,
            **accounting.distinct_facts(events),
        },
    )
    for frame in (items, known, events, pairs):
        frame.unpersist()


if __name__ == "__main__":
    run_job(clean)
