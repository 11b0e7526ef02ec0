"""Models and reports on disk forget a user, and stay readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ranks import on_ranks

from sparkrec.privacy import artifacts
from sparkrec.privacy.scan import Needles
from sparkrec.training import checkpoint
from sparkrec.training.checkpoint import Part
from sparkrec.training.collective import SingleProcess

pytestmark = pytest.mark.unit

USERS = 1 + np.arange(22, dtype=np.float32).reshape(11, 2)
GONE, KEPT = [1, 4, 10], [0, 2, 3, 5, 6, 7, 8, 9]
FOLDER = Path("models", "two_tower", "day", "checkpoints")


def save(folder: Path, ranks: int, sharded: bool) -> None:
    """Weights and one accumulator of users, and a table of items, as a training leaves them."""

    def write(collective) -> None:
        own = USERS[collective.rank :: collective.size] if sharded else USERS
        users = [
            Part(f"{array}/user_id", 11, rows.shape, [rows]) for array, rows in (("weights", own), ("sum", own[:, :1]))
        ]
        items = [Part("weights/item_id", 11, USERS.shape, [USERS])]
        replicated, shards = (items, users) if sharded else (items + users, [])
        checkpoint.save(folder, 7, replicated, shards, {"fingerprint": "x"}, 2, collective)

    on_ranks(ranks, write)


@pytest.mark.parametrize(("ranks", "sharded"), [(1, False), (1, True), (2, False), (3, True)])
def test_rows_of_users_become_zeros_and_the_checkpoint_stays_whole(tmp_path: Path, ranks: int, sharded: bool) -> None:
    save(tmp_path / FOLDER, ranks, sharded)
    model = tmp_path / "mlruns" / "1" / "r" / "artifacts" / "model"
    model.mkdir(parents=True)
    np.save(model / "user_id.npy", USERS[:6])  # a model that knew fewer users
    np.save(model / "item_id.npy", USERS)
    files = 2 * ranks if sharded else 2
    changed = artifacts.forget_rows(tmp_path, GONE)
    assert 1 < changed <= files + 1
    said: list[str] = []
    found = checkpoint.newest(tmp_path / FOLDER, "x", SingleProcess(), said.append)
    assert found is not None
    assert not said
    for name, expected in (("weights/user_id", USERS), ("sum/user_id", USERS[:, :1])):
        rows = found.read(name, np.arange(11))
        assert not rows[GONE].any()
        np.testing.assert_array_equal(rows[KEPT], expected[KEPT])
    np.testing.assert_array_equal(found.read("weights/item_id", None), USERS)
    np.testing.assert_array_equal(np.load(model / "item_id.npy"), USERS)
    assert np.load(model / "user_id.npy").any(axis=1).tolist() == [True, False, True, True, False, True]
    assert artifacts.forget_rows(tmp_path, GONE) == 0, "the second time there is nothing to do"


def test_killed_between_rows_and_checksum_is_healed_and_damage_stays_damage(tmp_path: Path) -> None:
    save(tmp_path / FOLDER, 1, False)
    folder = tmp_path / FOLDER / "0000000007"
    array = np.load(folder / "weights.user_id.npy", mmap_mode="r+")
    array[GONE] = 0
    array.flush()
    assert checkpoint.newest(tmp_path / FOLDER, "x", SingleProcess(), lambda text: None) is None, "as killed"
    artifacts.forget_rows(tmp_path, GONE)
    assert checkpoint.newest(tmp_path / FOLDER, "x", SingleProcess(), lambda text: None) is not None
    array[0] = np.nan  # a disk that lies
    array.flush()
    artifacts.forget_rows(tmp_path, [0])
    assert checkpoint.newest(tmp_path / FOLDER, "x", SingleProcess(), lambda text: None) is None
    assert not np.load(folder / "weights.user_id.npy")[0].any()


def test_reports_that_show_somebody_go(tmp_path: Path) -> None:
    for name, text in (("reports/a/report.html", "<h3>User ann_123</h3>"), ("mlruns/1/x/report.html", "bob_4567")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert artifacts.remove_reports(tmp_path, Needles.of(["ann_123"])) == [tmp_path / "reports/a/report.html"]
    assert (tmp_path / "mlruns/1/x/report.html").exists()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "report.html").write_text("<h3>User ann_123</h3>")
    (tmp_path / "reports" / "b").symlink_to(tmp_path / "disk")
    assert artifacts.remove_reports(tmp_path, Needles.of(["ann_123"])) == [tmp_path / "reports/b/report.html"]
    assert artifacts.remove_reports(tmp_path, Needles.of(["ann_123"])) == []
