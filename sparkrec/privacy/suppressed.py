"""The list of the erased, who must not come back with an old file.

It holds keyed digests, so with another key nobody on it would be known: the table bears the id of the key that made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError
from sparkrec.lake import migrations
from sparkrec.privacy import keys, pseudonyms
from sparkrec.privacy.keys import Key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.pipeline import Run

_PROPERTY = "sparkrec.suppressedBy"


def key(run: Run, create: bool = False) -> Key:
    """The lake's key, by which the list is read and written.

    ``create`` : where there is neither a key nor a list, a new one.

    Raises
    ------
    ConfigError
        There is none, or the list was made with another. (A list of before it was noted bears no id, and passes.)
    """
    there = run.lake.exists(schemas.SUPPRESSED)
    found = keys.load(run.settings, create=create and not there)
    made_with = migrations.read(run.spark, run.lake.path(schemas.SUPPRESSED), _PROPERTY) if there else None
    if made_with not in (None, found.id):
        raise ConfigError(
            f"The list of erased users in the lake {run.lake.root} was made with the key {made_with}, and the key in "
            f"{found.origin} is {found.id}: nobody on the list would be known by it, and all of them would come back. "
            f"Set privacy.key_file, or the environment variable {run.settings.privacy.key_env}, to the key of the list."
        )
    return found


def digests(run: Run) -> DataFrame:
    """Each digest of the list once."""
    return run.lake.read(schemas.SUPPRESSED).select(c.DIGEST).distinct()


def enter(run: Run, stored: Sequence[str], by: Key) -> None:
    """Add users, by their ids as the lake holds them, who are not on the list yet; ``by`` the key of :func:`key`."""
    wanted = sorted({by.digest(pseudonyms.ERASED, user) for user in stored})
    rows = [(digest, run.started) for digest in wanted]
    frame = run.spark.createDataFrame(rows, schemas.SUPPRESSED.struct())
    if run.lake.exists(schemas.SUPPRESSED):
        frame = frame.join(digests(run), c.DIGEST, "left_anti")
    run.lake.append(schemas.SUPPRESSED, frame, properties={_PROPERTY: by.id})
