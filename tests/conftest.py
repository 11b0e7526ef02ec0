"""One Spark session for all tests, settings in a temporary lake, and the real data where it is present."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import COMPILED, INTERPRETED
from hypothesis import settings

from sparkrec import config
from sparkrec.config import Settings
from sparkrec.pipeline import Run
from sparkrec.session import known_classes

# The JVM of a whole session of tests, and those of the processes that tests start: without the optimising compiler one
# that lives for a minute spends half as much; after four minutes of work the optimised one is ahead, by a third.
# Each hash table and each sort of a few rows begins with a page that has to be filled with zeros, of 16 MB where Spark
# chooses its size: a twentieth of a test, and half of what a session's heap holds.
_LASTING = f"-XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC -Dspark.buffer.pageSize=1m {known_classes()}"
os.environ.setdefault("JDK_JAVA_OPTIONS", f"-XX:TieredStopAtLevel=1 {_LASTING}")

# Machines are noisy: by default Hypothesis fails an example that takes longer than 0.2 s.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

DATA = Path(os.environ.get("SPARKREC_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of long tests first, killed pipelines before all: so processes that share the files end together."""
    longest: dict[Path, tuple[bool, ...]] = {}
    for item in items:
        slow, workers, spark = (item.get_closest_marker(mark) is not None for mark in ("slow", "workers", "spark"))
        own = (slow, slow and item.path.parent.name == "workers", workers, spark)
        longest[item.path] = max(own, longest.get(item.path, own))
    items.sort(key=lambda item: longest[item.path], reverse=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In CI, what failed and what took over a minute is printed when it happens: a run cut off has no summary."""
    if "CI" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ and (report.failed or report.duration > 60):
        print(f"\n{report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext[-4000:]}", flush=True)


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    from sparkrec.session import get_session

    with tempfile.TemporaryDirectory() as scratch:
        conf = {"spark.local.dir": scratch, "spark.sql.warehouse.dir": f"{scratch}/warehouse"} | INTERPRETED
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JDK_JAVA_OPTIONS", _LASTING)
            # With 1 GB the plans of an hour of tests fill the heap: a JVM was seen to collect garbage for 980 s of it.
            session = get_session(config.Spark(driver_memory="2g", shuffle_partitions=2, conf=conf), "tests")
        yield session
        session.stop()


@pytest.fixture
def compiled(spark: Any) -> Iterator[None]:
    """For a test of many rows: its plans are compiled, as they are outside of tests."""
    for name, value in COMPILED.items():
        spark.conf.set(name, value)
    yield
    for name in COMPILED:
        spark.conf.set(name, INTERPRETED[name])


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What the tests of a file left in the session: kept frames of jobs that died, Delta's logs of lakes."""
    yield
    if "pyspark.sql" in sys.modules and (active := sys.modules["pyspark.sql"].SparkSession.getActiveSession()):
        active.catalog.clearCache()
        active._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """``make_settings(two_tower={"epochs": 1})``: defaults in a temporary lake, without MLflow."""

    def make(**sections: Any) -> Settings:
        base: dict[str, Any] = {
            "name": "test",
            "lake": {"path": str(tmp_path / "lake")},
            "source": {"name": "simulator", "path": str(tmp_path / "logs")},
            "spark": {"driver_memory": "1g", "shuffle_partitions": 2},
            "tracking": {"enabled": False},
        }
        return Settings.model_validate(base | sections)

    return make


@pytest.fixture
def make_run(spark: Any, make_settings: Callable[..., Settings]) -> Callable[..., Run]:
    """``make_run("clean", split={"kind": "given"})``: a run of one stage in a temporary lake."""

    def make(stage: str, **sections: Any) -> Run:
        return Run(make_settings(**sections), stage)

    return make


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets; a test that needs it skips where it is absent, and fails so in CI."""
    if not DATA.is_dir():
        message = f"the data folder {DATA} is not here; set SPARKREC_DATA"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return DATA
