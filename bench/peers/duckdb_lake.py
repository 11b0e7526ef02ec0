"""The simulated shop's logs to silver and gold in DuckDB: ``duckdb_lake.py LOGS OUT THREADS MEMORY``.

The same rows kept, merged, refused and put into sequences as by clean and featurize at conf/demo.yaml's settings; the
counts are printed and compared. What it does not do: keep line numbers, reasons with the text found, versions.
"""

# ruff: noqa: E501
import json
import sys
import time

import duckdb

TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?)?$"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
FIELDS = {
    "user_id": "user", "item_id": "sku", "type": "type", "time_text": "ts", "stars": "stars", "qty": "qty",
    "price_text": "price", "currency": "currency", "query": "q", "text": "text", "session_id": "session",
    "order_id": "order", "country": "country",
}  # fmt: skip

CLEAN = f"""
CREATE TABLE items AS
SELECT sku AS item_id, CAST(updated AS TIMESTAMP) AS valid_from, title AS name, brand,
       list_transform(string_split(category, '>'), lambda x: trim(x)) AS category,
       TRY_CAST(price AS DOUBLE) AS price, TRY_CAST(stock AS DOUBLE) AS stock, TRY_CAST(promotion AS DOUBLE) AS promotion,
       description AS text, colour, series
FROM read_csv('$logs/catalogue/*/*.csv', header = true, all_varchar = true);

CREATE TABLE raw AS
SELECT raw, filename, CASE WHEN json_valid(raw) THEN raw::JSON END AS json
FROM read_csv('$logs/events/*/*.json', columns = {{'raw': 'VARCHAR'}}, delim = '\x01', quote = '', escape = '',
              header = false, auto_detect = false, filename = true, hive_partitioning = false);

CREATE TABLE fields AS
SELECT raw, filename, json IS NULL AS malformed,
       {", ".join(f"json->>'$.{theirs}' AS {ours}" for ours, theirs in FIELDS.items())}
FROM raw;
DROP TABLE raw;

CREATE TABLE merged AS
SELECT md5(CASE WHEN malformed THEN raw ELSE concat_ws(chr(31), {", ".join(f"coalesce({x}, chr(0))" for x in FIELDS)})
           END) AS event_id,
       count(*)::INT AS copies, min(filename) AS source_file, any_value(raw) AS raw, any_value(malformed) AS malformed,
       {", ".join(f"any_value({x}) AS {x}" for x in FIELDS)}
FROM fields GROUP BY 1;
DROP TABLE fields;

CREATE TABLE checked AS
WITH typed AS (
    SELECT *, CASE type WHEN 'add_to_cart' THEN 'cart' WHEN 'order' THEN 'purchase' WHEN 'remove_from_cart' THEN 'remove'
                        WHEN 'return' THEN 'cancel' ELSE type END AS event_type,
           CASE WHEN regexp_matches(time_text, '{TIME}') THEN TRY_CAST(time_text AS TIMESTAMPTZ) END AS event_time,
           coalesce(stars, qty) AS value_text,
           CASE WHEN regexp_matches(coalesce(stars, qty), '{NUMBER}') THEN TRY_CAST(coalesce(stars, qty) AS DOUBLE) END AS value,
           CASE WHEN regexp_matches(price_text, '{NUMBER}') THEN TRY_CAST(price_text AS DOUBLE) END AS price
    FROM merged
), known AS (SELECT DISTINCT item_id, true AS known FROM items)
SELECT typed.*, CASE
    WHEN malformed THEN 'malformed'
    WHEN event_type IS NULL OR event_type NOT IN
         ('view', 'click', 'cart', 'purchase', 'search', 'rating', 'review', 'remove', 'cancel') THEN 'unknown_event_type'
    WHEN coalesce(trim(user_id), '') = '' THEN 'missing_user'
    WHEN coalesce(trim(typed.item_id), '') = '' AND event_type <> 'search' THEN 'missing_item'
    WHEN event_time IS NULL THEN 'unreadable_time'
    WHEN event_time < TIMESTAMPTZ '1995-01-01 00:00:00+00' OR event_time >= date_trunc('day', now()) + INTERVAL 1 DAY
         THEN 'impossible_time'
    WHEN coalesce(trim(value_text), '') <> '' AND value IS NULL THEN 'value_not_a_number'
    WHEN coalesce(trim(price_text), '') <> '' AND price IS NULL THEN 'price_not_a_number'
    WHEN event_type IN ('rating', 'review') AND (value NOT BETWEEN 0.5 AND 5) THEN 'bad_rating'
    WHEN event_type = 'rating' AND value IS NULL THEN 'bad_rating'
    WHEN event_type IN ('purchase', 'cart') AND value <= 0 OR abs(value) > 1e6 THEN 'bad_quantity'
    WHEN event_type = 'purchase' AND price <= 0 OR price < 0 OR price > 1e6 THEN 'bad_price'
    WHEN known IS NULL AND coalesce(trim(typed.item_id), '') <> '' THEN 'unknown_item'
    END AS rule
FROM typed LEFT JOIN known ON trim(typed.item_id) = known.item_id;
DROP TABLE merged;

COPY (SELECT source_file, raw, rule, copies FROM checked WHERE rule IS NOT NULL) TO '$out/quarantine.parquet';

CREATE TABLE near AS
WITH gaps AS (
    SELECT event_id, user_id, item_id, event_type, event_time, abs(value) AS value, CASE WHEN price > 0 THEN price END AS price,
           currency, query, text, session_id, order_id, country, copies, source_file,
           event_time - lag(event_time) OVER same > INTERVAL 1 SECOND AS late, lag(event_time) OVER same IS NULL AS first
    FROM checked WHERE rule IS NULL
    WINDOW same AS (PARTITION BY user_id, item_id, event_type, query ORDER BY event_time, event_id)
), chains AS (
    SELECT *, sum((first OR late)::INT) OVER (PARTITION BY user_id, item_id, event_type, query
                                              ORDER BY event_time, event_id ROWS UNBOUNDED PRECEDING) AS chain FROM gaps
)
SELECT * EXCLUDE (late, first, chain, copies),
       sum(copies) OVER (PARTITION BY user_id, item_id, event_type, query, chain)::INT AS copies
FROM chains QUALIFY first OR late;

CREATE TABLE silver AS
WITH buys AS (SELECT *, row_number() OVER (PARTITION BY user_id, item_id, order_id ORDER BY event_time DESC) AS n
              FROM near WHERE event_type = 'purchase'),
     returns AS (SELECT *, row_number() OVER (PARTITION BY user_id, item_id, order_id ORDER BY event_time) AS n
                 FROM near WHERE event_type = 'cancel'),
     taken AS (SELECT buys.event_id, returns.event_time AS cancelled_at FROM buys
               JOIN returns USING (user_id, item_id, order_id, n) WHERE buys.event_time <= returns.event_time),
     busy AS (SELECT user_id, min(day) AS since FROM (
                  SELECT user_id, event_time::DATE AS day, count(*) AS n FROM near GROUP BY ALL) WHERE n > 200 GROUP BY 1)
SELECT near.*, cancelled_at, event_time::DATE AS event_date, coalesce(event_time::DATE >= since, false) AS suspect
FROM near LEFT JOIN taken USING (event_id) LEFT JOIN busy USING (user_id);
DROP TABLE near;
COPY (SELECT * FROM silver ORDER BY event_date, user_id, event_time)
  TO '$out/silver' (FORMAT parquet, PARTITION_BY (event_date), OVERWRITE_OR_IGNORE);
COPY items TO '$out/items.parquet';
"""

FEATURIZE = """
SET VARIABLE fin = (SELECT max(event_date) + INTERVAL 1 DAY FROM silver
                    WHERE event_type IN ('view', 'click', 'cart', 'purchase', 'rating', 'review'));
SET VARIABLE as_of = getvariable('fin')::TIMESTAMPTZ - INTERVAL 7 DAY;
SET VARIABLE validation = getvariable('fin')::TIMESTAMPTZ - INTERVAL 14 DAY;

CREATE TABLE used AS
WITH since AS (SELECT user_id, min(event_date)::TIMESTAMPTZ AS since FROM silver WHERE suspect GROUP BY 1)
SELECT silver.*, CASE WHEN event_time < getvariable('as_of') THEN getvariable('as_of') ELSE getvariable('fin')::TIMESTAMPTZ END AS horizon
FROM silver LEFT JOIN since USING (user_id)
WHERE event_type IN ('view', 'click', 'cart', 'purchase', 'rating', 'review') AND item_id IS NOT NULL
  AND coalesce(since >= horizon, true) AND coalesce(cancelled_at >= horizon, true);
CREATE VIEW train AS SELECT * FROM used WHERE event_time < getvariable('as_of');

CREATE TABLE state AS
SELECT DISTINCT ON (item_id) * FROM items WHERE valid_from::TIMESTAMPTZ <= getvariable('as_of') ORDER BY item_id, valid_from DESC;

CREATE TABLE by_user AS
SELECT user_id, count(*) AS n_events, count_if(event_type IN ('view', 'click')) AS n_views,
       count_if(event_type = 'cart') AS n_carts, count_if(event_type = 'purchase') AS n_purchases,
       count_if(event_type IN ('rating', 'review')) AS n_ratings, count(DISTINCT item_id) AS n_items,
       avg(value) FILTER (event_type IN ('rating', 'review')) AS mean_rating, avg(price) AS mean_price,
       sum(price * coalesce(value, 1)) FILTER (event_type = 'purchase') AS spend, arg_max(country, event_time) AS country,
       min(event_time) AS first_seen, max(event_time) AS last_seen
FROM train GROUP BY 1;
CREATE TABLE users AS
SELECT *, (row_number() OVER (ORDER BY first_seen, length(user_id), user_id) - 1)::INT AS user_index FROM by_user;
COPY users TO '$out/users.parquet';

CREATE TABLE by_item AS
SELECT item_id, count(*) AS n_events, count_if(event_type IN ('view', 'click')) AS n_views,
       count_if(event_type = 'cart') AS n_carts, count_if(event_type = 'purchase') AS n_purchases,
       count_if(event_type IN ('rating', 'review')) AS n_ratings, count(DISTINCT user_id) AS n_users,
       avg(value) FILTER (event_type IN ('rating', 'review')) AS mean_rating, median(price) AS median_price,
       min(event_time) AS first_seen
FROM train GROUP BY 1;
CREATE TABLE members AS
SELECT *, (row_number() OVER (ORDER BY first_seen NULLS LAST, length(item_id), item_id) - 1)::INT AS item_index,
       ntile(10) OVER (ORDER BY coalesce(price, median_price)) - 1 AS price_bucket
FROM by_item FULL JOIN state USING (item_id);

CREATE TABLE words AS
WITH found AS (SELECT item_id, unnest(list_distinct(regexp_split_to_array(lower(concat_ws(' ', name, text)), '[^\\p{L}\\p{N}]+')))
               AS word FROM members),
     counted AS (SELECT word, count(*) AS n FROM found WHERE length(word) >= 3 GROUP BY 1
                 HAVING n >= 2 AND n <= (SELECT count(*) / 2 FROM members) ORDER BY n DESC, word LIMIT 2000)
SELECT item_id, 'word=' || word AS feature, (1::BIGINT << 32) + n AS priority FROM found JOIN counted USING (word);
CREATE TABLE features AS
SELECT item_id, feature, min(priority) AS priority FROM (
    SELECT item_id, 'category=' || array_to_string(category[1:i], ' > ') AS feature, i AS priority
    FROM members, range(1, 9) depth(i) WHERE i <= len(category)
    UNION ALL SELECT item_id, 'brand=' || brand, 20 FROM members WHERE brand IS NOT NULL
    UNION ALL SELECT item_id, 'price=' || price_bucket, 30 FROM members WHERE coalesce(price, median_price) IS NOT NULL
    UNION ALL SELECT item_id, 'colour=' || colour, 40 FROM members WHERE colour IS NOT NULL
    UNION ALL SELECT item_id, 'series=' || series, 50 FROM members WHERE series IS NOT NULL
    UNION ALL SELECT item_id, feature, priority FROM words) GROUP BY ALL;
CREATE TABLE strings AS
SELECT feature, count(*) AS n, (row_number() OVER (ORDER BY length(feature), feature) - 1)::INT AS feature_index
FROM features GROUP BY 1;
COPY strings TO '$out/features.parquet';
COPY (
    WITH lists AS (SELECT item_id, list(feature_index ORDER BY priority, feature)[1:32] AS features
                   FROM features JOIN strings USING (feature) GROUP BY 1)
    SELECT * FROM members LEFT JOIN lists USING (item_id)) TO '$out/gold_items.parquet';

COPY (
    WITH events AS (
        SELECT user_index, list({'time': event_time, 'item': item_index, 'type': event_type, 'value': value::FLOAT,
                                 'validation': event_time >= getvariable('validation')} ORDER BY event_time, source_file, item_index) AS e
        FROM train JOIN users USING (user_id) JOIN members USING (item_id) GROUP BY 1)
    SELECT user_index, i AS chunk, e[greatest(len(e) - 200 * (i + 1), 0) + 1 : len(e) - 200 * i] AS e
    FROM events, LATERAL (SELECT unnest(range((len(e) + 199) // 200)) AS i)) TO '$out/sequences.parquet';

COPY (
    WITH asked AS (SELECT user_id, item_id, min(event_time) AS event_time FROM used WHERE event_time >= getvariable('as_of') GROUP BY ALL)
    SELECT asked.*, user_index, item_index FROM asked LEFT JOIN users USING (user_id) LEFT JOIN members USING (item_id)
    WHERE NOT EXISTS (FROM train WHERE train.user_id = asked.user_id AND train.item_id = asked.item_id)) TO '$out/holdout.parquet';
"""

CHECK = """
SELECT (SELECT count(*) FROM silver) AS kept, (SELECT count(*) FROM checked WHERE rule IS NOT NULL) AS quarantined,
       (SELECT count(*) FROM train) AS training, (SELECT count(*) FROM users) AS users,
       (SELECT count(*) FROM members) AS items, (SELECT sum(len(e)) FROM '$out/sequences.parquet') AS in_sequences,
       (SELECT count(*) FROM '$out/holdout.parquet') AS test_pairs
"""


def main() -> None:
    logs, out, threads, memory = sys.argv[1:]
    connection = duckdb.connect(f"{out}/work.duckdb", config={"threads": threads, "memory_limit": memory})
    connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    result: dict[str, object] = {}
    for stage, sql in (("clean", CLEAN), ("featurize", FEATURIZE)):
        started = time.perf_counter()
        for statement in sql.replace("$logs", logs).replace("$out", out).split(";\n"):
            connection.execute(statement)
        result[stage] = time.perf_counter() - started
    checked = connection.execute(CHECK.replace("$out", out))
    names = [column[0] for column in checked.description]
    row = checked.fetchone()
    result["counts"] = dict(zip(names, map(int, row or ()), strict=True))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
