"""The errors of the project: one root with two branches, which the retry condition of every task reads.

A message says what happened, where, and what to do. Facts a caller may act on are attributes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from tasks.manifests import LostRange


class KafkaSortError(Exception):
    """Root of all errors that are shown to a person as one line. `category` is what metrics count it as."""

    exit_code = 1
    category: ClassVar[str] = "terminal"
    # For docs/errors.md: what to do, and what may have happened to data besides.
    action: ClassVar[str] = ""
    at_risk: ClassVar[str] = "No."

    def __reduce__(self) -> tuple[Any, ...]:
        """Carry text and facts to other processes as they are; the arguments behind the text are not needed again."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[KafkaSortError], args: tuple[Any, ...], facts: dict[str, Any]) -> KafkaSortError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class TransientError(KafkaSortError):
    """A retry may succeed: a lost connection, a broker that restarts."""

    category = "transient"
    action = (
        "Nothing at first: the task is retried. If the run fails all the same, correct what the line names and start "
        "it again."
    )
    # True where it is certain that nothing of the run is visible.
    settled: ClassVar[bool] = True


class TerminalError(KafkaSortError):
    """A retry will not succeed until somebody changes something."""

    action = "Change what the line names, then start again."


class SettingsError(TerminalError):
    """Wrong settings or an unfit topic, found before any work."""

    exit_code = 2
    category = "settings"
    action = "Change the setting or the topic that the line names."
    at_risk = "No: nothing was begun."


class BrokerUnavailableError(TransientError):
    """No broker answered within the start timeout."""

    exit_code = 2
    action = "Start the broker, or correct its address or `security.protocol`."
    at_risk = "No: nothing was begun."


class EmbeddedBrokerError(TerminalError):
    """The embedded broker could not be set up or did not start."""

    action = "Read the broker's last log lines, which come with it: a port in use, a full disk, a missing extra."


# The consequence of a stop for a run that sorts; other flows give their own.
NOTHING_VISIBLE: Final = "nothing of this run is visible; the next start goes on where the last committed run ended"


class StoppedError(TerminalError):
    """The run was asked to stop before it was done: `reason` says by what, `signal` is its number, or None."""

    category = "stopped"
    action = "Start again when it suits. The exit status is 128 and the number of the signal, where one asked."

    def __init__(self, reason: str = "", signal: int | None = None, consequence: str = NOTHING_VISIBLE) -> None:
        super().__init__(f"{reason}: " * bool(reason) + f"stopped before it was done: {consequence}")
        self.reason = reason
        self.signal = signal
        self.exit_code = 128 + signal if signal else 1


class CancelledError(StoppedError):
    """Prefect was asked to cancel the run."""

    action = "Start again when it suits."

    def __init__(self, consequence: str = NOTHING_VISIBLE) -> None:
        super().__init__("cancelled in Prefect", consequence=consequence)


class RunTimeoutError(StoppedError):
    """The run took longer than `run_timeout`."""

    category = "terminal"
    action = "Raise `--run-timeout`, or take less at once with `--max-records`; then start again."

    def __init__(self, seconds: float, consequence: str = NOTHING_VISIBLE) -> None:
        reason = f"longer than the run timeout of {seconds:g} s (--run-timeout raises it)"
        super().__init__(reason, consequence=consequence)


class SourceLostError(TerminalError):
    """Records were removed before they were read. `lost` names them."""

    action = (
        "Give the source more retention, or run more often; then go on with `--skip-lost`, which records what is "
        "missing."
    )
    at_risk = "**Yes**: the records that the line names are gone from the source, and in no output."

    def __init__(self, topic: str, lost: Sequence[LostRange]) -> None:
        super().__init__(
            f"source {topic}: {'; '.join(map(str, lost))} were removed before they were read: nothing was published; "
            "--skip-lost goes on without them and records them"
        )
        self.lost = lost


class VerificationError(KafkaSortError):
    """Verification found a difference. The message is the first one; `found` is the whole Verification."""

    exit_code = 3
    action = (
        "Stop what writes to the outputs, keep them as they are, and read the differences in the log. To sort again, "
        "take another `--job-name` and other outputs."
    )
    at_risk = "**Yes**: outputs and source differ, as the log lists."
    found: Any = None
