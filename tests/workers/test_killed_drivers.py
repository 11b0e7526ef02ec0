"""Each job is killed in the middle and the run goes on: the tables are those of jobs that were submitted one by one."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import drivers
import pytest
import shop

from sparkrec.pipeline import STAGES

pytestmark = [pytest.mark.workers, pytest.mark.slow]


#: Deaths of a stage, and its lines of progress among which they are. Of ingest, clean and erase there are more in
#: test_disturbed_lake.py and test_killed_erase.py: twenty of these four in all.
KILLS = dict.fromkeys(STAGES, (1, 3)) | {"featurize": (5, 12)}
RANKED = {"recommend": {"models": ["popularity", "als", "two_tower", "ranker"]}, "ranker": {"leaf_rows": 20}}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every job by ``spark-submit``, alone; nobody disturbs it."""
    folder = tmp_path_factory.mktemp("quiet")
    conf = shop.configuration(folder, folder / "logs", **RANKED)
    for stage in STAGES:
        drivers.finish(shop.submit(stage, conf))
    return folder


def run(conf: Path, *more: str) -> subprocess.Popen[str]:
    return drivers.start("sparkrec", "run", "--conf", conf, *more)


def test_killed_and_run_again_is_as_submitted_one_by_one(quiet: Path, tmp_path: Path) -> None:
    """Each run goes on where the one before was killed. Plans are interpreted here and compiled there."""
    chance = random.Random(11)
    spark = {"driver_memory": "1g", "shuffle_partitions": 2, "conf": drivers.INTERPRETED}
    conf = shop.configuration(tmp_path, quiet / "logs", spark=spark, **RANKED)
    first = STAGES[0]
    for stage in STAGES:
        kills, lines = KILLS[stage]
        later = STAGES[STAGES.index(stage) + 1 :]
        for _ in range(kills):
            process = run(conf, "--from", first)
            log = drivers.kill(process, chance.randint(1, lines), chance.uniform(0, 1.5), stage, until=later)
            assert re.search(rf"  {stage} .*started", log), f"{stage}: {log}"
            first = stage
    drivers.finish(run(conf, "--from", first))
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake")
