"""The process of a command, from its first line to its last: signals, standard streams, exit status.

Guarantee: a signal that asks to stop ends the command, whenever it comes, with status 128 plus its number. There are
two exceptions: a command that always ends by a signal, and a signal that comes when all is done and reported. The work
is in a thread of its own, and the main thread serves the signals: nothing delays it, no library installs handlers of
its own in a thread, and no exception strikes in the middle of an import.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from tasks.signals import Signals, say, watch


def main() -> None:
    """The command `kafka-sort`."""
    run(_run_command)


def _run_command() -> int:
    # This import takes half a second.
    from kafka_sort.main import run_command

    return run_command()


def run(work: Callable[[], int]) -> NoReturn:
    """Do the work, and exit with the status that it returns, or with the status of the signal that stopped it."""
    signals = watch()
    # These imports take time, so signals are watched first.
    import atexit
    import logging

    from kafka_sort.streams import open_streams

    open_streams()
    # A line that cannot be logged is no reason for a traceback.
    logging.raiseExceptions = False
    status = _do(work, signals)
    if signals.first is not None:
        status = _stopped(signals, status)
    signals.settle(status)
    # Exit handlers run now. Then the process leaves without the interpreter's own end, where DuckDB's binding prints
    # two hundred lines about objects that Prefect still holds (2.0.0; later ones are silent).
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _do(work: Callable[[], int], signals: Signals) -> int:
    """Do the work in a thread, and return its status; the main thread serves the signals meanwhile."""
    done: list[int] = []

    def do() -> None:
        try:
            done.append(work())
        except SystemExit as error:
            done.append(error.code if isinstance(error.code, int) else int(error.code is not None))
        except BaseException as error:  # noqa: BLE001  # a failure of run_command itself, which reports all others
            sys.excepthook(type(error), error, error.__traceback__)
            done.append(1)
        finally:
            signals.wake()

    threading.Thread(target=do, name="command", daemon=True).start()
    signals.serve(lambda: bool(done))
    return done[0]


def _stopped(signals: Signals, status: int) -> int:
    number = signals.first
    if number is None:
        return status
    if status == 0:
        say(f"{signal.Signals(number).name}: it came too late to stop anything: all was done")
    return 128 + number


if __name__ == "__main__":
    main()
