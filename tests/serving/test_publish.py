"""Lists from the lake to files and to Redis: whole, switched at once, and mapped to other ids."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import handmade
import pytest
from redis_server import redis_server  # noqa: F401  the fixture

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError, DataError, RetryableError
from sparkrec.jobs.publish import publish
from sparkrec.pipeline import Run, execute
from sparkrec.privacy import keys, protect, pseudonyms
from sparkrec.serving import publication
from sparkrec.serving.resp import Address, Redis
from sparkrec.serving.stores import FileStore, RedisStore

pytestmark = pytest.mark.spark

LISTS = {"u1": ["i1", "i2", "i3"], "u:2": ["i3", "i1"], 'u"é': ["i2"], "*": ["i1", "i2", "i3"]}


@pytest.fixture(scope="module")
def settings(spark, tmp_path_factory):
    """A lake with the lists of two models."""
    shown = {"k": 20, "models": ["popularity", "als"]}
    made = handmade.settings(tmp_path_factory.mktemp("publish"), recommend=shown)
    run = Run(made, "recommend")
    for model, lists in (("als", LISTS), ("popularity", {"*": ["i9"]})):
        write_lists(run, model, lists)
    run.finish()
    return made


def write_lists(run, model, lists):
    key = {c.RUN_ID: run.run_id, c.MODEL: model}
    rows = [
        key
        | {c.USER_ID: user, c.RANK: rank, c.ITEM_ID: item, c.SCORE: 1 / rank, c.SOURCE: model, c.REASON: "why"}
        | {c.PROPENSITY: 1.0}
        for user, items in lists.items()
        for rank, item in reversed(list(enumerate(items, 1)))
    ]
    handmade.write(run, schemas.RECOMMENDATIONS, rows, where=key)


def published(settings, minute=0, **wanted):
    """Minutes apart: which one was the last says when they ended, and a machine may be busy."""
    made = settings.model_copy(update={"publish": settings.publish.model_copy(update=wanted)})
    run = Run(made, "publish")
    run.started = dt.datetime(2026, 1, 1, 0, minute, tzinfo=dt.UTC)
    execute(publish, run)
    return run


def lists_of(rows):
    return {row["owner"]: [item[c.ITEM_ID] for item in row["items"]] for row in rows}


@pytest.mark.parametrize(("kind", "suffix"), [("parquet", "parquet"), ("jsonl", "json")])
def test_files(settings, spark, tmp_path, kind, suffix):
    folder = tmp_path / "served"
    for minute in range(3):
        run = published(settings, minute, to=f"{kind}:{folder}", keep=2)
    pointer = json.loads((folder / "current.json").read_text())
    assert pointer["version"] == "test-all-als-20260101T000200" == run.details["version"]
    assert run.details["before"] == "test-all-als-20260101T000100"
    versions = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert versions == ["test-all-als-20260101T000100", "test-all-als-20260101T000200"]
    assert run.counts == {"lists": 4, "retired": 1}
    rows = spark.read.format(suffix).load(str(folder / pointer["version"])).collect()
    assert lists_of(rows) == LISTS
    first = next(row for row in rows if row["owner"] == "u1")["items"][0]
    assert first.asDict() == {
        c.RANK: 1, c.ITEM_ID: "i1", c.SCORE: 1.0, c.SOURCE: "als", c.REASON: "why", c.PROPENSITY: 1.0,
    }  # fmt: skip
    assert not list(folder.glob("*.new"))


def test_files_leave_alone_what_is_not_theirs(settings, tmp_path):
    """A store within the store's folder, and a folder of somebody's; a version that died half-written goes."""
    for name in ("newcomers/test-all-als-20260101T000000", "somebody's", "test-all-als-20251231T000000"):
        (tmp_path / name).mkdir(parents=True)
    assert published(settings, 1, to=f"parquet:{tmp_path}").counts["retired"] == 1
    kept = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert kept == ["newcomers", "somebody's", "test-all-als-20260101T000100"]
    assert list((tmp_path / "newcomers").iterdir())


def test_a_publication_that_dies_at_the_switch_leaves_the_old_pointer(settings, spark, tmp_path, monkeypatch):
    published(settings, 1, to=f"jsonl:{tmp_path}")
    pointer = tmp_path / "current.json"
    # A checksum beside it that is another file's: Hadoop would not read the pointer any more.
    (tmp_path / ".current.json.crc").write_bytes(b"crc\0\0\0\2\0" + b"\0" * 4)

    def die(*_):
        assert json.loads(pointer.read_text())["version"].endswith("T000100"), "until the last moment"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sparkrec.serving.stores.os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            FileStore(spark, str(tmp_path), "json", 2)._point(b"{}")
    assert json.loads(pointer.read_text())["version"].endswith("T000100")
    run = published(settings, 2, to=f"jsonl:{tmp_path}")
    assert run.details["before"].endswith("T000100")
    assert json.loads(pointer.read_text())["version"] == run.details["version"]


def test_items_that_became_one_are_not_beside_themselves(settings, spark, tmp_path):
    """a and b are x there: a's neighbour b is left out, and of y's two rows at the same rank the better one stays."""
    made = settings.model_copy(update={"similar": settings.similar.model_copy(update={"models": ("als",)})})
    run = Run(made, "similar")
    beside = [("a", 1, "b", 0.9), ("a", 2, "y", 0.3), ("b", 1, "a", 0.9), ("b", 2, "y", 0.4), ("y", 1, "b", 0.4)]
    rows = [
        {c.RUN_ID: run.run_id, c.MODEL: "als", c.ITEM_ID: i, c.RANK: rank, c.NEIGHBOR_ID: n, c.SCORE: score}
        for i, rank, n, score in beside
    ]
    handmade.write(run, schemas.SIMILAR_ITEMS, rows, where={c.RUN_ID: run.run_id, c.MODEL: "als"})
    run.finish()
    (tmp_path / "items.csv").write_text("item_id,to_item_id\na,x\nb,x\ny,y\n")
    published(made, to=f"jsonl:{tmp_path}/served", item_map=str(tmp_path / "items.csv"), table="similar_items")
    found = spark.read.json(f"{tmp_path}/served/test-all-als-*").collect()
    assert {row["owner"]: [(i[c.RANK], i[c.ITEM_ID], i[c.SCORE]) for i in row["items"]] for row in found} == {
        "x": [(1, "y", 0.4)], "y": [(1, "x", 0.4)],
    }  # fmt: skip


def test_redis_switches_at_once_and_lets_the_old_expire(settings, redis_server):  # noqa: F811
    to = f"{redis_server}/1"

    def served(user):
        with Redis(Address(to)) as redis:
            version = redis.do("GET", "shop:current").decode()
            found = redis.do("GET", f"shop:{version}:{user}") or redis.do("GET", f"shop:{version}:*")
        return [item[c.ITEM_ID] for item in json.loads(found)]

    first = published(settings, 1, to=to, prefix="shop", grace_seconds=500)
    assert {user: served(user) for user in LISTS} == LISTS
    assert served("a stranger") == LISTS["*"]
    assert (first.counts, first.details["before"]) == ({"lists": 4, "retired": 0}, None)

    # A publication that dies after some lists: what is served is the old, and the next one takes its keys away.
    with Redis(Address(to)) as redis:
        redis.do("SET", "shop:test-all-als-half:u1", "[]")
        redis.do("SET", "shopping:list:u1", "somebody else's")
    second = published(settings, 2, to=to, prefix="shop", grace_seconds=500, model="popularity", min_share=0)
    assert served("u1") == ["i9"]
    assert (second.counts, second.details["before"]) == ({"lists": 1, "retired": 4}, first.details["version"])
    with Redis(Address(to)) as redis:
        old, half, new, other = redis.pipeline(
            [
                ("TTL", f"shop:{first.details['version']}:u1"),
                ("TTL", "shop:test-all-als-half:u1"),
                ("TTL", f"shop:{second.details['version']}:*"),
                ("TTL", "shopping:list:u1"),
            ]
        )
        redis.do("EXPIRE", f"shop:{first.details['version']}:u1", 100)
    assert 400 < old <= 500
    assert half == -2, "gone, before there was anything new to hold"
    assert (new, other) == (-1, -1)
    published(settings, 3, to=to, prefix="shop", grace_seconds=500)
    with Redis(Address(to)) as redis:
        assert redis.do("TTL", f"shop:{first.details['version']}:u1") <= 100, "its time goes on"


def test_a_version_that_is_not_whole_is_not_served(settings, redis_server):  # noqa: F811
    class Losing(RedisStore):
        def write(self, lists, version):
            return super().write(lists.limit(2), version)

    to = f"{redis_server}/2"
    published(settings, 1, to=to)
    run = Run(settings.model_copy(update={"publish": settings.publish.model_copy(update={"to": to})}), "publish")
    with pytest.raises(RetryableError, match="Of 4 lists 2 arrived"):
        publication.publish(run, Losing(Address(to), "sparkrec", 10), run.settings.publish)
    with Redis(Address(to)) as redis:
        assert redis.do("GET", "sparkrec:current") == b"test-all-als-20260101T000100"


def test_maps_of_ids(settings, spark, tmp_path):
    """i1 → a, i2 → a and b, i3 is not sold there; u1 has two accounts, u:2 one, the third none."""
    (tmp_path / "items.csv").write_text("item_id,to_item_id\ni1,a\ni2,b\ni2,a\n")
    (tmp_path / "users.csv").write_text("user_id,to_user_id\nu1,x\nu1,y\nu:2,z\nu9,n\n")
    maps = {"item_map": str(tmp_path / "items.csv"), "user_map": str(tmp_path / "users.csv")}
    run = published(settings, to=f"jsonl:{tmp_path}/served", **maps)
    assert (run.counts["mapped_users"], run.counts["mapped_users_without_list"]) == (3, 1)
    rows = spark.read.json(f"{tmp_path}/served/test-all-als-*").collect()
    assert lists_of(rows) == {"x": ["a", "b"], "y": ["a", "b"], "z": ["a"], "*": ["a", "b"]}
    assert [item[c.RANK] for row in rows for item in row["items"] if row["owner"] == "x"] == [1, 2]
    chances = {row["owner"]: [item[c.PROPENSITY] for item in row["items"]] for row in rows}
    assert (chances["x"], chances["z"]) == ([1, 1], [None]), "of z the first place is gone, so the second is the first"

    (tmp_path / "users.csv").write_text("user_id,to_user_id\nu1,x\nu:2,x\n")
    with pytest.raises(DataError, match="2 users to one account, 'x'"):
        published(settings, to=f"jsonl:{tmp_path}/served", **maps)
    (tmp_path / "users.csv").write_text("user_id,to_user_id\nU1,x\n")
    with pytest.raises(DataError, match="maps 1 users, and none of them has a list"):
        published(settings, to=f"jsonl:{tmp_path}/served", **maps)
    (tmp_path / "items.csv").write_text("item_id,other\ni1,a\n")
    with pytest.raises(DataError, match=r"publish\.item_map.*needs to_item_id"):
        published(settings, to=f"jsonl:{tmp_path}/served", item_map=maps["item_map"])


def test_a_map_of_users_holds_in_a_lake_of_pseudonyms(settings, spark, tmp_path, monkeypatch):
    monkeypatch.setenv(settings.privacy.key_env, "ab" * 32)
    key = keys.load(settings, create=False)
    monkeypatch.setattr(protect, "held_key", lambda run: key.id)
    (tmp_path / "users.csv").write_text("user_id,to_user_id\nann, x \n")
    stored = [(pseudonyms.pseudonym(key, c.USER_ID, user), 1, "i1") for user in ("ann", "ben")]
    rows = spark.createDataFrame([*stored, ("*", 1, "i2")], f"{c.USER_ID} string, {c.RANK} int, {c.ITEM_ID} string")
    wanted = settings.publish.model_copy(update={"user_map": str(tmp_path / "users.csv")})
    found = publication.mapped(Run(settings, "publish"), rows, wanted).select(c.USER_ID, c.ITEM_ID).collect()
    assert sorted(map(tuple, found)) == [("*", "i2"), ("x", "i1")]


def test_what_cannot_be_published_is_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"publish\.to is not set"):
        published(settings)
    with pytest.raises(DataError, match="no rows of the model 'two_tower'"):
        published(settings, to=f"parquet:{tmp_path}", model="two_tower")


def test_gates_keep_what_is_served(settings, spark, tmp_path):
    """Four lists, then one (of '*'); another place is another matter; a model is measured, or its metric is missing."""
    place = f"jsonl:{tmp_path / 'served'}"
    published(settings, 1, to=place, model="als")
    before = (tmp_path / "served" / "current.json").read_text()
    few = {"to": place, "model": "popularity"}
    with pytest.raises(DataError, match=r"There are 1 lists, and the last .* had 4: less than publish.min_share=0.5"):
        published(settings, 2, **few)
    published(settings, 2, **few | {"to": f"jsonl:{tmp_path / 'elsewhere'}"})
    assert (tmp_path / "served" / "current.json").read_text() == before

    shutil.copytree(settings.lake.path, tmp_path / "lake")
    moved = settings.model_copy(update={"lake": settings.lake.model_copy(update={"path": str(tmp_path / "lake")})})

    def recommended(day, als, made=("als", "popularity")):
        run = Run(moved, "recommend")
        run.started = dt.datetime(2036, 1, day, tzinfo=dt.UTC)  # after the fixture's
        run.detail(changes={"previous": "yesterday", "models": {"als": {"churn_all": 0.1}}})
        run.detail(lists={model: {} for model in made})
        write_lists(run, "als", als)
        run.finish()

    # Served are those of the fixture; whatever the run before was, half of what is new to them is too much.
    changed = LISTS | {"u:2": ["i3", "i9"], 'u"é': ["i8"]}  # of three users 0, 1/2, and 1 are new
    for day, minute in ((2, 3), (3, 4)):
        recommended(day, changed)
        with pytest.raises(DataError, match=r"of 'als' 50% are new since the run 'test-all'.*allows 40%"):
            published(moved, minute, to=place, model="als", max_churn=0.4)
    published(moved, 5, to=place, model="als", max_churn=0.5)
    published(moved, 6, to=place, model="als", max_churn=0.0)
    with pytest.raises(DataError, match="serves recommendations, and similar_items would take its place"):
        published(moved, 7, to=place, table="similar_items", model="als")

    with pytest.raises(DataError, match=r"needs metrics, and no earlier stage"):
        published(moved, 5, to=place, model="als", must_beat="popularity")
    run = Run(moved, "evaluate")
    run.started = dt.datetime(2036, 1, 3, 12, tzinfo=dt.UTC)
    run.read(schemas.RECOMMENDATIONS)
    of = {"als": 0.2, "popularity": 0.1}
    rows = [
        {c.RUN_ID: run.run_id, c.MODEL: model, c.METRIC: "ndcg", c.K: 20, c.SEGMENT: segment, c.VALUE: value * sign}
        for model, value in of.items()
        for segment, sign in (("all", 1), ("new_items", -1))
    ]
    handmade.write(run, schemas.METRICS, rows, where={c.RUN_ID: run.run_id})
    run.finish()
    published(moved, 8, to=place, model="als", must_beat="popularity")
    with pytest.raises(DataError, match=r"'popularity' have ndcg@20 0.1000, and those of 'als' .* 0.2000"):
        published(moved, 9, to=place, model="popularity", must_beat="als", min_share=0)
    with pytest.raises(DataError, match=r"no ndcg@20 of two_tower.*Run evaluate first"):
        published(moved, 9, to=place, model="als", must_beat="two_tower")
    recommended(4, changed, made=("als",))
    with pytest.raises(DataError, match=r"recommend has written lists since evaluate measured.*Run evaluate again"):
        published(moved, 9, to=place, model="als", must_beat="popularity")
    with pytest.raises(DataError, match=r"made lists of als, and none of popularity"):
        published(moved, 9, to=place, model="popularity", min_share=0)

    # Neither gate says anything of lists that recommend does not make.
    run = Run(moved, "newcomers")
    run.started = dt.datetime(2036, 1, 5, tzinfo=dt.UTC)
    write_lists(run, "newcomers", {"s": ["i1"]})
    run.finish()
    other = {"to": f"jsonl:{tmp_path / 'newcomers'}", "model": "newcomers"}
    assert published(moved, 9, max_churn=0.0, must_beat="als", **other).counts["lists"] == 1


def test_a_day_that_is_made_up_for_does_not_take_the_place_of_a_newer_one(settings, tmp_path):
    """Unless that is said: so lists are taken back."""

    def served(day, **wanted):
        publication = settings.publish.model_copy(update={"to": place, "model": "als"} | wanted)
        run = Run(settings.model_copy(update={"publish": publication}), "publish", dt.date(2026, 1, day))
        run.started = dt.datetime(2026, 1, 9, 0, next(minutes), tzinfo=dt.UTC)
        execute(publish, run)
        return run.details["version"]

    place, minutes = f"jsonl:{tmp_path / 'served'}", iter(range(9))
    for day in (2, 3):
        run = Run(settings, "recommend", dt.date(2026, 1, day))
        write_lists(run, "als", LISTS)
        run.finish()
    served(2)
    newer = served(3)
    with pytest.raises(DataError, match=r"These lists are of 2026-01-02, and .* serves those of 2026-01-03"):
        served(2)
    assert json.loads((tmp_path / "served" / "current.json").read_text())["version"] == newer
    assert served(3) != newer
    assert served(2, older=True) != newer


def test_what_is_served_is_recorded_though_the_old_could_not_be_removed(settings, spark, tmp_path, capsys):
    class Stuck(FileStore):
        def retire(self, version):
            raise RetryableError("no right to look around")

    run = Run(settings.model_copy(update={"publish": settings.publish.model_copy(update={"to": "jsonl:x"})}), "publish")
    publication.publish(run, Stuck(spark, str(tmp_path), "json", 2), run.settings.publish)
    assert json.loads((tmp_path / "current.json").read_text())["version"] == run.details["version"]
    assert run.counts == {"lists": 4, "retired": 0}
    assert "could not be removed, and the next publication will: no right" in capsys.readouterr().err


def test_where_the_files_of_what_is_served_are_gone_the_run_before_counts(settings, spark, tmp_path):
    shutil.copytree(settings.lake.path, tmp_path / "lake")
    moved = settings.model_copy(update={"lake": settings.lake.model_copy(update={"path": str(tmp_path / "lake")})})
    place = f"jsonl:{tmp_path / 'served'}"
    first = published(moved, 1, to=place, model="als")
    run = Run(moved, "recommend")
    run.started = dt.datetime(2036, 1, 2, tzinfo=dt.UTC)
    run.detail(changes={"previous": "yesterday", "models": {"als": {"churn_all": 0.6}}})
    write_lists(run, "als", LISTS)
    run.finish()
    old = run.lake.read(schemas.RECOMMENDATIONS, first.inputs["recommendations"]).inputFiles()
    new = run.lake.read(schemas.RECOMMENDATIONS, run.outputs["recommendations"]).inputFiles()
    for file in set(old) - set(new):  # as VACUUM does
        Path(urlsplit(file).path).unlink()
    with pytest.raises(DataError, match=r"of 'als' 60% are new since the run 'yesterday'.*allows 50%"):
        published(moved, 3, to=place, model="als", max_churn=0.5)
    published(moved, 4, to=place, model="als", max_churn=0.6)
