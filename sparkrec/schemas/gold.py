"""The tables of gold: what featurize writes.

Of a user's rows an increment writes the blocks of users that it changes. Sums of doubles are kept as whole numbers and
millionths, each exact, so that a day can be added: see ``features.exact``.
"""

from __future__ import annotations

from sparkrec import columns as c
from sparkrec.table import Column, Table

_SUM = "struct<whole:bigint,rest:bigint>"
_USER_INDEX = Column(c.USER_INDEX, "int", "index in gold.vocabulary_users")
_USER_BLOCK = Column(c.USER_BLOCK, "int", "user_index div features.block_users: the folder")
_TOTALS = (
    Column(c.N_EVENTS, "bigint", "training events"),
    Column(c.N_VIEWS, "bigint", "views and clicks"),
    Column(c.N_CARTS, "bigint", "cart events"),
    Column(c.N_PURCHASES, "bigint", "purchases that were not cancelled"),
    Column(c.N_RATINGS, "bigint", "ratings and reviews"),
    Column(c.STARS, _SUM, "sum of the stars"),
    Column(c.N_STARS, "bigint", "ratings and reviews with stars"),
    Column(c.FIRST_SEEN, "timestamp", "time of the first training event"),
    Column(c.LAST_SEEN, "timestamp", "time of the last training event"),
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
    "User profiles from training events. Nothing in a row depends on when it was written: recency, tenure, frequency "
    "and purchase rate as of a moment are those of features.users.as_of.",
    (
        _USER_INDEX,
        Column(c.USER_ID, "string", "the user"),
        Column(c.COUNTRY, "string", "latest country"),
        *_TOTALS,
        Column(c.N_ITEMS, "bigint", "distinct items"),
        Column(c.MEAN_RATING, "double", "mean stars"),
        Column(c.MEAN_PRICE, "double", "mean price of the events that have one"),
        Column(c.SPEND, "double", "price × quantity over purchases"),
        Column(c.ACTIVE_DAYS, "bigint", "calendar days (UTC) with an event"),
        Column(c.PURCHASE_DAYS, "bigint", "calendar days with a purchase"),
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
        Column(c.PAID, _SUM, "sum of the prices of the events that have one"),
        Column(c.N_PRICES, "bigint", "how many those are"),
        Column(c.SPENT, _SUM, "sum of price × quantity over purchases"),
        Column(c.FIRST_BOUGHT, "date", "first day with a purchase"),
        Column(c.LAST_BOUGHT, "date", "last day with a purchase"),
        Column(c.COUNTRY_SEEN, "timestamp", "time of the last event with a country"),
        _USER_BLOCK,
    ),
    partition_by=(c.USER_BLOCK,),
)

GOLD_PAIRS = Table(
    "gold.pairs",
    (c.USER_INDEX, c.ITEM_ID),
    "What each user did with each item, by training events: what item features and tastes are folded from.",
    (
        _USER_INDEX,
        Column(c.ITEM_ID, "string", "the item"),
        *_TOTALS,
        Column(c.FIRST_BOUGHT, "timestamp", "time of the first purchase"),
        Column(c.LAST_BOUGHT, "timestamp", "time of the last purchase"),
        Column(c.TYPES, "int", "what was done: bit n for the type at position n of columns.EVENT_TYPES"),
        _USER_BLOCK,
    ),
    partition_by=(c.USER_BLOCK,),
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

GOLD_ITEM_DAYS = Table(
    "gold.item_days",
    (c.ITEM_ID, c.EVENT_DATE, c.PRICE),
    "Training events of an item by day and price: what popularity and median prices are folded from.",
    (
        Column(c.ITEM_ID, "string", "the item"),
        Column(c.EVENT_DATE, "date", "the day in which the event lies, counted back from the hour of as_of"),
        Column(c.PRICE, "double", "price of the events; null: they have none"),
        Column(c.COUNT, "bigint", "training events"),
    ),
)

GOLD_NEIGHBORS = Table(
    "gold.item_neighbors",
    (c.RELATION, c.ITEM_INDEX, c.RANK),
    "Items that the same users met, by training events; where features.neighbors asks for them.",
    (
        Column(c.RELATION, "string", "seen: met in any way; bought: purchased"),
        Column(c.ITEM_INDEX, "int", "index in gold.vocabulary_items"),
        Column(c.RANK, "int", "1 has the largest cosine; of bought, the largest lower bound of the lift"),
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
        _USER_INDEX,
        Column(c.CHUNK, "int", "0 holds the newest max_length events, 1 those before, …"),
        Column(c.LENGTH, "int", "events in this chunk"),
        Column(c.ITEM_INDEX, "array<int>", "index in gold.vocabulary_items, oldest first"),
        Column(c.EVENT_TYPE, "array<tinyint>", "position in columns.EVENT_TYPES"),
        Column(c.EVENT_TIME, "array<bigint>", "unix seconds, UTC"),
        Column(c.VALUE, "array<float>", "stars or quantity; NaN where there is none"),
        Column(c.VALIDATION, "array<boolean>", "held out while hyper-parameters and epochs are chosen"),
        _USER_BLOCK,
    ),
    partition_by=(c.USER_BLOCK,),
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
        Column(c.COUNTRY, "string", "the user's country at that time, where the log has one"),
        Column(c.FIRST_TYPE, "string", "the event type at that time: what was known of the item until it came again"),
    ),
)
