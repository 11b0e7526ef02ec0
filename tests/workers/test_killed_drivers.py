"""Each job is killed in the middle and run again; each is submitted alone once more: the tables are a quiet run's."""

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


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("quiet")
    drivers.finish(run(shop.configuration(folder, folder / "logs")))
    return folder


def run(conf: Path, *more: str) -> subprocess.Popen[str]:
    return drivers.start("sparkrec", "run", "--conf", conf, *more)


def test_killed_and_run_again_is_as_never_killed(quiet: Path, tmp_path: Path) -> None:
    """Each run goes on where the one before was killed."""
    chance = random.Random(11)
    conf = shop.configuration(tmp_path, quiet / "logs")
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


def test_every_job_submitted_alone_once_more_gives_the_same_tables(quiet: Path, tmp_path: Path) -> None:
    before = {table: shop.rows(quiet / "lake", table) for table in shop.PIPELINE}
    conf = shop.configuration(tmp_path / "again", quiet / "logs", lake={"path": str(quiet / "lake")})
    for stage in STAGES:
        drivers.finish(shop.submit(stage, conf))
    for table, content in before.items():
        assert shop.rows(quiet / "lake", table) == content, table.name
