"""featurize: silver → gold."""

from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.evaluation import holdout, splits
from sparkrec.features import activity, content, items, neighbors, prices, selection, users, vectors, vocabulary
from sparkrec.features.sequences import sequences
from sparkrec.pipeline import Run

KEEP = StorageLevel.MEMORY_AND_DISK


def featurize(run: Run) -> None:
    """Silver → gold as of the split: vocabulary, profiles, item features, sequences, and the test part.

    ``at`` are the split's times. ``state`` is the catalogue at the split, ``members`` the items that models know,
    ``asked`` what the test users went on to do, and ``answerable`` what of that a model may answer with.
    """
    settings, silver = run.settings, run.read(schemas.SILVER_EVENTS)
    at = splits.borders(settings.split, selection.end_of_log(silver, settings.features.event_types, run.date))
    state = items.as_of(run.read(schemas.SILVER_ITEMS), at.as_of).persist(KEEP)

    # By user, once: what is folded by user later needs no shuffle any more.
    suspects = run.read(schemas.SILVER_SUSPECTS)
    marked = selection.mark(silver, suspects, state, settings.features, at).repartition(c.USER_ID)
    usable = F.col(selection.LEFT_OUT).isNull()
    parted = splits.assign(marked, settings.split, at, usable).persist(KEEP)
    events = selection.without_rare(parted, settings.features)
    train = selection.training(events)
    parts, left_out = selection.tally(parted, events, settings.features)
    splits.require_training_events(parts.get(splits.TRAIN, 0), settings.split, at)
    run.say("events: " + ", ".join(f"{part} {n:,}" for part, n in parts.items()))

    pairs = activity.of_pairs(train, at.as_of, settings.features.half_life_days).persist(KEEP)
    by_day = users.of_days(activity.of_user_days(train)).persist(KEEP)
    found_users = by_day.withColumnRenamed(c.N_EVENTS, c.COUNT)
    run.write(schemas.VOCABULARY_USERS, vocabulary.extended(run, schemas.VOCABULARY_USERS, found_users))
    user_ids = run.read(schemas.VOCABULARY_USERS)

    medians = activity.median_prices(train, state.where(F.col(c.PRICE).isNotNull()))
    members = items.members(activity.of_items(pairs), medians, state).persist(KEEP)
    run.write(schemas.VOCABULARY_ITEMS, vocabulary.extended(run, schemas.VOCABULARY_ITEMS, members))
    item_ids = run.read(schemas.VOCABULARY_ITEMS)
    all_items = items.overall(members)
    bucketed = prices.with_bucket(members, all_items.prices)
    features = content.features(bucketed, settings.features, all_items.items).persist(KEEP)
    counted = content.counted(features)
    n_features = run.write(schemas.VOCABULARY_FEATURES, vocabulary.extended(run, schemas.VOCABULARY_FEATURES, counted))
    strings = run.read(schemas.VOCABULARY_FEATURES)
    lists = content.encoded(features, strings, settings.features.max_item_features)
    lists = vectors.with_content(lists, members, strings, settings.features, all_items.items)
    run.write(schemas.GOLD_ITEMS, items.rows(bucketed, lists, item_ids, all_items, settings.features, at.as_of))

    gold_items = run.read(schemas.GOLD_ITEMS)
    habits = activity.of_hours(train).join(activity.of_countries(train), c.USER_ID, "left")
    profiles = users.rows(by_day, habits, pairs, gold_items, user_ids, at.as_of, settings.features.tastes)
    n_users = run.write(schemas.GOLD_USERS, profiles)
    if settings.features.neighbors:
        baskets = neighbors.baskets(pairs, gold_items, settings.features.neighbor_items).persist(KEEP)
        run.write(schemas.GOLD_NEIGHBORS, neighbors.neighbors(baskets, settings.features))
    run.write(schemas.GOLD_SEQUENCES, sequences(train, user_ids, item_ids, settings.features.max_length))

    known_users = user_ids.where(F.col(c.COUNT) > 0)
    known_items = item_ids.join(members, c.ITEM_ID, "left_semi")
    asked = holdout.asked(events, settings).persist(KEEP)
    answerable = holdout.answerable(asked, train, settings, gold_items, at.as_of)
    test_pairs = run.write(schemas.GOLD_HOLDOUT, holdout.rows(answerable, known_users, known_items))

    run.count(
        users=n_users,
        items=all_items.items,
        prices_filled=all_items.prices_filled,
        features=n_features,
        **{f"events_{part}": parts.get(part, 0) for part in (splits.TRAIN, splits.VALIDATION, splits.TEST)},
        test_pairs=test_pairs,
        holdout_already_seen=asked.count() - test_pairs,
        **holdout.counts(run.read(schemas.GOLD_HOLDOUT)),
    )
    times = {name: f"{time:%Y-%m-%d %H:%M}" for name, time in vars(at).items()}
    run.detail(left_out=left_out, split={"kind": settings.split.kind, **times})
    run.spark.catalog.clearCache()


if __name__ == "__main__":
    run_job(featurize)
