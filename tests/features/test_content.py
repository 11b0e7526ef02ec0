import pytest

from sparkrec import columns as c
from sparkrec.config import Features
from sparkrec.features import content

pytestmark = pytest.mark.spark
SCHEMA = (
    "item_id string, name string, text string, brand string, category array<string>, price_bucket int, "
    "attributes map<string,string>"
)
ITEMS = [
    ("a", "The red Lantern, large", "a lantern!", "Acme", ["Home", "Light"], 9, {"genres": "Drama| War", "x": "y"}),
    ("b", "Lantern (blue) no. 12", None, None, ["Home"], None, {"genres": ""}),
    ("c", "red mug", "MUG of clay", "Acme", None, 0, None),
    ("d", None, None, None, None, None, None),
]


@pytest.fixture(scope="module")
def items(spark):
    return spark.createDataFrame(ITEMS, SCHEMA)


def _lists(features):
    rows = sorted(features.collect(), key=lambda row: (row[c.ITEM_ID], row["priority"], row[c.FEATURE]))
    return {item: [row[c.FEATURE] for row in rows if row[c.ITEM_ID] == item] for item in "abcd"}


def test_worked_by_hand(items):
    # Words of at least three letters, no stop words: a: red lantern large, b: lantern blue, c: red mug clay.
    # In two items, which is half of four: red, lantern. The others occur once.
    assert _lists(content.features(items, Features(attributes=("genres",)), 4)) == {
        "a": ["category=Home", "category=Home > Light", "brand=Acme", "price=9", "genres=Drama", "genres=War",
              "word=lantern", "word=red"],
        "b": ["category=Home", "word=lantern"],
        "c": ["brand=Acme", "price=0", "word=red"],
        "d": [],
    }  # fmt: skip


def test_words_can_be_limited_or_switched_off(items):
    one = _lists(content.features(items, Features(words=1), 4))
    assert [feature for features in one.values() for feature in features if "word=" in feature] == ["word=lantern"] * 2
    off = _lists(content.features(items, Features(words=0), 4))
    assert not any("word=" in feature for features in off.values() for feature in features)


def test_the_rarer_word_comes_first_and_the_list_is_cut(spark):
    rows = [(f"i{n}", "common rare" if n < 2 else "common other", None, "B", None, None, None) for n in range(3)]
    rows += [(f"j{n}", None, None, None, None, None, None) for n in range(4)]
    rows += [("k", None, None, None, ["A", "B"], None, None)]
    features = content.features(spark.createDataFrame(rows, SCHEMA), Features(), 8)
    counted = content.counted(features)
    assert {row[c.FEATURE]: row[c.COUNT] for row in counted.collect()} == {
        "brand=B": 3, "word=common": 3, "word=rare": 2, "category=A": 1, "category=A > B": 1,
    }  # fmt: skip
    vocabulary = spark.createDataFrame(
        [("word=common", 7), ("brand=B", 8), ("word=rare", 9), ("category=A > B", 2), ("category=A", 5)],
        "feature string, feature_index int",
    )

    def encoded(most):
        rows = content.encoded(features, vocabulary, most).collect()
        return {row[c.ITEM_ID]: (row[c.FEATURES], row[c.BRAND_CODE], row[c.CATEGORY_CODES]) for row in rows}

    assert encoded(10) == {
        "i0": ([8, 9, 7], 8, []), "i1": ([8, 9, 7], 8, []), "i2": ([8, 7], 8, []), "k": ([5, 2], None, [5, 2]),
    }  # fmt: skip
    # codes are whole, however short the list
    assert encoded(1) == {"i0": ([8], 8, []), "i1": ([8], 8, []), "i2": ([8], 8, []), "k": ([5], None, [5, 2])}
    assert {item: row[0] for item, row in encoded(0).items()} == {"i0": [], "i1": [], "i2": [], "k": []}
