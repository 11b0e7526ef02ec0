"""The job's side of a training: the plan from the lake, the checks before the launch, the lines of progress."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError
from sparkrec.schemas import Table
from sparkrec.training import manifest
from sparkrec.training.plan import Plan

if TYPE_CHECKING:
    from pyspark import SparkContext

    from sparkrec.pipeline import Run

# What belongs to the job's own application and must not be handed to another.
_OWN = (
    "spark.app.", "spark.driver.port", "spark.executor.id", "spark.sql.", "spark.databricks.", "spark.ui.port",
    "spark.rdd.compress", "spark.submit.deployMode",
    "spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions", "spark.hadoop.fs.s3a.vectored",
)  # fmt: skip
# What decides whether an executor comes, and how many.
_ASKED = ("spark.executor.memory", "spark.executor.cores", "spark.executor.resource.gpu.amount", "spark.cores.max")
# What a rank imports that Spark's own Python does not bring.
_IMPORTED = ("sparkrec", "horovod", "tensorflow")
_SILENT_SECONDS = 5.0


def model_folder(run: Run) -> Path:
    """Where plan, checkpoints and model of a run lie.

    Raises
    ------
    ConfigError
        The lake is not a mounted folder.
    """
    folder = run.path("models", "two_tower", run.run_id).removeprefix("file://")
    if "://" in folder:
        raise ConfigError(
            f"lake.path is {run.settings.lake.path}, and the two-tower ranks keep checkpoints and the model in a "
            "folder that all of them reach by path. Mount the store, for instance as /mnt/lake, and name that."
        )
    return Path(folder).absolute()


def make_plan(run: Run, versions: Mapping[Table, int]) -> Plan:
    """Which rank reads what of the pinned tables, and how large the embedding tables are."""
    settings = run.settings.two_tower
    manifests = {
        table.name: manifest.of_table(run.lake.path(table), version, table.name, settings.ranks)
        for table, version in versions.items()
    }
    return Plan(
        folder=str(model_folder(run)),
        two_tower=settings.model_dump(mode="json"),
        sizes={
            "users": _rows(run, schemas.VOCABULARY_USERS, c.USER_INDEX),
            "items": _rows(run, schemas.VOCABULARY_ITEMS, c.ITEM_INDEX),
            "features": _rows(run, schemas.VOCABULARY_FEATURES, c.FEATURE_INDEX),
        },
        sequences=manifests[schemas.GOLD_SEQUENCES.name],
        items=manifests[schemas.GOLD_ITEMS.name],
        spark_conf=launch_conf(dict(run.spark.sparkContext.getConf().getAll())),
    )


def preflight(run: Run) -> None:
    """What would make the job or the launch wait in vain, found before the first Spark job.

    Raises
    ------
    ConfigError
        Too few slots, or executors that cannot run a rank: :func:`check_slots`, :func:`check_executors`.
    """
    ranks = run.settings.two_tower.ranks
    if ranks == 1:
        return
    _check_horovod()
    context = run.spark.sparkContext
    conf = dict(context.getConf().getAll())
    local = conf.get("spark.master", "local").startswith("local")
    # Executors that Spark adds on demand come when the ranks ask for them; then only the start timeout helps.
    if conf.get("spark.dynamicAllocation.enabled") != "true":
        patience = 0 if local else run.settings.two_tower.start_timeout_seconds
        check_slots(ranks, _slots(run, patience), conf)
    if not local:
        check_executors(context, ranks)


def check_slots(ranks: int, slots: int, conf: Mapping[str, str]) -> None:
    """Horovod needs all ranks at once and waits for them in silence: say it before the launch.

    Raises
    ------
    ConfigError
        There are fewer slots than ranks.
    """
    if slots >= ranks:
        return
    master, gpus = conf.get("spark.master", "local"), conf.get("spark.task.resource.gpu.amount")
    each = f"{conf.get('spark.task.cpus', '1')} core(s)" + (f" and {gpus} GPU(s)" if gpus else "")
    asked = ", ".join(f"{key}={conf[key]}" for key in _ASKED if key in conf)
    more = f"An executor comes only where a worker has free what it asks for ({asked})"
    if master.startswith("local"):
        more = f"Give Spark more cores (spark.master=local[{ranks}])"
    fewer = f", or set two_tower.ranks={slots}" if slots else ""
    raise ConfigError(
        f"two_tower.ranks={ranks} needs {ranks} Spark slots at once, and {master} has {slots} for this job; a slot is "
        f"{each}. {more}{fewer}."
    )


def check_executors(context: SparkContext, ranks: int) -> None:
    """Can a rank be started where Spark would start it? Asked in ``ranks`` tasks, which spread over the executors.

    Raises
    ------
    ConfigError
        An executor cannot run this Python, import sparkrec or Horovod, or has a name that others cannot reach.
    """

    def look(_: Iterable[int]) -> Iterator[tuple[str, str, str]]:  # local, so that it travels by value
        import socket
        from importlib.util import find_spec

        host = socket.gethostname()
        try:
            address = socket.gethostbyname(host)
        except OSError:
            address = "nothing"
        yield host, address, ", ".join(name for name in _IMPORTED if find_spec(name) is None)

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
    _check_names({(host, address) for host, address, _ in found})


def launch_conf(conf: Mapping[str, str]) -> dict[str, str]:
    """The job's Spark settings for the ranks' application, less what is the job's own."""
    wanted = {key: value for key, value in conf.items() if not key.startswith(_OWN)}
    if wanted.get("spark.master", "").startswith("local"):
        wanted |= {"spark.driver.host": "localhost", "spark.driver.bindAddress": "127.0.0.1"}
    return wanted | {"spark.ui.enabled": "false"}


class Listener:
    """Ranks' log lines become progress, and epochs become curves in MLflow."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "epoch" and event["rank"] == 0:
            names = ("loss", "recall", "ndcg", "examples_per_second")
            values = {f"{event['phase']}.{name}": event[name] for name in names if name in event}
            self._run.tracker.metrics(values, event["epoch"])
        line = describe(event)
        if line:
            self._run.say(line)


def describe(event: Mapping[str, Any]) -> str:
    """One line of progress, or nothing."""
    kind = event["event"]
    if kind == "rows":
        return (
            f"rank {event['rank']} on {event['host']}: read {event['rows']:,} rows of {event['row_groups']} row "
            f"group(s), trains on {event['users']:,} users with {event['events']:,} events"
        )
    if kind == "step":
        return (
            f"{event['phase']} epoch {event['epoch']}/{event['epochs']} step {event['step']}/{event['steps']}: loss "
            f"{event['loss']:.4f}, {event['examples_per_second']:,.0f} examples/s, {event['seconds_left']:.0f} s left"
        )
    if kind == "epoch" and event["rank"] == 0:
        scored = f", recall@20 {event['recall']:.4f}, ndcg@20 {event['ndcg']:.4f}" if "ndcg" in event else ""
        speed = f"{event['examples_per_second']:,.0f} examples/s"
        return f"{event['phase']} epoch {event['epoch']} done: loss {event['loss']:.4f}{scored}, {speed}"
    if kind == "equal":
        return (
            f"rank {event['rank']} of {event['ranks']}: last step done, variables {event['hash']}, equal on all ranks"
        )
    if kind == "bytes":
        listed = ", ".join(f"{name} {sent:,}" for name, sent in event["sent"].items())
        return f"bytes that a rank sent in a step: {listed}"
    return str(event["text"]) if kind == "note" else ""


def _rows(run: Run, table: Table, index: str) -> int:
    from pyspark.sql import functions as F

    highest = run.read(table).agg(F.max(index)).head()
    return 0 if highest is None or highest[0] is None else int(highest[0]) + 1


def _check_horovod() -> None:
    from importlib.util import find_spec

    spec = find_spec("horovod")
    where = list(spec.submodule_search_locations or []) if spec else []
    if not any(list(Path(folder, "tensorflow").glob("mpi_lib*")) for folder in where):
        raise ConfigError(
            "Horovod is not installed with TensorFlow, and two_tower.ranks asks for more than one rank. "
            "Run 'make setup', which builds it, or set two_tower.ranks=1."
        )


def _check_names(found: Collection[tuple[str, str]]) -> None:
    """Gloo connects to the address of a host's own name, whatever the interface."""
    for host, address in sorted(found):
        if len(found) > 1 and (address == "nothing" or address.startswith("127.")):
            others = ", ".join(sorted({name for name, _ in found} - {host}))
            raise ConfigError(
                f"On {host} its own name resolves to {address}, so ranks on {others} cannot reach it. Mend /etc/hosts "
                "or DNS there: the name must resolve to the address that the others see."
            )


def _slots(run: Run, patience: float) -> int:
    """Tasks that can run at once, by cores and GPUs of the executors that are there; waits for some to come."""
    jvm: Any = run.spark.sparkContext._jsc.sc()
    ranks, started, said = run.settings.two_tower.ranks, time.monotonic(), -1
    while True:
        there = int(jvm.maxNumConcurrentTasks(jvm.resourceProfileManager().defaultResourceProfile()))
        waited = time.monotonic() - started
        if there >= ranks or waited >= patience:
            return there
        if there != said and waited > _SILENT_SECONDS:
            run.say(f"{there} of {ranks} slots are there; waiting for the others, up to {patience} s")
            said = there
        time.sleep(0.2)
