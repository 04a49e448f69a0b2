"""The exceptions whose messages are for a user.

    CgnError            anything a user can cause and fix; the command line prints it without a traceback
      ConfigError       a parameter is unknown, missing, mistyped or out of range (dotted key in the message)
      ArtifactError     a file or folder is missing, broken, of another kind, or cannot be written
        DownloadError   a file cannot be downloaded now: a later try may get it
      TrainingError     training cannot go on (a loss that is not a number)
      WorkerError       processes that computed, or their cluster, were lost

What only we can cause stays an `assert`.
"""

from collections.abc import Sequence


class CgnError(Exception):
    """Something the user can fix; the message says what, where, what is allowed and what to do."""

    exit_status = 2
    """Of a command that ends with it."""


class ConfigError(CgnError, ValueError):
    """A wrong parameter; the message names its dotted key and the allowed values."""


class ArtifactError(CgnError, ValueError):
    """A missing, broken or foreign file or folder; the message names it and what to do."""


class DownloadError(ArtifactError):
    """A server cannot be reached, is busy, or broke off: nothing is wrong here, and the same command may succeed later.

    The exit status is EX_TEMPFAIL of sysexits.h: a pipeline tries again after this one and after no other.
    """

    exit_status = 75


class TrainingError(CgnError, RuntimeError):
    """Training cannot go on; the last good checkpoint is kept."""


class WorkerError(CgnError, RuntimeError):
    """Processes that computed were lost, or one piece of work failed again and again; what is finished is kept."""


def shortened(names: Sequence[str], *, shown: int = 8) -> str:
    """The first of many names, for a message."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")
