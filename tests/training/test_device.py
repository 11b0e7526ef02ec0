"""Which GPU: by what is visible, by Spark, by the local rank; and never one for two."""

from __future__ import annotations

import os
import stat
import threading

import pytest
from ranks import on_ranks

from sparkrec.errors import ConfigError
from sparkrec.training import device

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("visible", "assigned", "local_rank", "place"),
    [
        (["7"], ["3"], 2, 0),  # the manager has narrowed what is visible; its own numbers mean nothing here
        (["0", "1", "2", "3"], ["3"], 0, 3),
        (["2", "3"], ["3"], 0, 1),  # named by what is visible, not by position
        (["0", "1", "2"], [], 2, 2),
        (["GPU-a", "GPU-b"], ["GPU-b"], 0, 1),
    ],
)
def test_the_only_one_then_sparks_then_the_local_rank(visible, assigned, local_rank, place):
    assert device.choose(visible, assigned, local_rank) == place


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"assigned this rank the GPU 5.*sees 0, 1"):
        device.choose(["0", "1"], ["5"], 0)
    with pytest.raises(ConfigError, match=r"Rank 2 \(from 0\).*there are 2"):
        device.choose(["0", "1"], [], 2)


def test_names_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-b")
    assert device.visible_names(2) == ["4", "GPU-b"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device.visible_names(2) == ["0", "1"]


def test_the_uuid_tells_containers_apart(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aa'\necho '1, GPU-bb'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert device.identity("1") == "GPU-bb"
    assert device.identity("GPU-cc") == "GPU-cc"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert device.identity("1") == "1"


def test_two_ranks_on_one_gpu_are_refused_on_all_ranks():
    refused = []

    def rank(collective):
        try:
            device.check_distinct(collective, "GPU-aa" if collective.rank < 2 else "GPU-bb")
        except ConfigError as error:
            refused.append(str(error))

    on_ranks(3, rank)
    assert len(refused) == 3
    assert "ranks [0, 1] use GPU GPU-aa" in refused[0]


def test_a_uuid_is_one_gpu_in_whatever_container_and_a_number_is_one_of_its_host(monkeypatch):
    monkeypatch.setattr(device.socket, "gethostname", lambda: threading.current_thread().name)
    on_ranks(2, lambda collective: device.check_distinct(collective, "0"))
    with pytest.raises(ConfigError, match=r"ranks \[0, 1\] use GPU GPU-aa: a GPU is for one rank"):
        on_ranks(2, lambda collective: device.check_distinct(collective, "GPU-aa"))


def test_ranks_with_and_without_are_refused():
    with pytest.raises(ConfigError, match=r"Ranks \[1\] see no GPU"):
        on_ranks(2, lambda collective: device.check_distinct(collective, None if collective.rank else "0"))


def test_all_with_their_own_and_all_without_are_fine():
    on_ranks(2, lambda collective: device.check_distinct(collective, str(collective.rank)))
    on_ranks(2, lambda collective: device.check_distinct(collective, None))


@pytest.fixture
def tensorflow(monkeypatch):
    """TensorFlow on a machine with two made-up GPUs; what was set."""
    import tensorflow as tf

    done = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu a", "gpu b"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: done.append(("seen", devices)))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: done.append(("grows", gpu, on)))
    monkeypatch.setattr(device, "identity", lambda name: f"GPU-{name}")
    return done


def test_a_rank_sees_its_own_gpu_only_whose_memory_grows(tensorflow):
    names = on_ranks(1, lambda collective: device.use_gpu("auto", collective, ["1"]))
    assert names == ["GPU-1"]
    assert tensorflow == [("grows", "gpu b", True), ("seen", ["gpu b"])]


def test_two_ranks_take_two_gpus(tensorflow):
    assert on_ranks(2, lambda collective: device.use_gpu("gpu", collective, [])) == ["GPU-0", "GPU-1"]


def test_cpu_hides_all(tensorflow):
    assert on_ranks(1, lambda collective: device.use_gpu("cpu", collective, ["1"])) == [None]
    assert tensorflow == [("seen", [])]


def test_gpu_wanted_and_none_there(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(ConfigError, match=r"two_tower.device is gpu, and TensorFlow sees none"):
        on_ranks(1, lambda collective: device.use_gpu("gpu", collective, []))
