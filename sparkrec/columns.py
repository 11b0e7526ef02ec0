"""Every column name, once. ``from sparkrec import columns as c``, then ``c.USER_ID``."""

# --- where a row came from -------------------------------------------------------------------------------
SOURCE_FILE = "source_file"
SOURCE_BYTES = "source_bytes"
LINE = "line"
HEADER = "header"
RAW = "raw"
INGEST_TIME = "ingest_time"
RUN_ID = "run_id"

# --- events ----------------------------------------------------------------------------------------------
EVENT_ID = "event_id"
USER_ID = "user_id"
ITEM_ID = "item_id"
EVENT_TYPE = "event_type"
EVENT_TIME = "event_time"
EVENT_DATE = "event_date"
VALUE = "value"
PRICE = "price"
CURRENCY = "currency"
QUERY = "query"
TEXT = "text"
SESSION_ID = "session_id"
ORDER_ID = "order_id"
COUNTRY = "country"
SPLIT = "split"
MALFORMED = "malformed"
ITEM_NAME = "item_name"
ITEM_BRAND = "item_brand"
ITEM_CATEGORY = "item_category"
CANCELLED = "cancelled"
CANCELLED_AT = "cancelled_at"
COPIES = "copies"
MERGED_INTO = "merged_into"

# --- items -----------------------------------------------------------------------------------------------
VALID_FROM = "valid_from"
NAME = "name"
BRAND = "brand"
CATEGORY = "category"
STOCK = "stock"
PROMOTION = "promotion"
FOR_SALE = "for_sale"
ATTRIBUTES = "attributes"

# --- refused rows ----------------------------------------------------------------------------------------
TABLE = "table_name"
STAGE = "stage"
RULE = "rule"
RULES = "rules"
NOTES = "notes"
REMARK = "remark"
REASON = "reason"

# --- users that are no persons ---------------------------------------------------------------------------
REASONS = "reasons"
N_HOURS = "n_hours"
BUSIEST_HOUR = "busiest_hour"
N_GAPS = "n_gaps"
GAP_SPREAD = "gap_spread"
LONGEST_BROWSING = "longest_browsing"

# --- gold ------------------------------------------------------------------------------------------------
USER_INDEX = "user_index"
USER_BLOCK = "user_block"
ITEM_INDEX = "item_index"
FEATURE = "feature"
FEATURE_INDEX = "feature_index"
FEATURES = "features"
COUNT = "count"
FIRST_SEEN = "first_seen"
FIRST_TYPE = "first_type"
LAST_SEEN = "last_seen"
AS_OF = "as_of"
CHUNK = "chunk"
LENGTH = "length"
VALIDATION = "validation"
N_EVENTS = "n_events"
N_VIEWS = "n_views"
N_CARTS = "n_carts"
N_PURCHASES = "n_purchases"
N_RATINGS = "n_ratings"
STARS, N_STARS = "stars", "n_stars"
PAID, N_PRICES, SPENT = "paid", "n_prices", "spent"
FIRST_BOUGHT, LAST_BOUGHT = "first_bought", "last_bought"
COUNTRY_SEEN = "country_seen"
TYPES = "types"
N_USERS = "n_users"
N_ITEMS = "n_items"
MEAN_RATING = "mean_rating"
MEAN_PRICE = "mean_price"
SPEND = "spend"
RECENCY_DAYS = "recency_days"
TENURE_DAYS = "tenure_days"
AGE_DAYS = "age_days"
PRICE_BUCKET = "price_bucket"
PRICE_SOURCE = "price_source"
PRICE_PERCENTILE = "price_percentile"
PRICE_LEVEL = "price_level"
CATEGORY_CODES = "category_codes"
BRAND_CODE = "brand_code"
POPULARITY = "popularity"
BAYES_RATING = "bayes_rating"
VIEW_TO_CART = "view_to_cart"
CART_TO_PURCHASE = "cart_to_purchase"
VIEW_TO_PURCHASE = "view_to_purchase"
ACTIVE_DAYS = "active_days"
PURCHASE_DAYS = "purchase_days"
FREQUENCY = "frequency"
PURCHASE_RATE = "purchase_rate"
PURCHASE_GAP_DAYS = "purchase_gap_days"
REPEAT_RATE = "repeat_rate"
MEAN_ORDER = "mean_order"
BRANDS, BRAND_SHARES = "brands", "brand_shares"
CATEGORIES, CATEGORY_SHARES = "categories", "category_shares"
CONTENT = "content"
RELATION = "relation"
NEIGHBOR_INDEX = "neighbor_index"
LIFT, COSINE = "lift", "cosine"
WEEKDAYS, HOURS = "weekdays", "hours"

# --- models and what they write --------------------------------------------------------------------------
MODEL = "model"
VECTOR = "vector"
RANK = "rank"
SCORE = "score"
SOURCE = "source"
PROPENSITY = "propensity"
NEIGHBOR_ID = "neighbor_id"
CAMPAIGN = "campaign"
METRIC = "metric"
K = "k"
SEGMENT = "segment"
LOW = "low"
HIGH = "high"

# --- run records -----------------------------------------------------------------------------------------
DATE = "date"
STARTED = "started"
SECONDS = "seconds"
CONFIG_HASH = "config_hash"
CODE_VERSION = "code_version"
INPUTS = "inputs"
OUTPUTS = "outputs"
COUNTS = "counts"
DETAILS = "details"

# --- who did what, and who was erased --------------------------------------------------------------------
TIME = "time"
ACTOR = "actor"
OUTCOME = "outcome"
DIGEST = "digest"

# --- event types: the position is the code that gold.sequences stores; append only ----------------------
VIEW, CLICK, CART, PURCHASE, SEARCH, RATING, REVIEW, REMOVE, CANCEL = EVENT_TYPES = (
    "view",
    "click",
    "cart",
    "purchase",
    "search",
    "rating",
    "review",
    "remove",
    "cancel",
)

TRAIN, TEST = "train", "test"

#: The user id of the list that everyone without a list of their own is served.
ANYONE = "*"
