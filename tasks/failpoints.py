"""Named instants of the protocol at which a test can kill or stop the process.

`KAFKA_SORT_FAILPOINT=NAME=ACTION` in the environment arms one: `kill` (SIGKILL) or `stop` (SIGSTOP) of this very
process, or `raise` (a transient error, once). Unset, a failpoint is one dictionary look-up.
"""

import os
import signal
from typing import Final

from tasks.errors import TransientError

VARIABLE: Final = "KAFKA_SORT_FAILPOINT"
# The steps of each run.
_STEPS: Final = (
    "lease",
    "init",
    "ledger-read",
    "snapshot",
    "dump",
    "dump-chunk",
    "sort",
    "stage",
    "begin",
    "publish-batch",
    "publish",
    "flush",
    "ledger-record",
    "offsets",
    "commit",
)
# The steps of what a commit leaves to be done: deletion of records; placing, copying and removal of files.
_LATER_STEPS: Final = ("delete", "place", "copy", "success", "remove")
# The steps of a publish by several publishers: of the process of the run, and of each publisher.
_DRIVER_STEPS: Final = ("gather", "go")
_PUBLISHER_STEPS: Final = ("publisher-init", "announce", "adopt", "publisher-flush", "report")
_EDGES: Final = ("before", "after")
RUN_NAMES: Final = (*(f"{edge}-{step}" for step in _STEPS for edge in _EDGES), "after-dump-block")
DRIVER_NAMES: Final = (*(f"{edge}-{step}" for step in _DRIVER_STEPS for edge in _EDGES), "after-reports")
PUBLISHER_NAMES: Final = tuple(f"{edge}-{step}" for step in _PUBLISHER_STEPS for edge in _EDGES)
NAMES: Final = (
    *RUN_NAMES,
    *(f"{edge}-{step}" for step in _LATER_STEPS for edge in _EDGES),
    *DRIVER_NAMES,
    *PUBLISHER_NAMES,
)


class InjectedError(TransientError):
    """Raised by an armed failpoint."""

    action = "Unset `KAFKA_SORT_FAILPOINT`, which only tests set."


def reach(name: str) -> None:
    """Do what the environment says for this failpoint; nothing if it is not armed."""
    armed, _, action = os.environ.get(VARIABLE, "").partition("=")
    if armed != name:
        return
    if action == "raise":
        os.environ.pop(VARIABLE)
        raise InjectedError(f"failpoint {name}")
    os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
