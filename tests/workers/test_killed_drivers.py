"""One pipeline, killed in the middle of every job and started again there: the tables are those of a quiet one."""

from __future__ import annotations

import random
import re
from pathlib import Path

import drivers
import pytest
import shop

from sparkrec.pipeline import STAGES

pytestmark = [pytest.mark.workers, pytest.mark.slow]


#: Deaths of a stage, and its lines of progress among which they are. Of ingest, clean and erase there are more in
#: test_disturbed_lake.py and test_killed_erase.py: over twenty in all.
KILLS = dict.fromkeys(STAGES, (1, 3)) | {"featurize": (4, 12)}
RANKED = {"recommend": {"models": ["popularity", "als", "two_tower", "ranker"]}, "ranker": {"leaf_rows": 20}}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All in one process; nobody disturbs it."""
    folder = tmp_path_factory.mktemp("quiet")
    drivers.finish(drivers.start("sparkrec", "run", "--conf", shop.configuration(folder, folder / "logs", **RANKED)))
    return folder


def test_killed_in_every_job_is_as_quiet(quiet: Path, tmp_path: Path) -> None:
    """A job that dies again was submitted alone, by ``spark-submit``. Plans are interpreted here, compiled there."""
    chance = random.Random(11)
    spark = {"driver_memory": "1g", "shuffle_partitions": 2, "conf": drivers.INTERPRETED}
    conf = shop.configuration(tmp_path, quiet / "logs", spark=spark, **RANKED)
    run, first = ("sparkrec", "run", "--conf", conf, "--from"), STAGES[0]
    for stage in STAGES:
        kills, lines = KILLS[stage]
        moments = [(chance.randint(1, lines), chance.uniform(0, 1.5)) for _ in range(kills)]
        while moments:
            started = shop.submit(stage, conf) if first == stage else drivers.start(*run, first)
            log = drivers.kill(started, *moments.pop(), stage)
            first = stage
            assert re.search(rf"  {stage} .*started", log), f"{stage}: {log}"
            if re.search(rf"  {stage} .* s  done", log):  # killed too late; a job that is done may be run again
                moments.append((1, chance.uniform(0, 0.5)))
    drivers.finish(drivers.start(*run, first))
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake")
