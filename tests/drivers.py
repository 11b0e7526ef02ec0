"""Real driver processes: started in a group of their own, killed after some of their lines, and what they printed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import shop

#: A few rows in hundreds of plans: to interpret them takes a quarter less than to compile each. The demo compiles.
INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.databricks.delta.snapshotPartitions": "1",
}  # fmt: skip
#: Whether to compile, as it is outside of tests.
COMPILED = {"spark.sql.codegen.wholeStage": "true", "spark.sql.codegen.factoryMode": "FALLBACK"}


def start(*command: str | Path) -> subprocess.Popen[str]:
    """``sparkrec run …``, say."""
    return subprocess.Popen(
        command, cwd=shop.HOME, env=shop.environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], *codes: int) -> str:
    """Waits; the exit code must be one of ``codes`` (default: 0). Returns what was printed."""
    printed, _ = process.communicate()
    assert process.returncode in (codes or (0,)), printed
    return printed


def kill(process: subprocess.Popen[str], lines: int, later: float, *stages: str) -> str:
    """``kill -9`` of the group, ``later`` seconds after so many lines of the stages' progress; what it printed."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        lines -= any(f"  {stage} " in line for stage in stages)
        if lines <= 0:
            break
    time.sleep(later)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return "".join(printed)


def copied(
    process: subprocess.Popen[str], lake: Path, folder: Path, moments: Mapping[str, list[tuple[int, float]]]
) -> list[tuple[str, Path]]:
    """Copies of the lake as it lay at some ``moments`` of stages, the process stopped: a line, and seconds after it."""
    assert process.stdout is not None
    copies: list[tuple[str, Path]] = []
    lines = dict.fromkeys(moments, 0)
    folder.mkdir()
    for line in process.stdout:
        for stage in (stage for stage in moments if f"  {stage} " in line):
            lines[stage] += 1
            for later in [later for at, later in moments[stage] if at == lines[stage]]:
                time.sleep(later)
                os.killpg(process.pid, signal.SIGSTOP)
                copies.append((stage, folder / f"{len(copies)}-{stage}"))
                # Not checked: ranks have groups of their own and go on, so that a file may go while it is copied.
                subprocess.run(["cp", "-a", lake, copies[-1][1]], check=False)
                os.killpg(process.pid, signal.SIGCONT)
    return copies


def moments(seed: int, last_lines: tuple[int, ...], seconds: float = 1.5) -> list[tuple[int, float]]:
    """A moment of death for each of ``last_lines``: after 1 to so many lines, and a part of the time to the next."""
    chance = random.Random(seed)
    return [(chance.randint(1, last), round(chance.uniform(0, seconds), 2)) for last in last_lines]
