"""Every table, once: its name, key, columns and layout. The names and keys are a contract with users.

``docs/tables.md`` is made from this module (``make docs``).
"""

from __future__ import annotations

from sparkrec import columns as c
from sparkrec.served import AUDIENCES, RECOMMENDATIONS, SIMILAR_ITEMS, VECTORS_ITEMS, VECTORS_USERS
from sparkrec.table import DATA_CLASSES, IDENTIFIER, PERSONAL, PUBLIC, RUN_ID, Column, Table

__all__ = ["DATA_CLASSES", "IDENTIFIER", "PERSONAL", "PUBLIC", "SCHEMA_VERSION", "TABLES", "Column", "Table"]

#: Written into every table. A table with another number is migrated or refused: see ``lake.migrations``.
SCHEMA_VERSION = 3


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
        Column(c.BUSIEST_HOUR, "bigint", "views, clicks and searches in the hour that has the most"),
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


def _vocabulary(what: str, id_column: str, index_column: str) -> Table:
    return Table(
        f"gold.vocabulary_{what}",
        (id_column,),
        f"{what.capitalize()} and their dense integers. New ids are appended; an index is never reused.",
        (
            Column(id_column, "string", "the id"),
            Column(index_column, "int", "0, 1, 2, …"),
            Column(c.COUNT, "bigint", "training events (of features: items) it occurs in"),
            Column(c.FIRST_SEEN, "timestamp", "time of its first training event; null if none"),
            Column(c.LAST_SEEN, "timestamp", "time of its last training event; null if none"),
        ),
    )


VOCABULARY_USERS = _vocabulary("users", c.USER_ID, c.USER_INDEX)
VOCABULARY_ITEMS = _vocabulary("items", c.ITEM_ID, c.ITEM_INDEX)
VOCABULARY_FEATURES = _vocabulary("features", c.FEATURE, c.FEATURE_INDEX)

GOLD_USERS = Table(
    "gold.users",
    (c.USER_INDEX,),
    "User profiles as of the split: from training events only.",
    (
        Column(c.USER_INDEX, "int", "index in gold.vocabulary_users"),
        Column(c.USER_ID, "string", "the user"),
        Column(c.AS_OF, "timestamp", "every number comes from events strictly before this time"),
        Column(c.COUNTRY, "string", "latest country"),
        Column(c.N_EVENTS, "bigint", "training events"),
        Column(c.N_VIEWS, "bigint", "views and clicks"),
        Column(c.N_CARTS, "bigint", "cart events"),
        Column(c.N_PURCHASES, "bigint", "purchases that were not cancelled"),
        Column(c.N_RATINGS, "bigint", "ratings and reviews"),
        Column(c.N_ITEMS, "bigint", "distinct items"),
        Column(c.MEAN_RATING, "double", "mean stars"),
        Column(c.MEAN_PRICE, "double", "mean price of the events that have one"),
        Column(c.SPEND, "double", "price × quantity over purchases"),
        Column(c.RECENCY_DAYS, "double", "days from the last event to as_of"),
        Column(c.TENURE_DAYS, "double", "days from the first event to as_of"),
        Column(c.ACTIVE_DAYS, "bigint", "calendar days (UTC) with an event"),
        Column(c.FREQUENCY, "double", "active_days / calendar days since the first event"),
        Column(c.PURCHASE_DAYS, "bigint", "calendar days with a purchase"),
        Column(c.PURCHASE_RATE, "double", "purchase_days per 30 calendar days since the first event"),
        Column(c.PURCHASE_GAP_DAYS, "double", "mean days from one day with a purchase to the next; null if under two"),
        Column(c.REPEAT_RATE, "double", "of the items bought, the share bought on two days or more; null if none"),
        Column(c.MEAN_ORDER, "double", "spend / purchase_days; null if none"),
        Column(c.PRICE_LEVEL, "double", "mean price_percentile of the items, an event each; null if unpriced"),
        Column(c.VIEW_TO_CART, "double", "of the items viewed, the share put in the cart; null if none"),
        Column(c.CART_TO_PURCHASE, "double", "of the items put in the cart, the share bought; null if none"),
        Column(c.VIEW_TO_PURCHASE, "double", "of the items viewed, the share bought; null if none"),
        Column(c.BRANDS, "array<int>", "the brands of most events, most first: indices of gold.vocabulary_features"),
        Column(c.BRAND_SHARES, "array<float>", "their shares of the events on items with a brand"),
        Column(c.CATEGORIES, "array<int>", "the categories (whole paths) of most events, as brands"),
        Column(c.CATEGORY_SHARES, "array<float>", "their shares of the events on items with a category"),
        Column(c.WEEKDAYS, "array<bigint>", "events on Monday, …, Sunday (UTC)"),
        Column(c.HOURS, "array<bigint>", "events from 0, …, 23 o'clock (UTC)"),
    ),
)

GOLD_ITEMS = Table(
    "gold.items",
    (c.ITEM_INDEX,),
    "Item features as of the split, every item of the vocabulary.",
    (
        Column(c.ITEM_INDEX, "int", "index in gold.vocabulary_items"),
        Column(c.ITEM_ID, "string", "the item"),
        Column(c.AS_OF, "timestamp", "every number comes from events strictly before this time"),
        Column(c.NAME, "string", "name that a person reads"),
        Column(c.BRAND, "string", "brand"),
        Column(c.CATEGORY, "array<string>", "category path, root first"),
        Column(c.BRAND_CODE, "int", "index of the brand in gold.vocabulary_features"),
        Column(c.CATEGORY_CODES, "array<int>", "indices of the path's prefixes there, root first"),
        Column(c.PRICE, "double", "price as of as_of; where it comes from is in price_source"),
        Column(
            c.PRICE_SOURCE, "string", "catalogue; events: median of its events; category, all: filled by their median"
        ),
        Column(c.PRICE_BUCKET, "int", "decile of the price among the priced items; null if filled or unpriced"),
        Column(c.PRICE_PERCENTILE, "double", "share of the category's prices below it, ties half; null if filled"),
        Column(c.PROMOTION, "double", "discount as a fraction of the price; 0 or null for none"),
        Column(c.STOCK, "double", "units in stock; null where not known"),
        Column(c.FOR_SALE, "boolean", "may be recommended"),
        Column(c.FEATURES, "array<int>", "indices of gold.vocabulary_features: category, brand, price, words"),
        Column(c.CONTENT, "array<float>", "text and ready-made vectors at one width; null without features.content"),
        Column(c.N_EVENTS, "bigint", "training events"),
        Column(c.N_VIEWS, "bigint", "views and clicks"),
        Column(c.N_CARTS, "bigint", "cart events"),
        Column(c.N_PURCHASES, "bigint", "purchases that were not cancelled"),
        Column(c.N_RATINGS, "bigint", "ratings and reviews"),
        Column(c.N_USERS, "bigint", "distinct users"),
        Column(c.MEAN_RATING, "double", "mean stars"),
        Column(c.AGE_DAYS, "double", "days from the first training event to as_of; null if none"),
        Column(c.POPULARITY, "double", "events, each worth 2^(−whole days before as_of / half_life_days)"),
        Column(c.VIEW_TO_CART, "double", "of the users who viewed it, the share who put it in the cart, smoothed"),
        Column(c.CART_TO_PURCHASE, "double", "of the users who put it in the cart, the share who bought it, smoothed"),
        Column(c.VIEW_TO_PURCHASE, "double", "of the users who viewed it, the share who bought it, smoothed"),
        Column(c.BAYES_RATING, "double", "mean stars, drawn to the mean of all where there are few"),
    ),
)

GOLD_NEIGHBORS = Table(
    "gold.item_neighbors",
    (c.RELATION, c.ITEM_INDEX, c.RANK),
    "Items that the same users met, by training events; where features.neighbors asks for them.",
    (
        Column(c.RELATION, "string", "seen: met in any way; bought: purchased"),
        Column(c.ITEM_INDEX, "int", "index in gold.vocabulary_items"),
        Column(c.RANK, "int", "1 has the largest cosine"),
        Column(c.NEIGHBOR_INDEX, "int", "index of the other item"),
        Column(c.COUNT, "bigint", "users who met (bought) both: of each user the newest neighbor_items count"),
        Column(c.LIFT, "double", "how many times more often than if users met the two independently"),
        Column(c.COSINE, "double", "count / √(users of the one × users of the other)"),
    ),
)

GOLD_SEQUENCES = Table(
    "gold.sequences",
    (c.USER_INDEX, c.CHUNK),
    "Each user's training events in time order, once; the arrays of a row have the same length.",
    (
        Column(c.USER_INDEX, "int", "index in gold.vocabulary_users"),
        Column(c.CHUNK, "int", "0 holds the newest max_length events, 1 those before, …"),
        Column(c.LENGTH, "int", "events in this chunk"),
        Column(c.ITEM_INDEX, "array<int>", "index in gold.vocabulary_items, oldest first"),
        Column(c.EVENT_TYPE, "array<tinyint>", "position in columns.EVENT_TYPES"),
        Column(c.EVENT_TIME, "array<bigint>", "unix seconds, UTC"),
        Column(c.VALUE, "array<float>", "stars or quantity; NaN where there is none"),
        Column(c.VALIDATION, "array<boolean>", "held out while hyper-parameters and epochs are chosen"),
    ),
)

GOLD_HOLDOUT = Table(
    "gold.holdout",
    (c.USER_ID, c.ITEM_ID),
    "The test part: what each user did after the split, one row a user and item. Read by evaluate only.",
    (
        Column(c.USER_ID, "string", "the user"),
        Column(c.ITEM_ID, "string", "the item"),
        Column(c.USER_INDEX, "int", "null: the user has no training event"),
        Column(c.ITEM_INDEX, "int", "null: the item was not known before the split"),
        Column(c.EVENT_TYPE, "string", "the strongest event type on this item"),
        Column(c.EVENT_TIME, "timestamp", "the first time in the test part"),
        Column(c.VALUE, "double", "mean stars, where there are any"),
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
        Column(c.LOW, "double", "2.5 % point of the bootstrap; null for what is not a mean over users"),
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
        Column(c.INPUTS, "map<string,bigint>", "table → Delta version that was read"),
        Column(c.OUTPUTS, "map<string,bigint>", "table → Delta version that was written"),
        Column(
            c.COUNTS,
            "map<string,bigint>",
            "rows in, kept, duplicates, quarantined, and what else was counted",
        ),
        Column(c.DETAILS, "string", "JSON: what the report draws (refusals by rule, learning curve, …)"),
    ),
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
    GOLD_ITEMS,
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
