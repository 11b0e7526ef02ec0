"""The simulated shop's logs to silver and gold in Polars: ``polars_lake.py LOGS OUT THREADS MEMORY``.

As ``duckdb_lake.py``: the same rows kept, merged, refused and put into sequences as by clean and featurize at
conf/demo.yaml's settings. Lazy and streaming where Polars can; its memory has no limit.
"""

import datetime as dt
import json
import os
import sys
import time

os.environ["POLARS_MAX_THREADS"] = sys.argv[3]

import polars as pl

FIELDS = ("user", "sku", "type", "ts", "stars", "qty", "price", "currency", "q", "text", "session", "order", "country")
TYPES = {"add_to_cart": "cart", "order": "purchase", "remove_from_cart": "remove", "return": "cancel"}
KNOWN = ("view", "click", "cart", "purchase", "search", "rating", "review", "remove", "cancel")
USED = ("view", "click", "cart", "purchase", "rating", "review")
TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?)?$"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
SAME = ("user", "sku", "kind", "q")

col, lit = pl.col, pl.lit


def number(name: str) -> pl.Expr:
    return pl.when(col(name).str.contains(NUMBER)).then(col(name).cast(pl.Float64, strict=False))


def clean(logs: str, out: str) -> dict[str, int]:
    items = pl.scan_csv(f"{logs}/catalogue/*/*.csv", infer_schema=False).with_columns(
        col("updated").str.to_datetime(time_zone="UTC"), col("category").str.split(" > "), number("price")
    )
    items.sink_parquet(f"{out}/items.parquet")
    raw = pl.scan_csv(
        f"{logs}/events/*/*.json", separator="\x01", quote_char=None, has_header=False, new_columns=["raw"],
        include_file_paths="source_file", infer_schema=False,
    ).with_columns(bad=~col("raw").str.ends_with("}"))  # fmt: skip
    struct = pl.Struct(dict.fromkeys(FIELDS, pl.String))
    read = raw.with_columns(
        fields=pl.when("bad").then(lit("{}")).otherwise("raw").str.json_decode(struct),
        damaged=pl.when("bad").then("raw"),
    ).unnest("fields")
    merged = read.group_by(*FIELDS, "damaged").agg(
        copies=pl.len(), source_file=col("source_file").min(), raw=col("raw").first()
    )
    known = items.select(sku="sku", known=lit(value=True)).unique()
    kind, value, price, when = col("kind"), col("value"), col("cost"), col("time")
    typed = merged.join(known, on="sku", how="left").with_columns(
        kind=col("type").replace(TYPES),
        time=pl.when(col("ts").str.contains(TIME)).then(col("ts").str.to_datetime(time_zone="UTC", strict=False)),
        quantity=pl.coalesce("stars", "qty"),
        cost=number("price"),
    )
    typed = typed.with_columns(value=number("quantity"))
    tomorrow = dt.datetime.combine(dt.datetime.now(dt.UTC).date() + dt.timedelta(1), dt.time(), dt.UTC)
    has_item = col("sku").str.strip_chars().fill_null("") != ""
    rules = {
        "malformed": col("damaged").is_not_null(),
        "unknown_event_type": kind.is_null() | ~kind.is_in(KNOWN),
        "missing_user": col("user").str.strip_chars().fill_null("") == "",
        "missing_item": ~has_item & (kind != "search"),
        "unreadable_time": when.is_null(),
        "impossible_time": (when < dt.datetime(1995, 1, 1, tzinfo=dt.UTC)) | (when >= tomorrow),
        "value_not_a_number": (col("quantity").str.strip_chars() != "") & value.is_null(),
        "price_not_a_number": (col("price").str.strip_chars() != "") & price.is_null(),
        "bad_rating": kind.is_in(("rating", "review")) & ~value.is_between(0.5, 5)
        | (kind == "rating") & value.is_null(),
        "bad_quantity": kind.is_in(("purchase", "cart")) & (value <= 0) | (value.abs() > 1e6),
        "bad_price": (kind == "purchase") & (price <= 0) | (price < 0) | (price > 1e6),
        "unknown_item": col("known").is_null() & has_item,
    }
    rule = pl.coalesce(pl.when(broken.fill_null(value=False)).then(lit(name)) for name, broken in rules.items())
    checked = typed.with_columns(rule=rule).collect(engine="streaming")
    refused = checked.filter(col("rule").is_not_null())
    refused.select("source_file", "raw", "rule", "copies").write_parquet(f"{out}/quarantine.parquet")

    gap = col("time").diff().over(SAME, order_by="time") > dt.timedelta(seconds=1)
    kept = checked.lazy().filter(col("rule").is_null()).drop("raw", "rule", "damaged", "known", "quantity", "price")
    kept = kept.with_columns(starts=gap.fill_null(value=True))
    kept = kept.with_columns(chain=col("starts").cast(pl.Int32).cum_sum().over(SAME, order_by="time"))
    near = kept.with_columns(copies=col("copies").sum().over(*SAME, "chain")).filter("starts").drop("starts", "chain")
    near = near.with_columns(date=col("time").dt.date(), value=col("value").abs(), event=pl.int_range(pl.len()))

    trade = ("user", "sku", "order")
    buys = near.filter(kind == "purchase").with_columns(n=col("time").rank("ordinal", descending=True).over(trade))
    returns = near.filter(kind == "cancel").with_columns(n=col("time").rank("ordinal").over(trade))
    taken = (
        buys.join(returns.select(*trade, "n", cancelled_at="time"), on=[*trade, "n"])
        .filter(col("time") <= col("cancelled_at"))
        .select("event", "cancelled_at")
    )
    busy = near.group_by("user", "date").len().filter(col("len") > 200).group_by("user").agg(since=col("date").min())
    silver = near.join(taken, on="event", how="left").join(busy, on="user", how="left")
    silver = silver.with_columns(suspect=(col("date") >= col("since")).fill_null(value=False))
    whole = silver.sort("date", "user", "time").collect(engine="streaming")
    whole.write_parquet(f"{out}/silver.parquet")
    return {"kept": whole.height, "quarantined": refused.height}


def featurize(out: str) -> dict[str, int]:
    silver, items = pl.scan_parquet(f"{out}/silver.parquet"), pl.scan_parquet(f"{out}/items.parquet")
    used = col("kind").is_in(USED)
    newest: dt.date = silver.filter(used).select(col("date").max()).collect().item()
    end = dt.datetime.combine(newest + dt.timedelta(1), dt.time(), dt.UTC)
    as_of, validation = end - dt.timedelta(7), end - dt.timedelta(14)
    horizon = pl.when(col("time") < as_of).then(lit(as_of)).otherwise(lit(end))
    since = col("since").cast(pl.Datetime).dt.replace_time_zone("UTC")
    events = silver.filter(
        used & col("sku").is_not_null() & (since >= horizon).fill_null(value=True)
        & (col("cancelled_at") >= horizon).fill_null(value=True)
    ).collect(engine="streaming").lazy()  # fmt: skip
    train = events.filter(col("time") < as_of)
    kind, stars = col("kind"), col("kind").is_in(("rating", "review"))
    numbers = {
        "n_events": pl.len(),
        "n_views": kind.is_in(("view", "click")).sum(),
        "n_carts": (kind == "cart").sum(),
        "n_purchases": (kind == "purchase").sum(),
        "n_ratings": stars.sum(),
        "mean_rating": col("value").filter(stars).mean(),
        "first_seen": col("time").min(),
        "last_seen": col("time").max(),
    }
    bought = (col("cost") * col("value").fill_null(1)).filter(kind == "purchase").sum()
    users = train.group_by("user").agg(
        **numbers, n_items=col("sku").n_unique(), mean_price=col("cost").mean(), spend=bought,
        country=col("country").sort_by("time").last(),
    ).sort("first_seen", col("user").str.len_chars(), "user").with_row_index("user_index").collect()  # fmt: skip
    users.write_parquet(f"{out}/users.parquet")

    state = items.filter(col("updated") <= as_of).sort("updated").group_by("sku").last()
    by_item = train.group_by("sku").agg(**numbers, n_users=col("user").n_unique(), median_price=col("cost").median())
    members = by_item.join(state, on="sku", how="full", coalesce=True)
    members = members.with_columns(price=pl.coalesce("price", "median_price"))
    members = members.with_columns(bucket=((col("price").rank() - 1) * 10 / col("price").count()).cast(pl.Int32))
    members = members.sort(col("first_seen"), col("sku").str.len_chars(), "sku", nulls_last=True).with_row_index(
        "item_index"
    )
    known = members.collect()

    text = pl.concat_str("title", "description", separator=" ", ignore_nulls=True).str.to_lowercase()
    found = known.lazy().select("sku", word=text.str.extract_all(r"[\p{L}\p{N}]{3,}").list.unique()).explode("word")
    counted = found.group_by("word").len().filter((col("len") >= 2) & (col("len") <= known.height / 2))
    counted = counted.sort(col("len"), "word", descending=[True, False]).head(2000)
    words = found.join(counted, on="word").select(
        "sku", feature=lit("word=") + col("word"), priority=col("len").cast(pl.Int64) + (1 << 32)
    )
    depth = pl.concat([
        known.lazy().filter(col("category").list.len() >= i).select(
            "sku", feature=lit("category=") + col("category").list.head(i).list.join(" > "), priority=lit(i, pl.Int64)
        ) for i in range(1, 9)
    ])  # fmt: skip
    single = pl.concat([
        known.lazy().filter(col(name).is_not_null()).select(
            "sku", feature=lit(f"{name}=") + col(name).cast(pl.String), priority=lit(20 + i, pl.Int64)
        ) for i, name in enumerate(("brand", "bucket", "colour", "series"))
    ])  # fmt: skip
    features = pl.concat([depth, single, words]).collect()
    strings = features.group_by("feature").len().sort(col("feature").str.len_chars(), "feature").with_row_index("index")
    strings.write_parquet(f"{out}/features.parquet")
    lists = (
        features.lazy().join(strings.lazy(), on="feature").sort("priority", "feature")
        .group_by("sku").agg(features=col("index").head(32))
    )  # fmt: skip
    known.lazy().join(lists, on="sku", how="left").sink_parquet(f"{out}/gold_items.parquet")

    event = pl.struct(
        "time",
        "source_file",
        "item_index",
        "kind",
        value=col("value").cast(pl.Float32),
        validation=col("time") >= validation,
    )
    sequences = (
        train.join(users.lazy().select("user", "user_index"), on="user")
        .join(known.lazy().select("sku", "item_index"), on="sku")
        .sort("user_index", "time", "source_file", "item_index")
        .with_columns(chunk=pl.int_range(pl.len(), 0, -1).over("user_index") // 200)
        .group_by("user_index", "chunk", maintain_order=True).agg(events=event)
    )  # fmt: skip
    sequences.sink_parquet(f"{out}/sequences.parquet")

    met = train.select("user", "sku").unique()
    asked = events.filter(col("time") >= as_of).group_by("user", "sku").agg(time=col("time").min())
    holdout = asked.join(met, on=["user", "sku"], how="anti").collect()
    indexed = holdout.lazy().join(users.lazy().select("user", "user_index"), on="user", how="left")
    indexed.join(known.lazy().select("sku", "item_index"), on="sku", how="left").sink_parquet(f"{out}/holdout.parquet")
    lengths = pl.scan_parquet(f"{out}/sequences.parquet").select(col("events").list.len().sum())
    return {
        "users": users.height, "items": known.height, "test_pairs": holdout.height,
        "training": train.select(pl.len()).collect().item(), "in_sequences": lengths.collect().item(),
    }  # fmt: skip


def main() -> None:
    logs, out, _, _ = sys.argv[1:]
    started = time.perf_counter()
    counts = clean(logs, out)
    cleaned = time.perf_counter()
    counts |= featurize(out)
    print(json.dumps({"clean": cleaned - started, "featurize": time.perf_counter() - cleaned, "counts": counts}))


if __name__ == "__main__":
    main()
