"""featurize: silver → gold."""

from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.evaluation import holdout, splits
from sparkrec.features import (
    activity,
    content,
    increments,
    items,
    neighbors,
    prices,
    selection,
    sequences,
    state,
    users,
    vectors,
    vocabulary,
)
from sparkrec.lake import continued
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run


def featurize(run: Run) -> None:
    """Silver → gold as of the split: vocabulary, profiles, item features, sequences, and the test part.

    Users' rows are what is held of them and what came since the last run; ``start`` says where to go on, or why all is
    computed. Items are folded anew from what is held by then. ``at`` are the split's times, ``members`` the items that
    models know, ``chosen`` what the test users went on to do, ``asked`` the goods among it, and ``answerable`` what
    of those a model may answer with.
    """
    settings, silver = run.settings, run.read(schemas.SILVER_EVENTS)
    at = splits.borders(settings.split, selection.end_of_log(silver, settings.features.event_types, run.date))
    now = state.known(run, at)
    start = state.begin(run, at)
    run.say(start.begins)

    # By user, once: what is folded by user later needs no shuffle any more.
    rewritten = increments.rewritten(run, start, now)
    parted = persisted(now.parted(increments.to_read(start, now, rewritten), settings))
    events = selection.without_rare(parted, settings.features)
    train = selection.training(events)
    came = increments.came(start, train)
    tally = selection.tally(parted, events, settings.features)
    run.say(f"read {tally.read:,} events: " + ", ".join(f"{part} {n:,}" for part, n in tally.parts.items()))
    if start.full:
        splits.require_training_events(tally.parts, settings.split, at)

    sums = persisted(users.sums(came))
    found = increments.found_users(run, start, sums, rewritten)
    vocabulary.write(run, start.bases, schemas.VOCABULARY_USERS, found)
    user_ids = run.read(schemas.VOCABULARY_USERS)
    index = user_ids.select(c.USER_ID, c.USER_INDEX)
    changed = increments.changed(run, start, train, came, rewritten, at)

    pairs = activity.of_pairs(came).join(index, c.USER_ID).drop(c.USER_ID)
    pairs = changed.added(start.held(run, schemas.GOLD_PAIRS), pairs, activity.added_pairs)
    increments.write(run, start, schemas.GOLD_PAIRS, pairs, changed)
    increments.write_item_days(run, start, came, increments.gone(run, start, rewritten), at)

    over_time = activity.over_time(run.read(schemas.GOLD_ITEM_DAYS), at.as_of, settings.features.half_life_days)
    members = persisted(items.members(activity.of_items(run.read(schemas.GOLD_PAIRS)), over_time, now.goods))
    vocabulary.write(run, start.bases, schemas.VOCABULARY_ITEMS, members)
    item_ids = run.read(schemas.VOCABULARY_ITEMS)
    all_items = items.overall(members)
    bucketed = prices.with_bucket(members, all_items.prices)
    features = persisted(content.features(bucketed, settings.features, all_items.items))
    n_features = vocabulary.write(run, start.bases, schemas.VOCABULARY_FEATURES, content.counted(features))
    strings = run.read(schemas.VOCABULARY_FEATURES)
    lists = content.encoded(features, strings, settings.features.max_item_features)
    lists = vectors.with_content(lists, members, strings, settings.features, all_items.items)
    rows = items.rows(bucketed, lists, item_ids, all_items, settings.features, at.as_of)
    run.write(schemas.GOLD_ITEMS, rows, base=start.bases[schemas.GOLD_ITEMS.name])

    gold_items = run.read(schemas.GOLD_ITEMS)
    told = increments.with_facts_changed(run, start, changed, users.facts)
    own = told.added(start.held(run, schemas.GOLD_USERS), sums.join(index, c.USER_ID), users.added)
    profiles = users.rows(own, told.own(run.read(schemas.GOLD_PAIRS)), gold_items, settings.features.tastes)
    increments.write(run, start, schemas.GOLD_USERS, profiles, told)
    if settings.features.neighbors:
        baskets = neighbors.baskets(run.read(schemas.GOLD_PAIRS), gold_items, settings.features.neighbor_items)
        run.write(schemas.GOLD_NEIGHBORS, neighbors.neighbors(persisted(baskets), settings.features))
    pieces = sequences.of_events(came, item_ids).join(index, c.USER_ID).drop(c.USER_ID)
    chunks = sequences.of_chunks(start.held(run, schemas.GOLD_SEQUENCES), at if settings.split.kind == "time" else None)
    rows = sequences.rows(changed.added(chunks, pieces, sequences.added), settings.features.max_length)
    increments.write(run, start, schemas.GOLD_SEQUENCES, rows, changed)

    known_users = user_ids.where(F.col(c.COUNT) > 0)
    known_items = item_ids.join(members, c.ITEM_ID, "left_semi")
    chosen = persisted(holdout.indexed(holdout.asked(events, settings), known_users, known_items))
    asked = persisted(holdout.of_goods(chosen, run.read(schemas.SILVER_ITEMS), at))
    met = run.read(schemas.GOLD_PAIRS), run.read(schemas.GOLD_SEQUENCES)
    test_pairs = run.write(schemas.GOLD_HOLDOUT, holdout.answerable(asked, *met, gold_items, settings))

    run.count(
        users=known_users.count(),
        items=all_items.items,
        prices_filled=all_items.prices_filled,
        features=n_features,
        **sequences.counts(run.read(schemas.GOLD_SEQUENCES)),
        events_test=tally.parts.get(splits.TEST, 0),
        test_pairs=test_pairs,
        holdout_no_goods=chosen.count() - asked.count(),
        holdout_already_seen=asked.count() - test_pairs,
        **holdout.counts(run.read(schemas.GOLD_HOLDOUT), asked),
    )
    times = {name: f"{time:%Y-%m-%d %H:%M}" for name, time in vars(at).items()}
    done = state.record(start, at, settings, {"events": changed.numbers, "profiles": told.numbers})
    run.detail(read=tally.record, split={"kind": settings.split.kind, **times}, **done)
    continued.require_kept(run, state.WRITTEN)
    run.spark.catalog.clearCache()


if __name__ == "__main__":
    run_job(featurize)
