"""The errors a user sees: one paragraph that names the thing, says what was expected and what to do.

The class decides the exit code, and so what a scheduler does next.
"""

#: What Spark says of a file that a version of a table still names, and that was removed with old versions.
GONE = ("FAILED_READ_FILE.FILE_NOT_EXIST", "DELTA_FILE_NOT_FOUND")


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
    """There is no log for the day that was asked for."""


class RetryableError(SparkrecError):
    """Something outside failed (a lost machine, a full cluster, a concurrent writer). Worth a retry."""

    exit_code = 4
