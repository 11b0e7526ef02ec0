"""Which GPU a rank computes on, and that no two ranks share one."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence

from sparkrec.errors import ConfigError
from sparkrec.training.collective import Collective, tell


def choose(visible: Sequence[str], assigned: Sequence[str], local_rank: int) -> int:
    """The position among the visible GPUs, of which there is at least one.

    The only one, if there is one: the cluster manager has chosen already. Else the first that Spark assigned, which it
    names by the number that its discovery script printed. Else the local rank; but containers of one machine may
    each have a local rank 0, hence ``check_distinct``.

    Parameters
    ----------
    visible : names, as CUDA_VISIBLE_DEVICES lists them, or 0, 1, ….
    assigned : Spark's addresses, from ``TaskContext.resources``; empty where Spark schedules no GPUs.

    Raises
    ------
    ConfigError
        The GPU is not there.
    """
    if len(visible) == 1:
        return 0
    if assigned:
        if assigned[0] in visible:
            return list(visible).index(assigned[0])
        raise ConfigError(
            f"Spark assigned this rank the GPU {assigned[0]}, and on {socket.gethostname()} it sees "
            f"{', '.join(visible)}. Let the discovery script print the names that CUDA_VISIBLE_DEVICES uses, "
            "or unset that variable."
        )
    if local_rank >= len(visible):
        raise ConfigError(
            f"Rank {local_rank} (from 0) of {socket.gethostname()} has no GPU of its own: there are {len(visible)}. "
            "Start as many ranks a machine as it has GPUs, or let Spark assign them "
            "(spark.executor.resource.gpu.amount, spark.task.resource.gpu.amount=1, a discovery script)."
        )
    return local_rank


def visible_names(count: int) -> list[str]:
    """The names of the GPUs that this process sees."""
    listed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return listed[:count] if len(listed) >= count else [str(number) for number in range(count)]


def use_gpu(wanted: str, collective: Collective, assigned: Sequence[str]) -> str | None:
    """Confine TensorFlow to this rank's GPU, whose memory grows as needed; its name, or None on the CPU.

    Before TensorFlow's first operation.

    Parameters
    ----------
    wanted : ``auto`` (a GPU if there is one), ``cpu`` or ``gpu``.

    Raises
    ------
    ConfigError
        ``gpu``, and there is none; two ranks chose the same; some ranks have one and others do not.
    """
    import tensorflow as tf

    there = tf.config.list_physical_devices("GPU")
    found = [] if wanted == "cpu" else there
    if wanted == "gpu" and not found:
        raise ConfigError(
            f"two_tower.device is gpu, and TensorFlow sees none on {socket.gethostname()}: is it the package with "
            "CUDA, and what do nvidia-smi and CUDA_VISIBLE_DEVICES say there? Set device: cpu to train without."
        )
    name = None
    if found:
        names = visible_names(len(found))
        place = choose(names, assigned, collective.local_rank)
        tf.config.experimental.set_memory_growth(found[place], True)
        name = identity(names[place])
    if there:
        tf.config.set_visible_devices([found[place]] if found else [], "GPU")
    check_distinct(collective, name)
    return name


def identity(name: str) -> str:
    """The GPU's UUID where nvidia-smi tells it: containers of one machine may each call theirs 0. Else the name."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return name
    uuids = dict(line.split(", ", 1) for line in listed.splitlines() if ", " in line)
    return uuids.get(name, name)


def check_distinct(collective: Collective, name: str | None) -> None:
    """
    Raises
    ------
    ConfigError
        Two ranks use one GPU, or only some ranks use one.
    """
    every = tell(collective, {"host": socket.gethostname(), "gpu": name})
    places = [_place(**said) for said in every]
    without = [rank for rank, place in enumerate(places) if place is None]
    if without and len(without) < len(places):
        raise ConfigError(
            f"Ranks {without} see no GPU and the others do, so that all would wait for the slowest. Start them on "
            "machines that are alike, or set two_tower.device: cpu."
        )
    twice = sorted({place for place in places if place is not None and places.count(place) > 1})
    if twice:
        listed = "; ".join(
            f"ranks {[rank for rank, place in enumerate(places) if place == one]} use GPU {one}" for one in twice
        )
        raise ConfigError(
            f"{listed}: a GPU is for one rank. Ask Spark for one a task (spark.task.resource.gpu.amount=1, with a "
            "discovery script), or start fewer ranks a machine."
        )


def _place(host: str, gpu: str | None) -> str | None:
    """A UUID names one GPU also where containers of one machine have host names of their own."""
    return gpu if gpu is None or gpu.startswith(("GPU-", "MIG-")) else f"{gpu} of {host}"
