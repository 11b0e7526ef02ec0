"""New users and new items on public data.

MovieLens 100k by the whole pipeline, held out by a hash of the id: a fifth of the users with all their ratings, and a
tenth of the films from everyone. Films have genres, a year and words; a user's films come in the order of their times.
UCI Online Retail, the last 30 days: new customers get the list of their country, by the formula alone, without Spark.

Settings are chosen on validation: on other users and films, and on the 30 days before, which the tested run has in its
training part. The test is looked at once.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from _results import HOME, claim, save
from deltalake import DeltaTable

from sparkrec import columns as c
from sparkrec.evaluation import bootstrap, metrics

DATA = Path(os.environ.get("SPARKREC_DATA", HOME.parent / "shared" / "data"))
METRIC, K = "ndcg", 20
#: Of ten parts by hash: (users, items) held out for validation, and for the test.
FOLDS = {"validation": ((2, 3), (1,)), "test": ((0, 1), (0,))}
#: What is tried on validation: towers, then the prior of new users on the best, and the prior of segments.
TOWERS = ({"user_id": True, "new_items_by_features": True}, {"user_id": False, "id_dropout": 0.3})
USER_PRIORS = (0, 10, 30)
SEGMENT_PRIORS = (10, 100, 1000, 10_000)
DAYS = np.timedelta64(30, "D")
COMMON = {
    "spark": {"master": "local[1]"},
    "recommend": {"models": ["popularity", "two_tower"]},
    "two_tower": {"ranks": 1},
    "evaluate": {"tradeoff_users": 0, "sample_users": 0},
    "tracking": {"enabled": False},
}
Rows = list[dict[str, Any]]


def sparkrec(*arguments: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["sparkrec", *arguments], cwd=HOME, env=environment, check=True)


def fold(text: str) -> int:
    return zlib.crc32(text.encode()) % 10


def movielens(folder: Path, part: str) -> None:
    """The files of one part: what the test holds out is not in those of the validation at all."""
    users, items = FOLDS[part]
    gone_users, gone_items = FOLDS["test"] if part == "validation" else ((), ())
    with open(DATA / "movielens-100k" / "u.data") as source, open(folder / "events.csv", "w", newline="") as to:
        rows = csv.writer(to)
        rows.writerow(("user", "film", "type", "at", "stars", "part"))
        for user, film, stars, seconds in csv.reader(source, delimiter="\t"):
            if fold(f"user {user}") in gone_users or fold(f"item {film}") in gone_items:
                continue
            held = fold(f"user {user}") in users or fold(f"item {film}") in items
            rows.writerow((user, film, "rating", seconds, stars, "test" if held else "train"))
    lines = (DATA / "movielens-100k" / "u.genre").read_text().splitlines()
    genres = [line.split("|")[0] for line in lines if line]
    with (
        open(DATA / "movielens-100k" / "u.item", encoding="latin-1") as source,
        open(folder / "films.csv", "w", newline="") as to,
    ):
        rows = csv.writer(to)
        rows.writerow(("film", "title", "genres", "year"))
        for film, title, released, _, _, *marks in csv.reader(source, delimiter="|", quoting=csv.QUOTE_NONE):
            if fold(f"item {film}") not in gone_items:
                named = [name for name, mark in zip(genres, marks, strict=True) if mark == "1"]
                rows.writerow((film, title.replace('"', ""), "|".join(named), released[-4:]))


def movielens_conf(folder: Path) -> dict[str, Any]:
    events = {"user_id": "user", "item_id": "film", "event_type": "type", "event_time": "at", "value": "stars"}
    items = {"item_id": "film", "name": "title"}
    events |= {"split": "part"}
    options = {
        "events": {"files": "events.csv", "format": "csv", "columns": events, "time_format": "seconds"},
        "items": {"files": "films.csv", "format": "csv", "columns": items, "attributes": ["genres", "year"]},
    }  # fmt: skip
    return COMMON | {
        "name": "cold_movielens",
        "lake": {"path": str(folder / "lake")},
        "source": {"name": "generic", "path": str(folder), "options": options},
        "split": {"kind": "given"},
        "features": {"attributes": ["genres", "year"]},
    }


def written(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """The configuration as a file; the command's arguments."""
    (folder / "conf.yaml").write_text(yaml.safe_dump(dict(settings)))
    return ["--conf", str(folder / "conf.yaml")]


def with_sets(values: Mapping[str, Any], section: str) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{section}.{name}={json.dumps(value)}")]


def measured(folder: Path, run_id: str) -> tuple[Rows, Rows]:
    """The newest rows of newcomers in the metrics table, and the gains in evaluate's newest record."""
    lake = folder / "lake"
    rows = DeltaTable(str(lake / "metrics")).to_pyarrow_table().to_pylist()
    wanted = [row for row in rows if (row[c.RUN_ID], row[c.METRIC], row[c.K]) == (run_id, METRIC, K)]
    records = DeltaTable(str(lake / "runs")).to_pyarrow_table().to_pylist()
    mine = [row for row in records if (row[c.RUN_ID], row[c.STAGE]) == (run_id, "evaluate")]
    newest = max(mine, key=lambda row: row[c.STARTED])
    return [row for row in wanted if row[c.SEGMENT].startswith("new_")], json.loads(newest[c.DETAILS])["newcomers"]


def mean(rows: Rows, model: str, segments: Sequence[str]) -> float:
    values = [row[c.VALUE] for row in rows if row[c.MODEL] == model and row[c.SEGMENT] in segments]
    return sum(values) / len(values)


def claims(name: str, rows: Rows, gains: Rows) -> Iterator[dict[str, Any]]:
    """Each model against the base, with the interval of the difference in the claim's name."""
    found = {(row[c.SEGMENT], row[c.MODEL]): row for row in rows}
    for gain in gains:
        ours, base = (found[gain[c.SEGMENT], gain[x]] for x in ("model", "other"))
        where = f"{name}, {gain[c.SEGMENT]} ({ours[c.N_USERS]} users)"
        what = f"{gain['model']} against {gain['other']}: {gain['low']:+.4f} to {gain['high']:+.4f}, {gain['verdict']}"
        yield claim(f"{where}: {what}", [ours[c.VALUE]], [base[c.VALUE]], f"NDCG@{K}", 1.0)


def of_movielens(home: Path) -> tuple[list[dict[str, Any]], str]:
    folder = home / "validation"
    folder.mkdir()
    movielens(folder, "validation")
    common = written(folder, movielens_conf(folder))
    sparkrec("run", *common, "--until", "train_popularity")
    tower, prior = chosen(folder, common)
    folder = home / "test"
    folder.mkdir()
    movielens(folder, "test")
    sets = with_sets(tower, "two_tower") + with_sets({"newcomer_prior": prior}, "recommend")
    common = written(folder, movielens_conf(folder)) + sets
    sparkrec("run", *common, "--until", "train_popularity")
    sparkrec("run", *common, "--from", "train_two_tower")
    rows, gains = measured(folder, "cold_movielens-all")
    return list(
        claims("MovieLens 100k", rows, gains)
    ), f"MovieLens two_tower {json.dumps(tower)}, newcomer_prior {prior}"


def chosen(folder: Path, common: list[str]) -> tuple[Mapping[str, Any], int]:
    """The prior by new users after 1, 3 and 5 items of the first tower; then the tower by new users and new items."""

    def train(tower: Mapping[str, Any]) -> None:
        sparkrec("run", *common, "--from", "train_two_tower", "--until", "recommend", *with_sets(tower, "two_tower"))

    def scores(prior: int) -> tuple[float, float]:
        sparkrec("evaluate", *common, *with_sets({"newcomer_prior": prior}, "recommend"))
        rows, _ = measured(folder, "cold_movielens-all")
        users = mean(rows, "two_tower", [f"new_users_{n}" for n in (1, 3, 5)])
        return users, mean(rows, "two_tower", ["new_items"])

    train(TOWERS[0])
    prior = max(USER_PRIORS, key=lambda prior: scores(prior)[0])
    by_tower = []
    for tower in TOWERS:
        train(tower)
        by_tower.append(sum(scores(prior)))
    return TOWERS[by_tower.index(max(by_tower))], prior


def of_retail() -> tuple[list[dict[str, Any]], str]:
    """The list of a new customer's country, by the formula of ``models.segments``, against everyone's."""
    log = retail()
    end = np.datetime64("2011-12-10")
    earlier = {prior: retail_gain(log, end - DAYS, prior)[0]["ours"] for prior in SEGMENT_PRIORS}
    prior = max(SEGMENT_PRIORS, key=earlier.__getitem__)
    return retail_gain(log, end, prior), f"Online Retail segment_prior {prior} of {list(SEGMENT_PRIORS)}"


def retail() -> pd.DataFrame:
    """Purchases of goods by known customers: customer, item, country, time; as clean keeps them."""
    names = ["InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
    texts = {"InvoiceNo": str, "StockCode": str, "CustomerID": str}
    files = sorted((DATA / "online-retail" / "by-day").glob("*.csv"))
    rows = pd.concat([pd.read_csv(file, usecols=names, dtype=texts) for file in files]).drop_duplicates()
    bought = (rows.Quantity > 0) & (rows.UnitPrice > 0) & ~rows.InvoiceNo.str.startswith("C")
    kept = rows[bought & rows.CustomerID.notna() & rows.StockCode.str.match(r"\d{5}")]
    return pd.DataFrame(
        {
            "user": kept.CustomerID,
            "item": kept.StockCode,
            "country": kept.Country,
            "time": pd.to_datetime(kept.InvoiceDate),
        }
    ).sort_values("time", kind="stable")


def retail_gain(log: pd.DataFrame, end: np.datetime64, prior: float) -> list[dict[str, Any]]:
    """New customers of the ``DAYS`` before ``end``, all their items asked for: everybody, and those from abroad."""
    past, test = log[log.time < end - DAYS], log[(log.time >= end - DAYS) & (log.time < end)]
    home = past.groupby("user").country.last()
    codes, items = pd.factorize(past.item, sort=True)
    counts = pd.crosstab(past.user.map(home), codes)
    of_all = counts.sum().to_numpy() / counts.to_numpy().sum()
    shares = {
        country: (row + prior * of_all) / (row.sum() + prior)
        for country, row in zip(counts.index, counts.to_numpy(), strict=True)
    }
    people = (
        test[~test.user.isin(home.index)]
        .groupby("user")
        .agg({"country": "first", "item": lambda x: [*dict.fromkeys(x)]})
    )
    found: dict[str, list[Any]] = {"everyone": [], "segment": []}
    for country, asked in zip(people.country, people.item, strict=True):
        for name, score in (("everyone", of_all), ("segment", shares.get(country, of_all))):
            found[name].append(np.isin(items[np.argsort(-score, kind="stable")[:K]], asked))
    n_relevant = people.item.map(len).to_numpy()
    values = [metrics.per_user(np.asarray(x), n_relevant, K)[:, metrics.NAMES.index(METRIC)] for x in found.values()]
    keys = np.array([zlib.crc32(user.encode()) for user in people.index], np.uint64)
    rows = []
    for who, some in (("all", keys >= 0), ("from abroad", (people.country != "United Kingdom").to_numpy())):
        mean = bootstrap.means(bootstrap.sums(np.stack(values, axis=1)[some], keys[some], 1000))
        gap = bootstrap.interval(mean[1:, 1] - mean[1:, 0])
        assert gap, f"too few users for an interval: {who}"
        apart = int((values[0][some] != values[1][some]).sum())
        said = bootstrap.verdict(gap, apart, int(some.sum()))
        what = f"segment against everyone: {gap[0]:+.4f} to {gap[1]:+.4f}, {said}"
        name = f"Online Retail, new customers at first sight, {who} ({some.sum()} users): {what}"
        rows.append(claim(name, [mean[0, 1]], [mean[0, 0]], f"NDCG@{K}", 1.0))
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        parts = [of_movielens(Path(home)), of_retail()]
    note = "Newcomers of the test part, one seed. Chosen on validation: " + "; ".join(text for _, text in parts) + "."
    save("cold_start", [row for rows, _ in parts for row in rows], note)


if __name__ == "__main__":
    main()
