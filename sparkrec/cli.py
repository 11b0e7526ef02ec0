"""The command line: ``sparkrec run``, ``sparkrec STAGE``, and the entry point of every ``jobs/*.py``.

Exit codes: 0 done · 1 a defect of ours · 2 bad configuration · 3 bad data · 4 worth a retry.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sparkrec import __version__, config
from sparkrec.errors import GONE, UNUSABLE, ConfigError, DataError, NoData, RetryableError, SparkrecError
from sparkrec.pipeline import STAGES, Run, execute
from sparkrec.progress import say
from sparkrec.schemas import DATA_CLASSES

Job = Callable[[Run], None]


class Terminated(BaseException):
    """SIGTERM arrived."""


#: Commands besides the stages; each is a job as well.
COMMANDS = {
    "erase": "remove users from the lake, and prove it",
    "export": "write all that is held of one user",
    "maintain": "compact the tables and remove old files",
    "similar": "items to show beside each item",
    "audience": "users for the items of a campaign",
    "newcomers": "lists for users whom no model was trained on",
    "publish": "lists to where they are served from",
}
_OWN_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "erase": {"--users": {"required": True, "metavar": "FILE|ID,…", "help": "a file with an id a line, or ids"}},
    "export": {
        "--user": {"required": True, "metavar": "ID", "help": "the user's id, or pseudonym"},
        "--to": {"required": True, "metavar": "FOLDER", "help": "where to write; must not exist"},
        "--classes": {
            "nargs": "+", "choices": DATA_CLASSES, "default": list(DATA_CLASSES), "metavar": "CLASS",
            "help": "write only columns of these classes (docs/tables.md)",
        },
    },
    "audience": {
        "--items": {"required": True, "metavar": "FILE|ID,…", "help": "a file with an id a line, or ids"},
        "--campaign": {"required": True, "metavar": "NAME", "help": "what these lists are called"},
        "--top": {"type": int, "default": 1000, "metavar": "N", "help": "users for each item (default: 1000)"},
        "--model": {"metavar": "NAME", "help": "default: the last of recommend.models with vectors"},
    },
    "newcomers": {
        "--events": {"required": True, "metavar": "PATH", "help": "their events: a file or table (docs/cold_start.md)"},
    },
    "maintain": {"--dry-run": {"action": "store_true", "help": "say what would be done, and do nothing"}},
}  # fmt: skip

_EPILOG = "Exit codes: 0 done, 1 a defect, 2 bad configuration, 3 bad data, 4 a failure that is worth a retry."

# What the JVM says when the outside failed, not the data and not the code.
_RETRYABLE = (
    "ConcurrentAppendException", "ConcurrentDeleteReadException", "ConcurrentTransactionException",
    "ConcurrentWriteException", "MetadataChangedException", "ProtocolChangedException", "DELTA_CONCURRENT",
    "ExecutorLostFailure", "FetchFailedException", "Connection refused", "Connection reset",
    "Initial job has not accepted any resources", "SparkContext was shut down",
    "stopped SparkContext", "OutOfMemoryError",
)  # fmt: skip
_NO_ROOM = ("No space left on device", "Disk quota exceeded")
#: What the driver's Python says when its JVM is no longer there.
_NO_JVM = (
    "Answer from Java side is empty",
    "Error while sending or receiving",
    "Error while obtaining a new communication",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """``sparkrec``: run the whole pipeline, or one stage of it."""
    parser = argparse.ArgumentParser(prog="sparkrec", description=__doc__.splitlines()[0], epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"sparkrec {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    whole = commands.add_parser("run", help="all stages, in order", epilog=_EPILOG)
    _add_options(whole)
    whole.add_argument("--from", dest="first", choices=STAGES, default=STAGES[0], help="start with this stage")
    whole.add_argument("--until", dest="last", choices=STAGES, default=STAGES[-1], help="stop after this stage")
    days = commands.add_parser("backfill", help="a range of days, one after the other", epilog=_EPILOG)
    _add_options(days, with_date=False)
    days.add_argument("--from-date", type=_date, required=True, metavar="YYYY-MM-DD", help="the first day")
    days.add_argument("--to-date", type=_date, required=True, metavar="YYYY-MM-DD", help="the last day")
    days.add_argument("--until", dest="last", choices=STAGES, default="clean", help="stop each day after this stage")
    for stage in ("simulate", *STAGES, *COMMANDS):
        doc = (_job(stage).__doc__ or "").strip().splitlines()[0] if stage in sys.argv[1:2] else _help(stage)
        _add_options(commands.add_parser(stage, help=doc, description=doc, epilog=_EPILOG), stage)
    options = parser.parse_args(arguments)
    if options.command == "backfill":
        return _guard(lambda: _backfill(options))
    if options.command != "run":
        return _guard(lambda: _run_stages([options.command], options))
    return _guard(lambda: _run_stages(_between(options.first, options.last), options))


def _between(first: str, last: str) -> list[str]:
    stages = list(STAGES[STAGES.index(first) : STAGES.index(last) + 1])
    if not stages:
        raise ConfigError(f"--from {first} comes after --until {last}, so there is nothing to run. Exchange them.")
    return stages


def run_job(job: Job) -> None:
    """The entry point of ``spark-submit jobs/NAME.py``: parse, run, exit with a code that a scheduler can read."""
    stage = job.__name__
    parser = argparse.ArgumentParser(prog=f"jobs/{stage}.py", description=job.__doc__, epilog=_EPILOG)
    _add_options(parser, stage)
    options = parser.parse_args()
    code = _guard(lambda: _run_stages([stage], options, {stage: job}))
    sys.exit(code)


def _help(stage: str) -> str:
    return COMMANDS.get(stage, f"the stage {stage}")


def _add_options(parser: argparse.ArgumentParser, stage: str = "", with_date: bool = True) -> None:
    for option, about in _OWN_OPTIONS.get(stage, {}).items():
        parser.add_argument(option, **about)
    parser.add_argument(
        "--conf",
        action="append",
        default=[],
        metavar="YAML",
        help="configuration; repeat to lay one over another",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one value, e.g. two_tower.epochs=3",
    )
    if not with_date:
        return
    parser.add_argument(
        "--date",
        type=_date,
        metavar="YYYY-MM-DD",
        help="the logical day: nothing after it is used (default: all)",
    )
    parser.add_argument("--run-id", type=_run_id, default="", help="name of the run (default: NAME-DATE)")


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a date of the form 2026-11-20") from None


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[^\s/\\'\"]*", text):
        raise argparse.ArgumentTypeError(f"'{text}' names folders and partitions: leave out blanks, slashes and quotes")
    return text


def _run_stages(stages: list[str], options: argparse.Namespace, jobs: dict[str, Job] | None = None) -> None:
    settings = config.load(options.conf, options.set)
    for stage in stages:
        job = (jobs or {}).get(stage) or _job(stage)
        own = [option[2:].replace("-", "_") for option in _OWN_OPTIONS.get(stage, {})]
        arguments = {name: getattr(options, name) for name in own}
        execute(job, Run(settings, stage, options.date, options.run_id, arguments=arguments))


def _backfill(options: argparse.Namespace) -> None:
    """The stages for each day that has a log, oldest first."""
    if options.from_date > options.to_date:
        raise ConfigError(f"--from-date {options.from_date} is after --to-date {options.to_date}. Exchange them.")
    settings = config.load(options.conf, options.set)
    days = [options.from_date + dt.timedelta(days=n) for n in range((options.to_date - options.from_date).days + 1)]
    with_log = [day for day in days if _backfill_day(settings, day, STAGES[: STAGES.index(options.last) + 1])]
    if not with_log:
        raise DataError(
            f"There is no log for any day from {options.from_date} to {options.to_date} below {settings.source.path}. "
            "Pass days that have one."
        )


def _backfill_day(settings: config.Settings, day: dt.date, stages: Sequence[str]) -> bool:
    """Whether the day has a log."""
    for stage in stages:
        try:
            execute(_job(stage), Run(settings, stage, day))
        except NoData as error:
            if stage != stages[0]:
                raise
            say("backfill", f"{day} is left out: {error}", 0)
            return False
    return True


def _job(stage: str) -> Job:
    job: Job = getattr(importlib.import_module(f"sparkrec.jobs.{stage}"), stage)
    return job


def _guard(work: Callable[[], None]) -> int:
    """Runs ``work``; turns what it raises into one paragraph and an exit code."""
    try:
        with _sigterm_is_an_exception():
            work()
    except (Terminated, KeyboardInterrupt) as stopped:
        by = "SIGTERM" if isinstance(stopped, Terminated) else "Ctrl-C"
        return _refuse(RetryableError(f"Stopped from outside ({by}). Nothing half-written is visible; run it again."))
    except SparkrecError as error:
        return _refuse(error)
    except OSError as error:
        return _refuse(_from_outside(error))
    except Exception as error:  # noqa: BLE001  the outermost edge: Spark reports everything as Py4JJavaError
        known = _from_spark(error)
        if known is not None:
            return _refuse(known)
        traceback.print_exc()
        print(
            "sparkrec: this is a defect, not something you did. Please report it with the lines above.",
            file=sys.stderr,
        )
        return 1
    return 0


@contextlib.contextmanager
def _sigterm_is_an_exception() -> Iterator[None]:
    """A scheduler's SIGTERM ends the job the way an error does, so that MLflow and the ranks learn of it."""

    def stop(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _from_outside(error: OSError) -> SparkrecError:
    where = f" ({Path(error.filename)})" if isinstance(error.filename, str) else ""
    what = error.strerror or str(error)
    if isinstance(error, ConnectionError):
        return RetryableError(f"A connection failed: {what}. Nothing half-written is visible; retry.")
    if error.errno in UNUSABLE:
        return ConfigError(
            f"A file or folder cannot be used{where}: {what}. Look at lake.path, lake.files, source.path and the paths "
            "on the command line, and at who owns them."
        )
    return RetryableError(f"The file system failed{where}: {what}.")


def _from_spark(error: Exception) -> SparkrecError | None:
    text = str(error)
    ours = re.search(r"sparkrec\.errors\.(ConfigError|DataError|RetryableError): (.+)", text)
    if ours:  # raised on an executor
        return {x.__name__: x for x in (ConfigError, DataError, RetryableError)}[ours[1]](ours[2])
    if any(word in text for word in _NO_JVM):
        return RetryableError(
            "The driver's Java process has ended: most often the machine, or the container's limit, had no memory left "
            "(the kernel's log or the scheduler says so). Nothing half-written is visible. Retry, with more memory or "
            "a smaller spark.driver_memory."
        )
    full = next((word for word in _NO_ROOM if word in text), None)
    if full:
        return RetryableError(
            f"A disk is full ({full}). The tables are whole, and nothing half-written is visible. Make room where "
            "lake.path, lake.files and Spark's spark.local.dir lie, then run this again."
        )
    found = next((word for word in _RETRYABLE if word in text), None)
    if found:
        return RetryableError(
            f"Spark stopped with {found}: {_first_line(text)} Nothing half-written is visible; retry."
        )
    if any(word in text for word in GONE):
        return DataError(
            f"A file that this run reads is gone: {_first_line(text)} If it is the lake's, an erasure or 'sparkrec "
            "maintain' has removed an old version: run the stages of this run before this one again, with the same "
            "--run-id."
        )
    if "unexpected end of file" in text.lower() or "EOFException" in text or "not a gzip" in text.lower():
        return DataError(f"A compressed file is damaged or cut short: {_first_line(text)} Fetch it again, whole.")
    return None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:400] if lines else ""


def _refuse(error: SparkrecError) -> int:
    kind = {2: "bad configuration", 3: "bad data", 4: "failed, worth a retry"}
    print(f"\nsparkrec: {kind.get(error.exit_code, 'error')}: {error}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
