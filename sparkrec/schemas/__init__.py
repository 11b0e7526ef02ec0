"""Every table, once: its name, key, columns and layout. The names and keys are a contract with users.

``docs/tables.md`` is made from this package (``make docs``). Gold, and what is served, have modules of their own.
"""

from __future__ import annotations

from sparkrec import columns as c
from sparkrec.schemas.gold import (
    GOLD_HOLDOUT,
    GOLD_ITEM_DAYS,
    GOLD_ITEMS,
    GOLD_NEIGHBORS,
    GOLD_PAIRS,
    GOLD_SEQUENCES,
    GOLD_USERS,
    VOCABULARY_FEATURES,
    VOCABULARY_ITEMS,
    VOCABULARY_USERS,
)
from sparkrec.schemas.served import AUDIENCES, RECOMMENDATIONS, SIMILAR_ITEMS, VECTORS_ITEMS, VECTORS_USERS
from sparkrec.table import DATA_CLASSES, IDENTIFIER, PERSONAL, PUBLIC, RUN_ID, Column, Table

__all__ = [
    "AUDIENCES", "DATA_CLASSES", "GOLD_HOLDOUT", "GOLD_ITEMS", "GOLD_ITEM_DAYS", "GOLD_NEIGHBORS", "GOLD_PAIRS",
    "GOLD_SEQUENCES", "GOLD_USERS", "IDENTIFIER", "PERSONAL", "PUBLIC", "RECOMMENDATIONS", "SCHEMA_VERSION",
    "SIMILAR_ITEMS", "TABLES", "VECTORS_ITEMS", "VECTORS_USERS", "VOCABULARY_FEATURES", "VOCABULARY_ITEMS",
    "VOCABULARY_USERS", "Column", "Table",
]  # fmt: skip

#: Written into every table. A table with another number is migrated or refused: see ``lake.migrations``.
SCHEMA_VERSION = 5

_ORIGIN = (
    Column(c.SOURCE_FILE, "string", "the file's path below the source's folder"),
    Column(c.LINE, "bigint", "line number in the file, from 1"),
)


def _bronze(what: str) -> Table:
    return Table(
        f"bronze.{what}",
        (c.SOURCE_FILE, c.LINE),
        f"Raw {what} rows as they came. Append only; a file is read once.",
        (
            *_ORIGIN,
            Column(c.HEADER, "string", "the file's header line, where its format has one"),
            Column(c.RAW, "string", "the row as text: the line itself, or JSON for parquet and Delta"),
            Column(c.SOURCE_BYTES, "bigint", "size of the file when it was read"),
            Column(c.INGEST_TIME, "timestamp", "when it was read"),
            RUN_ID,
        ),
        change_feed=True,
    )


BRONZE_EVENTS = _bronze("events")
BRONZE_ITEMS = _bronze("items")

QUARANTINE = Table(
    "quarantine",
    (c.TABLE, c.SOURCE_FILE, c.LINE),
    "Every refused row, with the reason.",
    (
        Column(c.TABLE, "string", "the bronze table that holds it: bronze.events or bronze.items"),
        *_ORIGIN,
        Column(c.EVENT_ID, "string", "hash of its content, as in silver.events; null for a catalogue row"),
        Column(c.EVENT_DATE, "date", "the day of the event; null where it cannot be read or is before clean.earliest"),
        Column(c.ITEM_ID, "string", "the item it names"),
        Column(c.HEADER, "string", "the file's header line, where its format has one"),
        Column(c.RAW, "string", "the raw row"),
        Column(c.INGEST_TIME, "timestamp", "when it was read: the newest of its copies"),
        Column(c.STAGE, "string", "the stage that refused it"),
        Column(c.RULE, "string", "the first rule it broke"),
        Column(c.RULES, "array<string>", "all the rules it broke"),
        Column(c.REASON, "string", "a sentence: what was found, and what was expected"),
        Column(c.COPIES, "int", "raw rows merged into this one: 1, or more where identical rows repeat"),
    ),
    partition_by=(c.TABLE, c.EVENT_DATE),
)

SILVER_EVENTS = Table(
    "silver.events",
    (c.EVENT_ID,),
    "One row a distinct, valid event.",
    (
        Column(c.EVENT_ID, "string", "hash of the event's natural key"),
        Column(c.USER_ID, "string", "who"),
        Column(c.ITEM_ID, "string", "on which item; null for a search"),
        Column(c.EVENT_TYPE, "string", "view, click, cart, purchase, search, rating, review, remove, cancel"),
        Column(c.EVENT_TIME, "timestamp", "when, UTC"),
        Column(c.EVENT_DATE, "date", "the day of event_time, UTC"),
        Column(c.VALUE, "double", "stars of a rating or review, quantity of a purchase or cancel"),
        Column(c.PRICE, "double", "unit price"),
        Column(c.CURRENCY, "string", "ISO 4217 code of the price"),
        Column(c.QUERY, "string", "what was searched for"),
        Column(c.TEXT, "string", "free text of a review"),
        Column(
            c.SESSION_ID, "string", "the shop's session; 'gap-…' where the log has none (clean.session_gap_minutes)"
        ),
        Column(c.ORDER_ID, "string", "order or invoice number"),
        Column(c.COUNTRY, "string", "the user's country at the event"),
        Column(c.SPLIT, "string", "train or test, where the source comes with a given split; else null"),
        Column(c.CANCELLED, "boolean", "a purchase that a later cancel event took back"),
        Column(c.CANCELLED_AT, "timestamp", "when it was taken back; null if it was not"),
        Column(c.NOTES, "array<string>", "rules that mended the row or warn of it; empty for most"),
        Column(c.COPIES, "int", "identical raw rows merged into this one, itself counted"),
        *_ORIGIN,
    ),
    partition_by=(c.EVENT_DATE,),
    skip_by=(c.USER_ID, c.EVENT_TIME),
)

SILVER_REPEATS = Table(
    "silver.repeats",
    (c.EVENT_ID,),
    "Distinct, valid events that repeat one of silver.events within clean.near_duplicate_seconds. Kept, so that a late "
    "event can still change which of a chain is the first.",
    (
        *(x for x in SILVER_EVENTS.columns if x.name not in (c.CANCELLED, c.CANCELLED_AT)),
        Column(c.MERGED_INTO, "string", "event_id of the chain's first event, in silver.events"),
    ),
    partition_by=(c.EVENT_DATE,),
)

SILVER_ITEM_DAYS = Table(
    "silver.item_days",
    (c.ITEM_ID, c.EVENT_DATE, c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY),
    "How often the log described an item in these words on a day; empty where a catalogue decides.",
    (
        Column(c.ITEM_ID, "string", "the item"),
        Column(c.EVENT_DATE, "date", "the day"),
        Column(c.ITEM_NAME, "string", "name, as the log has it"),
        Column(c.ITEM_BRAND, "string", "brand, as the log has it"),
        Column(c.ITEM_CATEGORY, "string", "category path, as the log has it"),
        Column(c.COUNT, "bigint", "distinct valid events with this description; 0 for one without any"),
    ),
    partition_by=(c.EVENT_DATE,),
)

SILVER_SUSPECTS = Table(
    "silver.suspects",
    (c.USER_ID, c.EVENT_DATE),
    "Days on which a user behaved as no person does. The user's events stay in silver.events; gold leaves out those of "
    "users with a day here before its split. A row tells of its day alone, so it does not change with later days.",
    (
        Column(c.USER_ID, "string", "the user"),
        Column(c.EVENT_DATE, "date", "the day, UTC; suspect from this day on"),
        Column(c.SCORE, "double", "0 to 1: how much the day speaks for a bot"),
        Column(c.REASONS, "array<string>", "the signs, strongest first"),
        Column(c.N_EVENTS, "bigint", "events of the day"),
        Column(c.N_VIEWS, "bigint", "views and clicks among them"),
        Column(c.N_ITEMS, "bigint", "distinct items that were viewed"),
        Column(c.N_HOURS, "int", "hours of the day (UTC) with a view, click or search"),
        Column(
            c.BUSIEST_HOUR, "bigint", "views, clicks and searches in the hour that has the most; null for dates only"
        ),
        Column(c.N_GAPS, "bigint", "views, clicks and searches later than the event before them"),
        Column(c.GAP_SPREAD, "double", "standard deviation of the logarithm of those gaps; null for fewer than 2"),
        Column(c.LONGEST_BROWSING, "bigint", "most views, clicks and searches in a row without a cart, purchase, …"),
    ),
)

SILVER_ITEMS = Table(
    "silver.items",
    (c.ITEM_ID, c.VALID_FROM),
    "The catalogue with its history: each row holds from valid_from until the item's next row.",
    (
        Column(c.ITEM_ID, "string", "the item"),
        Column(c.VALID_FROM, "timestamp", "from when on this row holds, UTC"),
        Column(c.NAME, "string", "name that a person reads"),
        Column(c.BRAND, "string", "brand"),
        Column(c.CATEGORY, "array<string>", "category path, root first"),
        Column(c.PRICE, "double", "list price"),
        Column(c.CURRENCY, "string", "ISO 4217 code of the price"),
        Column(c.STOCK, "double", "units in stock; null where not known"),
        Column(c.PROMOTION, "double", "discount as a fraction of the price; 0 or null for none"),
        Column(c.TEXT, "string", "description"),
        Column(c.FOR_SALE, "boolean", "false for what is not goods (postage, fees): never recommended"),
        Column(c.ATTRIBUTES, "map<string,string>", "anything else the source knows, several values by |"),
        Column(c.COPIES, "int", "raw rows merged into this one"),
    ),
)


METRICS = Table(
    "metrics",
    (c.RUN_ID, c.MODEL, c.METRIC, c.K, c.SEGMENT),
    "What evaluate measured, with 95 % bootstrap intervals over users.",
    (
        RUN_ID,
        Column(c.MODEL, "string", "the model"),
        Column(c.METRIC, "string", "recall, precision, hit_rate, ndcg, map, mrr, coverage, …"),
        Column(c.K, "int", "length of the list"),
        Column(c.SEGMENT, "string", "all, or a named part of the test users"),
        Column(c.VALUE, "double", "mean over the test users of the segment"),
        Column(c.LOW, "double", "2.5 % point of the bootstrap; null for what is not a mean over 20 users or more"),
        Column(c.HIGH, "double", "97.5 % point"),
        Column(c.N_USERS, "bigint", "test users: the denominator"),
    ),
    partition_by=(c.RUN_ID,),
)

RUNS = Table(
    "runs",
    (c.RUN_ID, c.STAGE, c.STARTED),
    "A row for each stage that finished. It is the stage's commit: later stages read the versions it names.",
    (
        RUN_ID,
        Column(c.STAGE, "string", "the stage"),
        Column(c.DATE, "date", "the logical day; null for all data"),
        Column(c.STARTED, "timestamp", "when the stage started"),
        Column(c.SECONDS, "double", "how long it took"),
        Column(c.CONFIG_HASH, "string", "hash of the whole resolved configuration"),
        Column(c.CODE_VERSION, "string", "version of sparkrec"),
        Column(
            c.INPUTS,
            "map<string,bigint>",
            "table → Delta version that was read; of vectors by model: 'vectors.items of als'",
        ),
        Column(c.OUTPUTS, "map<string,bigint>", "table → Delta version that was written"),
        Column(
            c.COUNTS,
            "map<string,bigint>",
            "rows in, kept, duplicates, quarantined, and what else was counted",
        ),
        Column(c.DETAILS, "string", "JSON: what the report draws (refusals by rule, learning curve, …)"),
    ),
    skip_by=(c.RUN_ID, c.STAGE),
)

SUPPRESSED = Table(
    "privacy.suppressed",
    (c.DIGEST,),
    "Who was erased and must not come back with an old file: digests that only the lake's key can make.",
    (
        Column(c.DIGEST, "string", "HMAC-SHA256 of the user id as the lake held it, 128 bits in hex"),
        Column(c.TIME, "timestamp", "when the erasure began"),
    ),
)

AUDIT = Table(
    "privacy.audit",
    (c.RUN_ID, c.STAGE, c.STARTED),
    "Who ran what on which data, whether it succeeded or not. Append only; Delta refuses anything else.",
    (
        Column(c.TIME, "timestamp", "when it ended"),
        Column(c.ACTOR, "string", "SPARKREC_ACTOR, else the user of the operating system", PERSONAL),
        Column(c.STAGE, "string", "the stage or command"),
        RUN_ID,
        Column(c.STARTED, "timestamp", "when it began"),
        Column(c.OUTCOME, "string", "done, or the class of the error that ended it"),
        Column(c.INPUTS, "map<string,bigint>", "table → Delta version that was read"),
        Column(c.OUTPUTS, "map<string,bigint>", "table → Delta version that was written"),
        Column(c.DETAILS, "string", "JSON: of an erasure or an export how many persons, and a keyed digest of whom"),
    ),
    append_only=True,
)

TABLES: tuple[Table, ...] = (
    BRONZE_EVENTS,
    BRONZE_ITEMS,
    QUARANTINE,
    SILVER_EVENTS,
    SILVER_REPEATS,
    SILVER_ITEM_DAYS,
    SILVER_SUSPECTS,
    SILVER_ITEMS,
    VOCABULARY_USERS,
    VOCABULARY_ITEMS,
    VOCABULARY_FEATURES,
    GOLD_USERS,
    GOLD_PAIRS,
    GOLD_ITEMS,
    GOLD_ITEM_DAYS,
    GOLD_NEIGHBORS,
    GOLD_SEQUENCES,
    GOLD_HOLDOUT,
    VECTORS_USERS,
    VECTORS_ITEMS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    AUDIENCES,
    METRICS,
    RUNS,
    SUPPRESSED,
    AUDIT,
)
