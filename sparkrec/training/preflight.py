"""What would make a training on Spark wait in vain or fail after minutes, found before the first Spark job."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, RetryableError

if TYPE_CHECKING:
    from pyspark import SparkContext

    from sparkrec.pipeline import Run

# What a rank imports that Spark's own Python does not bring.
_LOOK = """
from importlib.util import find_spec
print(*(name for name in ("sparkrec", "horovod", "tensorflow") if find_spec(name) is None))
"""
# What decides whether an executor comes, and how many.
_ASKED = ("spark.executor.memory", "spark.executor.cores", "spark.executor.resource.gpu.amount", "spark.cores.max")
_SILENT_SECONDS = 5.0


def preflight(run: Run) -> None:
    """Slots, and executors that can run a rank; nothing for one rank, which needs neither.

    Raises
    ------
    ConfigError, RetryableError
        Horovod without TensorFlow here, too few slots, executors on which no rank can start.
    """
    settings, context = run.settings.two_tower, run.spark.sparkContext
    if settings.ranks == 1:
        return
    _check_horovod()
    conf = dict(context.getConf().getAll())
    local = conf.get("spark.master", "local").startswith("local")
    # Executors that Spark adds on demand come when the ranks ask for them; then only the start timeout helps.
    if conf.get("spark.dynamicAllocation.enabled") != "true":
        patience = 0 if local else settings.start_timeout_seconds
        check_slots(settings, slots(context, settings.needed_ranks, patience, run.say), conf)
    if not local:
        check_executors(context, settings.needed_ranks)


def slots(context: SparkContext, wanted: int, seconds: float, say: Callable[[str], None]) -> int:
    """Tasks that can run at once, by cores and GPUs of the executors that are there; waits for some to come."""
    jvm: Any = context._jsc.sc()
    started, said = time.monotonic(), -1
    while True:
        there = int(jvm.maxNumConcurrentTasks(jvm.resourceProfileManager().defaultResourceProfile()))
        waited = time.monotonic() - started
        if there >= wanted or waited >= seconds:
            return there
        if there != said and waited > _SILENT_SECONDS:
            say(f"{there} of {wanted} slots are there; waiting for the others, up to {seconds:g} s")
            said = there
        time.sleep(0.2)


def check_slots(settings: TwoTower, slots: int, conf: Mapping[str, str]) -> None:
    """Horovod needs all ranks at once, and would wait for them in silence.

    Raises
    ------
    ConfigError, RetryableError
        There are fewer slots than ranks; of an elastic training, than ``min_ranks``. On a cluster a later try may find
        more.
    """
    ranks, name = settings.needed_ranks, "min_ranks" if settings.elastic else "ranks"
    if slots >= ranks:
        return
    master, gpus = conf.get("spark.master", "local"), conf.get("spark.task.resource.gpu.amount")
    each = f"{conf.get('spark.task.cpus', '1')} core(s)" + (f" and {gpus} GPU(s)" if gpus else "")
    asked = ", ".join(f"{key}={conf[key]}" for key in _ASKED if key in conf)
    more = f"An executor comes only where a worker has free what it asks for ({asked})"
    if master.startswith("local"):
        more = f"Give Spark more cores (spark.master=local[{ranks}])"
    fewer = f", or set two_tower.{name}={slots}" if slots else ""
    kind = ConfigError if master.startswith("local") else RetryableError
    raise kind(
        f"two_tower.{name}={ranks} needs {ranks} Spark slots at once, and {master} has {slots} for this job; a slot is "
        f"{each}. {more}{fewer}."
    )


def check_executors(context: SparkContext, ranks: int) -> None:
    """Can a rank start where Spark would start it? Asked in ``ranks`` tasks, which spread over the executors.

    Raises
    ------
    ConfigError
        An executor cannot run this Python, lacks a package, or has a name that other ranks cannot reach.
    """

    def look(_: Iterable[int]) -> Iterator[tuple[str, str, str]]:  # local, so that it travels without sparkrec
        import socket
        import subprocess
        import sys

        host = socket.gethostname()
        try:
            address = socket.gethostbyname(host)
        except OSError:
            address = "nothing"
        # A process of its own, as a rank is: it does not see what --py-files adds to Spark's Python.
        missing = subprocess.run([sys.executable, "-c", _LOOK], check=True, capture_output=True, text=True).stdout
        yield host, address, ", ".join(missing.split())

    try:
        found = set(context.parallelize(range(ranks), ranks).mapPartitions(look).collect())
    except Exception as error:
        reason = re.search(r"(?:Cannot run program|PYTHON_VERSION_MISMATCH).*", str(error))
        if reason is None:
            raise
        raise ConfigError(
            f"The executors cannot run the ranks' Python, {context.pythonExec} (PYSPARK_PYTHON): {reason[0]}. "
            "Give every machine the same Python under that path, or ship it (docs/clusters.md)."
        ) from error
    for host, _, missing in sorted(found):
        if missing:
            raise ConfigError(
                f"The Python of the executors, {context.pythonExec}, finds no {missing} on {host}. Install what "
                "docs/clusters.md lists there, or ship an environment that has it."
            )
    check_names({(host, address) for host, address, _ in found})


def check_names(hosts: Collection[tuple[str, str]]) -> None:
    """Gloo connects to the address of a host's own name, whatever the interface.

    Parameters
    ----------
    hosts : names, each with the address that the host itself finds for it.

    Raises
    ------
    ConfigError
        There are several, and one cannot be reached by the others.
    """
    for host, address in sorted(hosts):
        if len(hosts) > 1 and (address == "nothing" or address.startswith("127.")):
            others = ", ".join(sorted({name for name, _ in hosts} - {host}))
            raise ConfigError(
                f"On {host} its own name resolves to {address}, so ranks on {others} cannot reach it. Mend /etc/hosts "
                "or DNS there: the name must resolve to the address that the others see."
            )


def _check_horovod() -> None:
    from importlib.util import find_spec

    spec = find_spec("horovod")
    where = list(spec.submodule_search_locations or []) if spec else []
    if not any(list(Path(folder, "tensorflow").glob("mpi_lib*")) for folder in where):
        raise ConfigError(
            "Horovod is not installed with TensorFlow, and two_tower.ranks asks for more than one rank. "
            "Run 'make setup', which builds it, or set two_tower.ranks=1."
        )
