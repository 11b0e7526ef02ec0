"""Who ran what on which data: a row for every stage and command, of those that failed as well."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
from typing import TYPE_CHECKING, Any

from sparkrec import schemas
from sparkrec.progress import say

if TYPE_CHECKING:
    from sparkrec.pipeline import Run


def actor() -> str:
    """``SPARKREC_ACTOR`` (a scheduler sets it to whom it acts for), else the operating system's user."""
    try:
        return os.environ.get("SPARKREC_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def write(run: Run, error: BaseException | None = None, **details: Any) -> None:
    """Append what ``run`` did. After an error that has closed the session nothing can be written, which is said."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    outcome = type(error).__name__ if error else "done"
    now = dt.datetime.now(dt.UTC)
    row = (
        now, actor(), run.stage, run.run_id, run.started, outcome, run.inputs, run.outputs,
        json.dumps(details, default=str),
    )  # fmt: skip
    try:
        frame = run.spark.createDataFrame([row], schemas.AUDIT.struct())
        run.lake.append(schemas.AUDIT, frame)
    except (Py4JError, PySparkException, OSError) as failed:
        if error is None:
            raise
        say(run.stage, f"the audit table could not be written after {outcome}: {str(failed)[:200]}", 0)
