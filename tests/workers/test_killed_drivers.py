"""Each job is submitted alone, killed in the middle and submitted again: the tables are those of one quiet run."""

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
#: test_disturbed_lake.py and test_killed_erase.py: twenty of these four in all.
KILLS = dict.fromkeys(STAGES, (1, 3)) | {"featurize": (5, 12)}
RANKED = {"recommend": {"models": ["popularity", "als", "two_tower", "ranker"]}, "ranker": {"leaf_rows": 20}}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All in one process; nobody disturbs it."""
    folder = tmp_path_factory.mktemp("quiet")
    drivers.finish(drivers.start("sparkrec", "run", "--conf", shop.configuration(folder, folder / "logs", **RANKED)))
    return folder


def test_submitted_one_by_one_and_killed_is_as_at_once_and_quiet(quiet: Path, tmp_path: Path) -> None:
    """Each by ``spark-submit``, killed, then submitted again. Plans are interpreted here and compiled there."""
    chance = random.Random(11)
    spark = {"driver_memory": "1g", "shuffle_partitions": 2, "conf": drivers.INTERPRETED}
    conf = shop.configuration(tmp_path, quiet / "logs", spark=spark, **RANKED)
    for stage in STAGES:
        kills, lines = KILLS[stage]
        for _ in range(kills):
            log = drivers.kill(shop.submit(stage, conf), chance.randint(1, lines), chance.uniform(0, 1.5), stage)
            assert re.search(rf"  {stage} .*started", log), f"{stage}: {log}"
            assert not re.search(rf"  {stage} .* s  done", log), f"{stage} was killed too late"
        drivers.finish(shop.submit(stage, conf))
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake")
