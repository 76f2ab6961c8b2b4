"""The errors of the project: one root with two branches, which the retry condition of every task reads.

A message says what happened, where, and what to do. Facts a caller may act on are attributes.
"""

from collections.abc import Sequence
from typing import ClassVar

from tasks.records import LostRange


class KafkaSortError(Exception):
    """Root of all errors that are shown to a person as one line. `category` is what metrics count it as."""

    exit_code = 1
    category: ClassVar[str] = "terminal"


class TransientError(KafkaSortError):
    """May succeed when tried again: a lost connection, a broker that restarts."""

    category = "transient"


class TerminalError(KafkaSortError):
    """Will not succeed when tried again, until somebody changes something."""


class SettingsError(TerminalError):
    """Wrong settings or an unfit topic, found before any work."""

    exit_code = 2
    category = "settings"


class BrokerUnavailableError(TransientError):
    """No broker answered within the start timeout."""

    exit_code = 2


class EmbeddedBrokerError(TerminalError):
    """The embedded broker could not be set up or did not start."""


class StoppedError(TerminalError):
    """The run was asked to stop before it was done: by what `reason` says, and by `signal`, or None."""

    category = "stopped"

    def __init__(self, reason: str = "", signal: int | None = None) -> None:
        super().__init__(
            f"{reason}: " * bool(reason) + "stopped before it was done: nothing of this run is visible; the next start "
            "goes on where the last committed run ended"
        )
        self.signal = signal
        self.exit_code = 128 + signal if signal else 1


class CancelledError(StoppedError):
    """Prefect was asked to cancel the run."""

    def __init__(self) -> None:
        super().__init__("cancelled in Prefect")


class RunTimeoutError(StoppedError):
    """The run took longer than `run_timeout`."""

    category = "terminal"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"longer than the run timeout of {seconds:g} s (--run-timeout raises it)")


class SourceLostError(TerminalError):
    """Records were removed before they were read. `lost` names them."""

    def __init__(self, topic: str, lost: Sequence[LostRange]) -> None:
        super().__init__(
            f"source {topic}: {'; '.join(map(str, lost))} were removed before they were read: nothing was published; "
            "--skip-lost goes on without them and records them"
        )
        self.lost = lost


class VerificationError(KafkaSortError):
    """Verification found a difference. The message is the first one."""

    exit_code = 3
