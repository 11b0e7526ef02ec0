"""A Spark standalone master with workers on this machine, started from the pip package, with made-up GPUs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from shop import BIN, HOME

from sparkrec.training.supervisor import carriers, kill

_MARK = "SPARKREC_TESTED_CLUSTER"


class Cluster:
    """A master at ``url``; what it and its workers start carries a mark in its environment."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._token = folder, uuid.uuid4().hex
        log = self._start("master", "master.Master", "")
        self.url = _wait(log, r"Starting Spark master at (spark://\S+)")

    def add_workers(self, **gpus: Sequence[str]) -> None:
        """For each name a worker of one core, whose discovery script prints these addresses."""
        logs = [self._start_worker(name, addresses) for name, addresses in gpus.items()]
        for log in logs:
            _wait(log, r"(Successfully registered with master)")

    def worker_of(self, process: psutil.Process) -> tuple[str, psutil.Process, psutil.Process]:
        """Name and process of the worker that this process descends from, and the executor's process between them."""
        chain = {" ".join(parent.cmdline()): parent for parent in process.parents()}
        executor = next(one for line, one in chain.items() if "CoarseGrainedExecutorBackend" in line)
        line, worker = next((line, one) for line, one in chain.items() if "deploy.worker.Worker" in line)
        return re.findall(r"--work-dir \S*/(\w+)", line)[0], worker, executor

    def stop(self) -> None:
        every = list(carriers(self._token, _MARK))
        kill(every)
        psutil.wait_procs(every, timeout=10)

    def _start_worker(self, name: str, gpus: Sequence[str]) -> Path:
        script = self._folder / f"{name}.sh"
        script.write_text(f"#!/bin/sh\necho '{json.dumps({'name': 'gpu', 'addresses': list(gpus)})}'\n")
        script.chmod(0o755)
        options = {"amount": len(gpus), "discoveryScript": script}
        return self._start(
            name, "worker.Worker", " ".join(f"-Dspark.worker.resource.gpu.{key}={x}" for key, x in options.items()),
            "--cores", "1", "--memory", "1g", "--work-dir", str(self._folder / name), self.url,
        )  # fmt: skip

    def _start(self, name: str, role: str, options: str, *arguments: str) -> Path:
        log = self._folder / f"{name}.log"
        ours = {
            _MARK: self._token, "SPARK_DAEMON_MEMORY": "256m", "SPARK_WORKER_OPTS": options,
            "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        at = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        with open(log, "wb") as file:
            subprocess.Popen(
                [BIN / "spark-class", f"org.apache.spark.deploy.{role}", *at, *arguments], env=os.environ | ours,
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        return log


@contextmanager
def standalone(folder: Path, **gpus: Sequence[str]) -> Iterator[Cluster]:
    """A master and workers; all that they started is gone afterwards."""
    cluster = Cluster(folder)
    try:
        cluster.add_workers(**gpus)
        yield cluster
    finally:
        cluster.stop()


def _wait(log: Path, pattern: str, seconds: float = 600) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    raise TimeoutError(f"{log.name} does not say '{pattern}': {log.read_text(errors='replace')[-2000:]}")
