"""Each source on a few lines in exactly its public format; the expectations are read off those lines by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkException

from sparkrec import columns as c
from sparkrec.config import Source as Settings
from sparkrec.errors import ConfigError, DataError
from sparkrec.ingest import canonical, sources
from sparkrec.ingest.files import Folder
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run

pytestmark = pytest.mark.spark


def rows(spark: Any, root: Path, kind: str, name: str, **options: Any) -> list[dict[str, Any]]:
    """The canonical rows of a source over the files in ``root``; what is null is left out."""
    source = sources.get(Settings(name=name, path=str(root), options=options))
    folder = Folder(spark, str(root))
    bronze = None
    for files in getattr(source, f"{kind}_files"):
        found = files.format.files(folder, files.pattern)
        if found or not files.optional:
            part, _ = files.format.read(folder, found, files.needs)
            bronze = part if bronze is None else bronze.unionByName(part)
    frame = source.events(bronze) if kind == "event" else source.items(bronze)
    expected = canonical.EVENTS if kind == "event" else canonical.ITEMS
    assert [name for name in frame.columns if name not in canonical.CARRIED] == list(expected)
    found = [row.asDict() for row in frame.orderBy(c.SOURCE_FILE, c.LINE).collect()]
    if kind == "event":
        assert source.has_times == (not any((row[c.EVENT_TIME] or "").startswith(canonical.EPOCH) for row in found))
    hidden = (c.SOURCE_FILE, c.RAW, c.HEADER)
    return [{k: v for k, v in row.items() if v is not None and k not in hidden} for row in found]


def write(root: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    (root / name).write_bytes(text.encode(encoding))


def test_online_retail(spark: Any, tmp_path: Path) -> None:
    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    write(
        tmp_path,
        "2010-12-01.csv",
        header
        + '536365,85123A,"WHITE HANGING ""T"" HOLDER",6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n'
        + "C536379,D,Discount,-1,2010-12-01 09:41:00,27.5,14527.0,United Kingdom\n"
        + "A563185,B,Adjust bad debt,1,2010-12-01 14:50:00,11062.06,,United Kingdom\n",
    )
    bought, cancelled, adjusted = rows(spark, tmp_path, "event", "online_retail")
    assert bought == {
        "line": 2, "user_id": "17850", "item_id": "85123A", "event_type": "purchase", "value": "6", "price": "2.55",
        "event_time": "2010-12-01 08:26:00", "currency": "GBP", "order_id": "536365", "country": "United Kingdom",
        "item_name": 'WHITE HANGING "T" HOLDER',
    }  # fmt: skip
    assert (cancelled["event_type"], cancelled["value"], cancelled["order_id"]) == ("cancel", "-1", "C536379")
    assert adjusted["event_type"] == "adjustment"
    assert "user_id" not in adjusted

    codes = ["85123A", "DCGSSGIRL", "POST", "D", "M", "m", "BANK CHARGES", "gift_0001_20", "AMAZONFEE", "PADS", "1234"]
    frame = spark.createDataFrame([(code,) for code in codes], "item string")
    source = sources.get(Settings(name="online_retail", path="logs"))
    assert [r[0] for r in frame.where(source.is_goods(frame["item"])).collect()] == ["85123A", "DCGSSGIRL"]


def test_retailrocket(spark: Any, tmp_path: Path) -> None:
    write(
        tmp_path,
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433223236124,121688,transaction,15335,11117\n1433221999827,1,addtocart,2,\n",
    )
    write(tmp_path, "category_tree.csv", "categoryid,parentid\n1016,213\n213,\n,213\n")
    write(
        tmp_path,
        "item_properties_part1.csv",
        "timestamp,itemid,property,value\n1435460400000,9,categoryid,1016\n1435460400000,9,790,n5760.000\n"
        "1436065200000,9,available,1\n1436065200000,8,888,1116713 960601\n",
    )
    write(tmp_path, "item_properties_part2.csv", "timestamp,itemid,property,value\n1436670000000,9,790,n480.000\n")
    view, bought, cart = rows(spark, tmp_path, "event", "retailrocket")
    assert view == {"line": 2, "user_id": "257597", "item_id": "355908", "event_type": "view",
                    "event_time": "2015-06-02T05:02:12.117Z"}  # fmt: skip
    assert (bought["event_type"], bought["order_id"], cart["event_type"]) == ("purchase", "11117", "cart")

    first, same_time, in_stock, other, cheaper = rows(spark, tmp_path, "item", "retailrocket")
    at_first = {"item_id": "9", "valid_from": "2015-06-28T03:00:00.000Z", "category": "213 > 1016", "price": "5760.000"}
    assert first == at_first | {"line": 2}
    assert same_time == at_first | {"line": 3}
    assert in_stock == at_first | {"line": 4, "valid_from": "2015-07-05T03:00:00.000Z", "stock": "1"}
    assert other == {"line": 5, "item_id": "8", "valid_from": "2015-07-05T03:00:00.000Z"}
    assert cheaper == in_stock | {"line": 2, "valid_from": "2015-07-12T03:00:00.000Z", "price": "480.000"}


def test_movielens(spark: Any, tmp_path: Path) -> None:
    write(tmp_path, "u.data", "196\t242\t3\t881250949\n")
    flags = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
    write(tmp_path, "u.item", f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags}\n", "latin-1")
    write(tmp_path, "ratings.dat", "1::1193::5::978300760\n")
    write(tmp_path, "movies.dat", "1::Toy Story (1995)::Animation|Children's|Comedy\n2::No year::Drama\n", "latin-1")
    write(tmp_path, "ordered_ratings.csv", "user_id,item_id,rating,seq_pos\n1,3186,4,2\n")
    write(tmp_path, "sasrec_sequences.txt", "1 10\n1 11\n2 10\n")

    rating = {"line": 1, "user_id": "196", "item_id": "242", "event_type": "rating", "value": "3"}
    genres = {"genres": "Animation|Children's|Comedy", "year": "1995"}
    assert rows(spark, tmp_path, "event", "movielens_100k") == [rating | {"event_time": "1997-12-04T15:55:49.000Z"}]
    assert rows(spark, tmp_path, "item", "movielens_100k") == [
        {"line": 1, "item_id": "1", "name": "Misérables, Les (1995)", "category": "Animation", "attributes": genres}
    ]
    [published] = rows(spark, tmp_path, "event", "movielens_1m")
    assert (published["user_id"], published["value"], published["event_time"]) == ("1", "5", "2000-12-31T22:12:40.000Z")
    toy, no_year = rows(spark, tmp_path, "item", "movielens_1m")
    assert (toy["name"], toy["attributes"]) == ("Toy Story (1995)", genres)
    assert no_year["attributes"] == {"genres": "Drama"}
    [ordered] = rows(spark, tmp_path, "event", "movielens_1m", ratings="ordered")
    assert (ordered["line"], ordered["value"], ordered["event_time"]) == (2, "4", "2000-01-01T00:00:02.000Z")
    pairs = rows(spark, tmp_path, "event", "movielens_1m", ratings="sequences")
    assert [(p["user_id"], p["item_id"], p["event_type"], p["event_time"][-9:-5]) for p in pairs] == [
        ("1", "10", "view", "0:01"),
        ("1", "11", "view", "0:02"),
        ("2", "10", "view", "0:01"),
    ]


def test_sequences(spark: Any, tmp_path: Path) -> None:
    write(tmp_path, "train.txt", "0 5 6\n1 7\n")
    write(tmp_path, "test.txt", "0 9\n1\n")
    write(tmp_path, "attributes.json", '{"5": [1, 2], "6": []}')
    found = rows(spark, tmp_path, "event", "sequences", files="{train,test}.txt")
    assert [(r["split"], r["user_id"], r["item_id"], r["event_time"]) for r in found] == [
        ("test", "0", "9", "2000-01-12T13:46:41.000Z"),
        ("train", "0", "5", "2000-01-01T00:00:01.000Z"),
        ("train", "0", "6", "2000-01-01T00:00:02.000Z"),
        ("train", "1", "7", "2000-01-01T00:00:01.000Z"),
    ]
    five, six = rows(spark, tmp_path, "item", "sequences", attributes="attributes.json")
    assert (five["item_id"], five["attributes"]) == ("5", {"attribute": "1|2"})
    assert (six["item_id"], six["attributes"]) == ("6", {"attribute": ""})


def test_amazon_reviews(spark: Any, tmp_path: Path) -> None:
    write(
        tmp_path,
        "reviews_X_5.json",
        '{"reviewerID": "A2I", "asin": "138", "helpful": [0, 0], "reviewText": "It \\"works\\"", "overall": 5.0, '
        '"summary": "good", "unixReviewTime": 1393545600, "reviewTime": "02 28, 2014"}\n',
    )
    write(
        tmp_path,
        "meta_X.json",
        '{"asin": "138", "title": "Pop filter", "brand": "", "price": "$1,012.99", "category": ["Music", "Studio"], '
        '"description": ["One.", "Two."]}\n'
        '{"asin": "139", "categories": [["Music"]], "price": 3.5, "description": "D"}\n'
        '{"asin": "140", "price": "$7.98 - $13.98", "description": []}\n'
        '{"asin": "141", "price": ".a-box-inner{background-color:#fff}", "description": [""]}\n',
    )
    assert rows(spark, tmp_path, "event", "amazon_reviews", reviews="reviews_*.json") == [
        {"line": 1, "user_id": "A2I", "item_id": "138", "event_type": "review", "value": "5.0",
         "event_time": "2014-02-28T00:00:00.000Z", "text": 'good\nIt "works"'}
    ]  # fmt: skip
    new, old, *odd = rows(spark, tmp_path, "item", "amazon_reviews", meta="meta_*.json")
    assert odd == [{"line": n, "item_id": str(137 + n), "currency": "USD"} for n in (3, 4)]
    assert new == {"line": 1, "item_id": "138", "name": "Pop filter", "price": "1012.99", "currency": "USD",
                   "category": "Music > Studio", "text": "One.\nTwo."}  # fmt: skip
    assert (old["category"], old["price"], old["text"]) == ("Music", "3.5", "D")


def test_taobao_and_rees46(spark: Any, tmp_path: Path) -> None:
    write(tmp_path, "UserBehavior.csv", "1,2268318,2520377,pv,1511544070\n1,2,3,buy,x\n1,2,3,fav,1511544070\n1,2,3\n")
    view, bought, liked, short = rows(spark, tmp_path, "event", "taobao_user_behavior")
    assert view == {"line": 1, "user_id": "1", "item_id": "2268318", "event_type": "view", "item_category": "2520377",
                    "event_time": "2017-11-24T17:21:10.000Z"}  # fmt: skip
    assert (bought["event_type"], bought["event_time"], liked["event_type"]) == ("purchase", "x", "click")
    assert set(short) == {"line", "malformed"}
    assert "more or fewer fields" in short["malformed"]

    (tmp_path / "UserBehavior.csv").unlink()
    write(
        tmp_path,
        "2019-Oct.csv",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,appliances.kitchen,shiseido,35.79,541312140,72d7\n"
        "soon,remove_from_cart,1,21,,,1,5,7\n",
    )
    view, removed = rows(spark, tmp_path, "event", "rees46")
    assert view == {
        "line": 2, "user_id": "541312140", "item_id": "44600062", "event_type": "view", "price": "35.79",
        "currency": "USD", "event_time": "2019-10-01T00:00:00.000Z", "session_id": "72d7", "item_brand": "shiseido",
        "item_category": "appliances > kitchen",
    }  # fmt: skip
    assert (removed["event_type"], removed["event_time"], removed["item_category"]) == ("remove", "soon", "21")


def test_generic(spark: Any, tmp_path: Path) -> None:
    write(tmp_path, "e.csv", "who;what;at\nu1;add;31/12/2025 23:59\nu2;look;never\n")
    write(tmp_path, "i.json", '{"sku": "a", "colour": "red", "title": "Mug"}\n')
    events = {
        "files": "e.csv", "format": "csv", "delimiter": ";", "time_format": "dd/MM/yyyy HH:mm",
        "columns": {"user_id": "who", "event_type": "what", "event_time": "at"},
        "values": {"event_type": {"add": "cart", "look": "view"}}, "constants": {"item_id": "a", "currency": "EUR"},
    }  # fmt: skip
    items = {"files": "i.json", "format": "json", "columns": {"item_id": "sku", "name": "title"},
             "attributes": ["colour", "size"]}  # fmt: skip
    first, second = rows(spark, tmp_path, "event", "generic", events=events)
    assert first == {"line": 2, "user_id": "u1", "item_id": "a", "event_type": "cart", "currency": "EUR",
                     "event_time": "2025-12-31T23:59:00.000"}  # fmt: skip
    assert (second["event_type"], second["event_time"]) == ("view", "never")
    assert rows(spark, tmp_path, "item", "generic", events=events, items=items) == [
        {"line": 1, "item_id": "a", "name": "Mug", "attributes": {"colour": "red"}}
    ]
    source = sources.get(Settings(name="generic", path="logs", options={"events": events, "not_goods": "^P"}))
    frame = spark.createDataFrame([("POST",), ("mug",)], "item string")
    assert [row[0] for row in frame.where(source.is_goods(frame["item"])).collect()] == ["mug"]


TIME_PATTERNS = [
    "dd/MM/yyyy HH:mm", "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS][XXX]", "yyyyMMdd", "d.M.yy", "MMM d, yyyy h:mm a", "G y D",
    "yyyy-MM-dd HH:mm:ss 'o''clock' z", "[yyyy]", "[yyyy",
]  # fmt: skip
NO_TIME_PATTERNS = ["YYYY-MM-DD", "yyyy-MM-dd'T", "hello", "yyyy-MM-dd EEE", "yyyy-MM-dd {HH}", "HH:mm:ss n"]
#: Of these Python's expressions know some in another way, or not at all.
EXPRESSIONS = ["^(POST|GIFT)", "[a-z&&[^bc]]", r"\p{IsLatin}+", r"\Q(\E", "(?<name>x)", "a++b", ""]
NO_EXPRESSIONS = ["^(POST|GIFT", "[a-z", "*", r"x\Q(\E)", "(?P<name>x)"]


def test_what_spark_would_refuse_of_a_row_is_refused_before_a_file_is_listed(
    spark: Any, make_run: Callable[..., Run], tmp_path: Path
) -> None:
    columns = {"user_id": "u", "item_id": "i", "event_type": "e", "event_time": "t"}
    events = {"files": "*", "format": "csv", "columns": columns}
    items = {"files": "*", "format": "csv", "columns": {"item_id": "i"}}

    def begin(**options: Any) -> None:
        source = {"name": "generic", "path": str(tmp_path / "absent"), "options": {"events": events, **options}}
        ingest(make_run("ingest", source=source))

    row = spark.createDataFrame([("2020-01-02 10:00",)], "t string")
    for text in TIME_PATTERNS:
        row.select(canonical.time_from_pattern(row["t"], text)).collect()
    for text in NO_TIME_PATTERNS:
        with pytest.raises(PySparkException):
            row.select(canonical.time_from_pattern(row["t"], text)).collect()
    for key, options in (
        *(("events.time_format", {"events": events | {"time_format": text}}) for text in NO_TIME_PATTERNS),
        ("items.time_format", {"items": items | {"time_format": "noon"}}),
        ("events.encoding", {"events": events | {"encoding": "latin-1"}}),  # Python's name for it
        *(("not_goods", {"not_goods": text}) for text in NO_EXPRESSIONS),
    ):
        with pytest.raises(ConfigError, match=rf"'source\.options\.{key}' is '.*Expected"):
            begin(**options)
    for options in (
        *({"events": events | {"time_format": text}} for text in ("iso", "milliseconds", *TIME_PATTERNS)),
        *({"not_goods": text} for text in EXPRESSIONS),
    ):
        with pytest.raises(DataError, match=r"folder .*absent does not exist"):
            begin(**options)


def test_a_source_without_a_catalogue_has_no_items(spark: Any) -> None:
    from sparkrec import schemas

    bronze = spark.createDataFrame([], schemas.BRONZE_ITEMS.struct())
    items = sources.get(Settings(name="online_retail", path="logs")).items(bronze)
    assert [name for name in items.columns if name not in canonical.CARRIED] == list(canonical.ITEMS)
    assert items.count() == 0
