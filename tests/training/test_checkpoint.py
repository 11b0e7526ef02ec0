"""Whole or not there; by every rank its part; read by any number of ranks."""

from __future__ import annotations

import builtins
import io
import os
from errno import EACCES, EIO, EMFILE, ENOTCONN, ESTALE

import numpy as np
import pytest
from ranks import on_ranks

from sparkrec.errors import RetryableError
from sparkrec.training import checkpoint
from sparkrec.training.checkpoint import Part
from sparkrec.training.collective import SingleProcess

pytestmark = pytest.mark.unit

ONE = SingleProcess()
TABLE = np.arange(22, dtype=np.float32).reshape(11, 2)


def save(folder, number, collective=ONE, keep=2, **state):
    own = TABLE[collective.rank :: collective.size] + number
    shards = [Part("weights/big", 11, own.shape, [own[:2], own[2:]])]
    replicated = [Part("weights/small", 3, (3,), [np.full(3, number)])]
    state = {"fingerprint": "x", "score": None} | state
    return checkpoint.save(folder, number, iter(replicated), iter(shards), state, keep, collective)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("writers", [1, 2, 3])
@pytest.mark.parametrize("readers", [1, 2, 4])
def test_rows_come_back_on_another_number_of_ranks(tmp_path, writers, readers):
    on_ranks(writers, lambda collective: save(tmp_path, 7, collective))

    def read(collective):
        found = checkpoint.newest(tmp_path, "x", collective, print)
        own = np.arange(collective.rank, 11, collective.size)
        np.testing.assert_array_equal(found.read("weights/big", own), TABLE[own] + 7)
        np.testing.assert_array_equal(found.read("weights/big", None), TABLE + 7)
        np.testing.assert_array_equal(found.read("weights/small", np.asarray([2, 0])), [7, 7])
        return found.read("weights/small", None).tolist(), found.state["number"]

    assert on_ranks(readers, read) == [([7, 7, 7], 7)] * readers


def test_the_newest_are_kept_and_the_best_and_a_half_written_one_is_not_seen(tmp_path):
    for number, score in enumerate((0.1, 0.3, None, 0.2, 0.3)):
        save(tmp_path, number, score=score)
    (tmp_path / ".0000000009.tmp").mkdir()
    assert names(tmp_path) == [".0000000009.tmp", "0000000001", "0000000003", "0000000004"]
    assert checkpoint.newest(tmp_path, "x", ONE, print).state["number"] == 4
    assert checkpoint.newest(tmp_path, "another", ONE, print) is None
    checkpoint.clear(tmp_path)
    assert checkpoint.newest(tmp_path, "x", ONE, print) is None


@pytest.mark.parametrize("file", ["weights.small.npy", "weights.big.0.npy", "weights.big.2.npy", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_file_is_seen_by_all_ranks_and_the_one_before_is_used(tmp_path, file, harm):
    on_ranks(3, lambda collective: (save(tmp_path, 1, collective), save(tmp_path, 2, collective)))
    path = tmp_path / "0000000002" / file
    content = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    if harm == "flip":
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])

    def read(collective):
        said = []
        return checkpoint.newest(tmp_path, "x", collective, said.append).state["number"], said

    for number, said in on_ranks(3, read):
        assert number == 1
        assert len(said) == 1
        assert said[0].startswith(f"the checkpoint {tmp_path / '0000000002'} is damaged: ")


@pytest.mark.parametrize("number", [EIO, ESTALE, ENOTCONN, EACCES, EMFILE])
@pytest.mark.parametrize("file", ["weights.big.1.npy", "manifest.json"])
def test_a_file_that_cannot_be_read_now_is_no_damage(tmp_path, monkeypatch, number, file):
    """All ranks hear of it, whoever it was, and nothing is removed; then the checkpoint is as good as before."""
    on_ranks(3, lambda collective: (save(tmp_path, 1, collective, score=0.1), save(tmp_path, 2, collective, score=0.2)))
    before = sorted(tmp_path.rglob("*"))
    opened = io.open

    def away(path, *more, **options):
        if os.path.basename(path) == file:
            raise OSError(number, "the store is away")
        return opened(path, *more, **options)

    def read(look):
        def rank(collective):
            with pytest.raises(RetryableError, match=rf"rank \d: {tmp_path}/\S*{file}: the store is away.*run the job"):
                look(collective)

        return rank

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", away)
        patched.setattr(builtins, "open", away)
        on_ranks(3, read(lambda collective: checkpoint.newest(tmp_path, "x", collective, pytest.fail)))
        on_ranks(3, read(lambda collective: checkpoint.best(tmp_path, "x", collective)))
    assert sorted(tmp_path.rglob("*")) == before
    assert checkpoint.newest(tmp_path, "x", ONE, pytest.fail).state["number"] == 2


def test_the_best_is_not_removed_because_its_score_cannot_be_read_now(tmp_path, monkeypatch):
    for number, score in enumerate((0.3, 0.1)):
        save(tmp_path, number, keep=1, score=score)
    score_of = checkpoint._score

    def away(path):
        if path.name == "0000000000":
            raise OSError(EIO, "the store is away")
        return score_of(path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_score", away)
        with pytest.raises(RetryableError, match="the store is away"):
            save(tmp_path, 2, keep=1, score=0.2)
    assert checkpoint.best(tmp_path, "x", ONE).state["number"] == 0
    assert checkpoint.newest(tmp_path, "x", ONE, pytest.fail).state["number"] == 2


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(tmp_path):
    for number in (4, 8):
        save(tmp_path, number, keep=2, score=number)
    (tmp_path / "0000000008" / "weights.small.npy").unlink()
    save(tmp_path, 5, keep=1, score=0.1)
    assert names(tmp_path) == ["0000000004", "0000000005"]  # the best of those that are whole, and the newest
    assert checkpoint.newest(tmp_path, "x", ONE, pytest.fail).state["number"] == 5


def test_a_folder_that_may_not_be_looked_into_is_not_an_empty_one(tmp_path, monkeypatch):
    """Nor one that is cleared in part: what is left could be taken for another training's."""
    save(tmp_path / "checkpoints", 1)

    def fails(*_):
        raise PermissionError(EACCES, "Permission denied", str(tmp_path))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "listdir", fails)
        with pytest.raises(RetryableError, match=r"checkpoints could not be read.*Permission denied"):
            checkpoint.newest(tmp_path / "checkpoints", "x", ONE, pytest.fail)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "rename", fails)
        with pytest.raises(PermissionError):
            checkpoint.clear(tmp_path / "checkpoints")
    assert checkpoint.newest(tmp_path / "checkpoints", "x", ONE, pytest.fail).state["number"] == 1
    checkpoint.clear(tmp_path / "checkpoints")
    assert not names(tmp_path)


def test_a_full_disk_on_one_rank_is_an_error_on_all_and_loses_nothing(tmp_path, monkeypatch):
    on_ranks(2, lambda collective: save(tmp_path, 1, collective))
    write = checkpoint._write

    def full(path, part):
        if path.name == "weights.big.1.npy":
            raise OSError(28, "No space left on device")
        return write(path, part)

    monkeypatch.setattr(checkpoint, "_write", full)

    def rank(collective):
        with pytest.raises(RetryableError, match=r"rank 1: .*No space left.*keep_checkpoints"):
            save(tmp_path, 2, collective)
        return checkpoint.newest(tmp_path, "x", collective, print).state["number"]

    assert on_ranks(2, rank) == [1, 1]
    assert names(tmp_path) == ["0000000001"]  # half of a checkpoint takes no room


def test_a_full_disk_does_not_cost_the_checkpoint_that_is_to_be_replaced(tmp_path, monkeypatch):
    """The last step of an epoch and the epoch's end have one number; keep is 1, so there is no other."""

    def full(path, part):
        raise OSError(28, "No space left on device")

    save(tmp_path, 1, keep=1)
    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(RetryableError, match=f"could not be written in {tmp_path}"):
        save(tmp_path, 1, keep=1)
    assert checkpoint.newest(tmp_path, "x", ONE, print).state["number"] == 1


def test_killed_while_the_checkpoint_that_was_replaced_is_removed(tmp_path, monkeypatch):
    """The last step of an epoch and the epoch's end have one number; keep is 1, so there is no other."""
    save(tmp_path, 1, keep=1, score=0.1)
    remove = checkpoint.shutil.rmtree

    def killed(path, **options):
        if (path / checkpoint.MANIFEST).exists():
            next(path.glob("*.npy")).unlink()
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 1, keep=1, score=0.2)
    assert checkpoint.newest(tmp_path, "x", ONE, pytest.fail).state["score"] == 0.2
    save(tmp_path, 1, keep=1, score=0.3)
    assert names(tmp_path) == ["0000000001"]


def test_who_checks_a_large_file_is_heard(tmp_path, monkeypatch):
    on_ranks(2, lambda collective: save(tmp_path, 1, collective))
    monkeypatch.setattr(checkpoint, "_BLOCK", 16)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "0000000001").glob("*.npy"))]
    assert len(sizes) == 3
    beats = []
    assert checkpoint.newest(tmp_path, "x", ONE, pytest.fail, lambda: beats.append(1))
    assert len(beats) == sum(-(-size // 16) for size in sizes)


@pytest.mark.parametrize("error", [OSError("the store is away"), KeyboardInterrupt()])
def test_a_checkpoint_that_could_not_be_replaced_is_still_there(tmp_path, monkeypatch, error):
    """Also where the process dies between the renames: then the next one that looks puts it back."""
    save(tmp_path, 1, keep=1, score=0.1)
    rename = checkpoint.os.rename

    def fails(source, target):
        if str(source).endswith(".tmp"):
            raise error
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "rename", fails)
        with pytest.raises((RetryableError, KeyboardInterrupt)):
            save(tmp_path, 1, keep=1, score=0.2)
    found = checkpoint.newest(tmp_path, "x", ONE, pytest.fail)
    assert found.state["score"] == 0.1
    np.testing.assert_array_equal(found.read("weights/big", None), TABLE + 1)
    assert not list(tmp_path.glob(".*.old"))
