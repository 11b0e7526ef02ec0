"""featurize: silver → gold."""

from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.evaluation import holdout, splits
from sparkrec.features import activity, content, selection, vocabulary
from sparkrec.features import items as catalogue
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
    state = catalogue.as_of(run.read(schemas.SILVER_ITEMS), at.as_of).persist(KEEP)

    marked = selection.mark(silver, run.read(schemas.SILVER_SUSPECTS), state, settings.features, at)
    usable = F.col(selection.LEFT_OUT).isNull()
    parted = splits.assign(marked, settings.split, at, usable).persist(KEEP)
    events = selection.without_rare(parted, settings.features)
    train = selection.training(events)
    parts, left_out = selection.tally(parted, events, settings.features)
    splits.require_training_events(parts.get(splits.TRAIN, 0), settings.split, at)
    run.say("events: " + ", ".join(f"{part} {n:,}" for part, n in parts.items()))

    by_user = activity.of_users(train).persist(KEEP)
    found_users = by_user.withColumnRenamed(c.N_EVENTS, c.COUNT)
    run.write(schemas.VOCABULARY_USERS, vocabulary.extended(run, schemas.VOCABULARY_USERS, found_users))
    users = run.read(schemas.VOCABULARY_USERS)
    n_users = run.write(schemas.GOLD_USERS, activity.user_profiles(by_user, users, at.as_of))

    members = catalogue.with_price_bucket(catalogue.members(activity.of_items(train), state).persist(KEEP))
    run.write(schemas.VOCABULARY_ITEMS, vocabulary.extended(run, schemas.VOCABULARY_ITEMS, members))
    items = run.read(schemas.VOCABULARY_ITEMS)
    features = content.features(members, settings.features).persist(KEEP)
    strings = vocabulary.extended(run, schemas.VOCABULARY_FEATURES, content.counted(features))
    n_features = run.write(schemas.VOCABULARY_FEATURES, strings)
    lists = content.encoded(features, run.read(schemas.VOCABULARY_FEATURES), settings.features.max_item_features)
    run.write(schemas.GOLD_ITEMS, catalogue.rows(members, lists, items, at.as_of))

    run.write(schemas.GOLD_SEQUENCES, sequences(train, users, items, settings.features.max_length))

    known_users = users.where(F.col(c.COUNT) > 0)
    known_items = items.join(members, c.ITEM_ID, "left_semi")
    asked = holdout.asked(events, settings).persist(KEEP)
    answerable = holdout.answerable(asked, train, settings)
    pairs = run.write(schemas.GOLD_HOLDOUT, holdout.rows(answerable, known_users, known_items))

    run.count(
        users=n_users,
        items=members.count(),
        features=n_features,
        **{f"events_{part}": parts.get(part, 0) for part in (splits.TRAIN, splits.VALIDATION, splits.TEST)},
        test_pairs=pairs,
        holdout_already_seen=asked.count() - pairs,
        **holdout.counts(run.read(schemas.GOLD_HOLDOUT)),
    )
    times = {name: f"{time:%Y-%m-%d %H:%M}" for name, time in vars(at).items()}
    run.detail(left_out=left_out, split={"kind": settings.split.kind, **times})
    run.spark.catalog.clearCache()


if __name__ == "__main__":
    run_job(featurize)
