"""Days that real processes ingest and clean, killed again and again, two at once, or on a full disk: one lake."""

from __future__ import annotations

import shutil
from pathlib import Path

import drivers
import pytest
import shop
from deltalake import DeltaTable

from sparkrec import schemas
from sparkrec.schemas import Table

pytestmark = [pytest.mark.workers, pytest.mark.slow]

SILVER = (
    schemas.SILVER_EVENTS, schemas.SILVER_REPEATS, schemas.SILVER_SUSPECTS, schemas.SILVER_ITEM_DAYS,
    schemas.SILVER_ITEMS, schemas.QUARANTINE,
)  # fmt: skip
OPTIONS = {"users": 40, "items": 50, "days": 3, "events": 700, "start": "2026-01-05"}
DAYS = ("--from-date", "2026-01-05", "--to-date", "2026-01-07")
#: Of each run: the first until the first lines of a day, the last until the lines of two.
MOMENTS = drivers.moments(16, (3, 5, 7, 9, 12, 16, 20, 24))


def configuration(folder: Path, logs: Path, lake: Path | None = None) -> Path:
    return shop.configuration(
        folder, logs, source={"name": "simulator", "path": str(logs), "options": OPTIONS},
        clean={"near_duplicate_seconds": 20}, lake={"path": str(lake or folder / "lake")},
        spark={"driver_memory": "1g", "shuffle_partitions": 2, "conf": drivers.INTERPRETED},
    )  # fmt: skip


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything at once, and nobody disturbs it."""
    folder = tmp_path_factory.mktemp("quiet")
    drivers.finish(
        drivers.start("sparkrec", "run", "--conf", configuration(folder, folder / "logs"), "--until", "clean")
    )
    return folder


#: In a mount namespace of its own: a small disk on the lake's folder, so full that ingest stops, then clean. What lies
#: on the disk after each run is copied, as it goes with the namespace.
FULL_DISK = """
set -eu
lake=$1 copies=$2 conf=$3
mount -t tmpfs -o size=64m none "$lake"
run() {  # with so many KB free, "sparkrec run" from a stage until clean
    free=$(df --output=avail -k "$lake" | tail -1)
    head -c $(( (free - $1) * 1024 )) /dev/zero > "$lake/ballast"
    code=0
    sparkrec run --conf "$conf" --from $2 --until clean 2>&1 || code=$?
    rm "$lake/ballast"
    cp -r "$lake" "$copies/$1"
    echo "exit code $code, $1 KB free"
}
run 24 ingest
run 440 ingest
run 32768 clean
"""


def test_a_full_disk_is_said_and_leaves_whole_tables(quiet: Path, tmp_path: Path) -> None:
    lake, copies = tmp_path / "lake", tmp_path / "copies"
    lake.mkdir()
    copies.mkdir()
    conf = configuration(tmp_path, quiet / "logs")
    script = ("unshare", "--mount", "--map-root-user", "sh", "-c", FULL_DISK, "sh")
    if drivers.start(*script[:3], "true").wait():
        pytest.skip("no mount namespace may be made here; run this as root, or where user namespaces are allowed")
    printed = drivers.finish(drivers.start(*script, lake, copies, conf))
    in_ingest, in_clean, with_room, _ = printed.split("exit code ")
    assert [part[0] for part in printed.split("exit code ")[1:]] == ["4", "4", "0"], printed
    for text in (in_ingest, in_clean):
        assert (said := last_word(text)).startswith("sparkrec: failed, worth a retry:"), printed
        assert "No space left on device" in said, printed
    assert "wrote silver.events" in in_clean, printed
    assert "  ingest " not in with_room
    assert rows(copies / "24", schemas.BRONZE_EVENTS) in (None, [])
    assert rows(copies / "440", schemas.BRONZE_EVENTS) == rows(quiet / "lake", schemas.BRONZE_EVENTS)
    for table in SILVER:
        assert rows(copies / "440", table) in (None, [], rows(quiet / "lake", table)), table.name
    shop.assert_same_tables(quiet / "lake", copies / "32768", SILVER)


def test_two_at_once_both_finish_or_one_says_why_not(quiet: Path, tmp_path: Path) -> None:
    shutil.copytree(quiet / "lake", tmp_path / "lake")
    clean = ("sparkrec", "clean", "--conf", configuration(tmp_path, quiet / "logs"))
    both = [drivers.start(*clean, "--set", "clean.full=true") for _ in range(2)]
    printed = [drivers.finish(process, 0, 4) for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, printed
    for text, code in zip(printed, codes, strict=True):
        assert code == 0 or "worth a retry" in last_word(text), text
    drivers.finish(drivers.start(*clean))
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake", SILVER)


def test_day_by_day_and_killed_is_as_at_once_and_quiet(quiet: Path, tmp_path: Path) -> None:
    backfill = ("sparkrec", "backfill", "--conf", configuration(tmp_path, quiet / "logs"), *DAYS)
    for lines, later in MOMENTS:
        drivers.kill(drivers.start(*backfill), lines, later, "ingest", "clean")
    drivers.finish(drivers.start(*backfill))
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake", SILVER)


def last_word(printed: str) -> str:
    """What sparkrec said last; lines that the JVM had already written may come out after it."""
    return next((line for line in reversed(printed.splitlines()) if line.startswith("sparkrec: ")), "")


def rows(lake: Path, table: Table) -> list[str] | None:
    """None: there is no such table."""
    return shop.rows(lake, table) if DeltaTable.is_deltatable(str(lake / table.name.replace(".", "/"))) else None
