"""Settings: layers, overrides, and errors that name the key."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from sparkrec import config
from sparkrec.config import reading
from sparkrec.errors import ConfigError

pytestmark = pytest.mark.unit

MINIMAL = {"name": "x", "source": {"name": "simulator", "path": "logs"}}
CONF = Path(__file__).parents[1] / "conf"


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.yaml", MINIMAL | {"als": {"rank": 8, "alpha": 2.0}})


def test_later_files_and_overrides_win_key_by_key(base: Path, tmp_path: Path) -> None:
    over = write(tmp_path / "over.yaml", {"als": {"rank": 16}, "split": {"test_days": 3}})
    settings = config.load([base, over], ["als.iterations=2", "evaluate.ks=[10, 20]", "clean.latest='2026-01-01'"])
    assert (settings.als.rank, settings.als.alpha, settings.als.iterations) == (16, 2.0, 2)
    assert settings.split.test_days == 3
    assert settings.clean.latest == dt.date(2026, 1, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"als": {"rnak": 3}}, ["'als.rnak' is not a known key", "did you mean 'rank'"]),
        ({"two_towers": {}}, ["'two_towers' is not a known key", "did you mean 'two_tower'"]),
        ({"als": {"rank": "many"}}, ["'als.rank'", "integer"]),
        ({"als": {"rank": 0}}, ["'als.rank'", "greater than or equal to 1"]),
        ({"publish": {"to": "redis://:secret@host:6379/0"}}, ["publish.to", "no login"]),
        ({"publish": {"to": "kafka://x"}}, ["publish.to", "must begin with one of parquet:"]),
        ({"recommend": {"caps": {"brand": 0}}}, ["recommend.caps", "must be 1 or more"]),
        ({"recommend": {"caps": {"promoted": 2}}}, ["caps.promoted needs promotions.items"]),
        ({"recommend": {"k": 3, "promotions": {"items": "x", "quota": 2}, "exploration": {"places": 2}}}, ["k: 3"]),
        ({"recommend": {"lists": [{"name": "x", "kind": "deny", "path": "p"}] * 2}}, ["two of lists are called 'x'"]),
        (
            {"recommend": {"rules": [{"name": "r", "items": "x", "only_for": "a", "hide_from": "b"}]}},
            ["'r' must have at most one of only_for, hide_from"],
        ),
        ({"evaluate": {"primary": "ndcg@7"}}, ["ndcg@7", "ks=[10, 20]"]),
        ({"evaluate": {"bootstrap": 1}}, ["'evaluate.bootstrap'", "1 resamples", "must be 0, or 100 and more"]),
        (
            {
                "recommend": {"models": ["ranker"], "diversity": {"method": "dpp"}},
                "ranker": {"sources": ["popularity", "recent"]},
            },
            ["method is dpp, and none of ranker.sources says how alike", "Add als or two_tower"],
        ),
        ({"lake": {"path": "/lakes/a%2Fb"}}, ["lake.path is /lakes/a%2Fb", "Rename the folder"]),
        ({"recommend": {"k": 5}}, ["evaluate.ks asks for 20 items but recommend.k writes 5"]),
        ({"source": {"path": "${SPARKREC_NOT_SET}"}}, ["SPARKREC_NOT_SET is not set"]),
        ({"recommend": {"models": ["ranker"]}}, ["features.neighbors is 0", "for instance to 20"]),
        (
            {"recommend": {"models": ["ranker"]}, "features": {"neighbors": 9}, "two_tower": {"warm_start": "last"}},
            ["the ranker learns from the two-tower model as it was", "or take two_tower out of ranker.sources"],
        ),
        ("a: [1", ["not valid YAML"]),
        ("just text", ["must hold 'key: value' pairs"]),
    ],
)
def test_errors_name_the_key(base: Path, tmp_path: Path, content: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        config.load([base, write(tmp_path / "over.yaml", content)])
    for word in words:
        assert word in str(raised.value)


def test_missing_file_missing_key_and_bad_override_are_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        config.load([tmp_path / "none.yaml"])
    with pytest.raises(ConfigError, match=r"'source' is missing"):
        config.load([write(tmp_path / "a.yaml", {"name": "x"})])
    with pytest.raises(ConfigError, match="key=value"):
        config.load([base], ["als.rank"])
    with pytest.raises(ConfigError, match="--conf"):
        config.load([])


def test_environment_is_read_with_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.yaml", {"name": "x", "source": {"name": "s", "path": "${SPARKREC_X:-here}/logs/${Y}"}})
    monkeypatch.setenv("Y", "z")
    assert config.load([path]).source.path == "here/logs/z"
    monkeypatch.setenv("SPARKREC_X", "there")
    assert config.load([path]).source.path == "there/logs/z"
    monkeypatch.setenv("SPARKREC_X", "")
    assert config.load([path]).source.path == "here/logs/z"


def test_what_the_environment_says_is_not_read_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def path(text: str) -> str:
        return config.load([base], [f"source.path='{text}'"]).source.path

    monkeypatch.delenv("SPARKREC_A", raising=False)
    monkeypatch.setenv("SPARKREC_H", "/home/${SPARKREC_H}")
    assert path("${SPARKREC_H}/x") == "/home/${SPARKREC_H}/x"
    assert path("${SPARKREC_A:-${SPARKREC_H}/data}/y") == "/home/${SPARKREC_H}/data/y"
    assert path("${SPARKREC_A:-${SPARKREC_A:-deep}}") == "deep"
    monkeypatch.setenv("SPARKREC_A", "/a")
    assert path("${SPARKREC_A:-${SPARKREC_H}/data}/y") == "/a/y"
    for unclosed in ("${SPARKREC_A", "${SPARKREC_A:-${SPARKREC_H}"):
        with pytest.raises(ConfigError, match="does not close it"):
            path(unclosed)


def test_a_relative_lake_is_made_absolute_and_a_uri_is_left(base: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load([base], ["lake.path=a/b"]).lake.path == str(tmp_path / "a" / "b")
    assert config.load([base], ["lake.path=s3a://a/b", "lake.files=c"]).lake.path == "s3a://a/b"


def test_an_index_that_faiss_does_not_know_is_refused_before_anything_runs(base: Path) -> None:
    faiss, effort = ["recommend.search=faiss"], "recommend.faiss.parameters=efSearch=64"
    assert config.load([base], [*faiss, effort, "recommend.faiss.index=HNSW16"]).recommend.faiss.index == "HNSW16"
    with pytest.raises(
        ConfigError, match=r"'HNSX' with parameters 'efSearch=64' of vectors of width 8: could not parse"
    ):
        config.load([base], [*faiss, effort, "recommend.faiss.index=HNSX"])
    with pytest.raises(ConfigError, match=r"PQ32.* of width 30: "):  # of ALS, while the two-tower model's would do
        config.load([base], [*faiss, "recommend.faiss.index=PQ32", "als.rank=30", "two_tower.width=32"])
    assert config.load([base], ["recommend.faiss.index=HNSX"]).recommend.search == "exact"


def test_what_is_no_table_needs_a_folder(base: Path) -> None:
    for wrong in (["lake.path=s3a://a/b"], ["lake.path=/mnt/a", "lake.files=hdfs://n1/b"]):
        with pytest.raises(ConfigError, match=r"(s3a://a/b|hdfs://n1/b)\. Tables may .*: set lake\.files to a folder"):
            config.load([base], wrong)


@pytest.mark.parametrize(
    ("path", "files", "folder", "roots"),
    [
        ("/l", None, "/l", ["/l"]), ("file:///l", None, "/l", ["/l"]), ("/l", "/l/files", "/l/files", ["/l"]),
        ("/f/lake", "/f", "/f", ["/f"]), ("/fa", "/f", "/f", ["/fa", "/f"]),
        ("/l", "/other", "/other", ["/l", "/other"]), ("s3a://l", "/f", "/f", ["s3a://l", "/f"]),
    ],
)  # fmt: skip
def test_where_what_is_no_table_lies(path: str, files: str | None, folder: str, roots: list[str]) -> None:
    lake = config.Lake(path=path, files=files)
    assert (lake.folder, lake.roots) == (Path(folder), tuple(roots))


def test_a_lake_may_have_a_percent_sign_in_its_name_where_the_trainer_finds_it(base: Path) -> None:
    assert config.load([base], ["lake.path=/100%/ü"]).lake.path == "/100%/ü"
    without = "recommend.models=[popularity, als]"
    assert config.load([base], ["lake.path=/a%20b", without]).lake.path == "/a%20b"


def test_round_trip_and_hash(base: Path) -> None:
    settings = config.load([base])
    assert config.Settings.model_validate(settings.dump()) == settings
    assert config.load([base], ["als.rank=9"]).hash() != settings.hash()
    # where it runs and who watches changes no table
    elsewhere = ["spark.master=local[8]", "tracking.enabled=false", "lake.path=other"]
    assert config.load([base], elsewhere).hash() == settings.hash()


def test_secrets_do_not_reach_a_dump(base: Path) -> None:
    settings = config.load([base], ["tracking.password=hunter2", "tracking.token=t0ken"])
    assert settings.tracking.password == SecretStr("hunter2")
    assert "hunter2" not in str(settings.dump()) + repr(settings)
    assert "t0ken" not in str(settings.dump()) + repr(settings)


def test_secrets_of_spark_and_sources_and_logins_are_masked(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET", "hunter2")
    key = "spark.hadoop.fs.s3a.secret.key"
    over = [
        f"spark.conf={{{key}: '${{AWS_SECRET}}', spark.sql.shuffle.partitions: '8'}}",
        "source.options={reader: {api_token: hunter2, sep: ';'}, more: [{password: hunter2}], tokens: [hunter2]}",
        "tracking.uri=https://me:hunter2@mlflow.example/a@b",
        "source.options.private_key=hunter2",
        "source.options.sasl.jaas.config=hunter2",
    ]
    settings = config.load([base], over)
    assert settings.spark.conf[key] == "hunter2"
    plain = settings.dump()
    assert "hunter2" not in str(plain)
    assert plain["spark"]["conf"]["spark.sql.shuffle.partitions"] == "8"
    assert plain["source"]["options"]["reader"]["sep"] == ";"
    assert plain["tracking"]["uri"] == "https://**********@mlflow.example/a@b"
    database = config.load([base], ["tracking.uri=postgresql+psycopg2://mlflow:hunter2@db/mlflow"])
    assert database.dump()["tracking"]["uri"] == "postgresql+psycopg2://**********@db/mlflow"
    with pytest.raises(ConfigError) as raised:
        config.load([base], ["source.path=${AWS_SECRET}@${SPARKREC_NOT_SET}"])
    assert "hunter2" not in str(raised.value)
    assert "${AWS_SECRET}@${SPARKREC_NOT_SET}" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("spark.hadoop.fs.s3a.access.key", True),
        ("spark.hadoop.fs.s3a.session.token", True),
        ("spark.hadoop.fs.azure.account.key.shop.dfs.core.windows.net", True),
        ("spark.hadoop.fs.azure.sas.logs.shop.blob.core.windows.net", True),
        ("spark.hadoop.fs.gs.auth.service.account.private.key", True),
        ("hadoop.security.credential.provider.path", True),
        ("kafka.sasl.jaas.config", True),
        ("api_key", True),
        ("apiKey", True),
        ("db.passwd", True),
        ("ssl.keystore.passphrase", True),
        ("spark.sql.shuffle.partitions", False),
        ("sassafras", False),
        ("keyspace", False),
    ],
)
def test_secrets_are_known_by_the_names_that_vendors_give_them(base: Path, name: str, secret: bool) -> None:
    shown = config.load([base], [f"spark.conf={{{name}: hunter2}}"]).dump()["spark"]["conf"][name]
    assert (shown != "hunter2") == secret


@pytest.mark.parametrize(
    "over",
    [
        "publish.password=@hunter2",
        "publish.to=redis+tls://:hunter2@host",
        "publish.to=redis://:hunter2@host",
        "tracking.token=[hunter2",
    ],
)
def test_errors_show_no_secret(base: Path, tmp_path: Path, over: str) -> None:
    key, _, value = over.partition("=")
    for name in reversed(key.split(".")):
        value = f"{{{name}: {value}}}"
    for files, overrides in (([base], [over]), ([base, write(tmp_path / "over.yaml", value)], [])):
        with pytest.raises(ConfigError) as raised:
            config.load(files, overrides)
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("over", ["clean.latest=2026-02-30", "split.validation_days=.inf", "lake.path=''"])
def test_values_that_there_are_not_are_said_to_be_the_configurations_fault(base: Path, over: str) -> None:
    with pytest.raises(ConfigError, match=over.split("=")[0]):
        config.load([base], [over])


def test_only_true_and_false_are_truth_values(base: Path, tmp_path: Path) -> None:
    """As docs/data_contract.md adds a rule: YAML 1.1 would read the key as true, and Norway as false."""
    rule = "{on: items, when: price > 50000, expects: 'at most 50,000'}"
    over = write(tmp_path / "over.yaml", f"clean: {{rules: {{dear: {rule}}}}}\ntracking: {{enabled: no}}\n")
    settings = config.load([base, over], [f"clean.rules.dearer={rule}", "source.options={country: NO}"])
    assert [settings.clean.rules[name].on for name in ("dear", "dearer")] == ["items", "items"]
    assert settings.tracking.enabled is False
    assert settings.source.options == {"country": "NO"}


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    paths = [path] if "source" in yaml.safe_load(path.read_text()) else [CONF / "demo.yaml", path]
    assert config.load(paths).name


def test_importing_the_package_is_light() -> None:
    heavy = "pyspark", "tensorflow", "horovod", "mlflow", "pandas"
    modules = "sparkrec, sparkrec.config, sparkrec.schemas, sparkrec.cli"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: x\ntwo_tower: {epochs: 3}\nsource: {name: simulator, path: logs}\ntwo_tower:\n  ranks: 1\n")
    with pytest.raises(ConfigError, match=r"'two_tower' stands there a second time(.|\n)*line 4"):
        config.load([path])
    path.write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\n")
    assert reading.read(path)["b"] == {"x": 2}, "what is merged in may be said anew"


def test_a_configuration_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.yaml is not UTF-8.*Save it as UTF-8"):
        config.load([path])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recommend.models=[popularity, als, twotower]", "recommend.models.2"),
        ("recommend.models=[]", "recommend.models"),
        ("similar.models=[alz]", "similar.models.0"),
        ("name=a/b's", "name"),
        ("similar.bought_together=true", "features.neighbors is 0"),
    ],
)
def test_what_could_only_fail_after_hours_is_refused_at_once(override, said):
    with pytest.raises(ConfigError, match=said):
        config.load(["conf/demo.yaml"], [override])


def test_what_gold_does_not_hold_cannot_count_as_seen():
    few = "features.event_types=[purchase]"
    with pytest.raises(ConfigError, match=r"recommend\.exclude_seen has view, cart, and features\.event_types has not"):
        config.load(["conf/demo.yaml"], [few, "recommend.exclude_seen=[view, cart, purchase]"])
    assert "view" in config.load(["conf/demo.yaml"], [few]).recommend.exclude_seen, "nobody asked for it"
    config.load(["conf/demo.yaml"], [few, "recommend.exclude_seen=[purchase]"])


def test_a_model_is_trained_where_some_list_asks_for_it():
    settings = config.load(["conf/demo.yaml"], ["recommend.models=[popularity, als]"])
    assert (settings.uses("als"), settings.uses("two_tower")) == (True, False)
    assert settings.similar_models == ("als",)
    beside = config.load(["conf/demo.yaml"], ["recommend.models=[popularity]", "similar.models=[two_tower]"])
    assert (beside.uses("als"), beside.uses("two_tower")) == (False, True)
    ranked = config.load(
        ["conf/demo.yaml"], ["recommend.models=[popularity, ranker]", "ranker.sources=[als, popularity]"]
    )
    assert (ranked.uses("als"), ranked.uses("two_tower")) == (True, False)
