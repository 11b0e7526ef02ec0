"""The errors a user sees: one paragraph that names the thing, says what was expected and what to do.

The class decides the exit code, and so what a scheduler does next.
"""

import errno

#: What Spark says of a file that a version of a table still names, and that was removed with old versions.
GONE = ("FAILED_READ_FILE.FILE_NOT_EXIST", "DELTA_FILE_NOT_FOUND")
#: An OSError's numbers for a path that is not what it should be, or that belongs to others: it will be so again.
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


class SparkrecError(Exception):
    """Base of all of them."""

    exit_code = 1


class ConfigError(SparkrecError):
    """The configuration, the command line or the environment is wrong. A retry cannot help."""

    exit_code = 2


class DataError(SparkrecError):
    """The data is wrong: a file, a row, a table. A retry cannot help until somebody mends it."""

    exit_code = 3


class NoData(DataError):
    """There is no log for the day that was asked for. ``late`` : a day so young that its log may still come."""

    def __init__(self, text: str, late: bool = False) -> None:
        super().__init__(text)
        if late:
            self.exit_code = RetryableError.exit_code


class RetryableError(SparkrecError):
    """Something outside failed (a lost machine, a full cluster, a concurrent writer). Worth a retry."""

    exit_code = 4
