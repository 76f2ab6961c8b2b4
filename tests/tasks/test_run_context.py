"""The stop of a run: what it raises, what it interrupts, and what ended the run."""

import threading

import pytest

from tasks.errors import StoppedError, TerminalError, TransientError
from tasks.kafka.clients import CommitUnknownError
from tasks.run_context import Stop, current_run, run_context


def test_the_first_to_ask_is_named() -> None:
    """A second request changes nothing."""
    stop, first = Stop(), StoppedError("SIGTERM", 15)
    stop.ask(first)
    stop.ask(StoppedError("SIGINT", 2))
    with pytest.raises(StoppedError) as raised:
        stop.check()
    assert raised.value is first


def test_what_ended_a_run() -> None:
    """A transient error that a stop kept from being retried is the stop; any other error is what it is.

    A commit of unknown outcome stays one: a stop says that nothing is visible.
    """
    stop, asked = Stop(), StoppedError("SIGTERM", 15)
    transient, terminal, unknown = TransientError("away"), TerminalError("wrong"), CommitUnknownError("commit", 1)
    assert stop.cause_of(transient) is transient
    stop.ask(asked)
    assert stop.cause_of(transient) is asked
    assert stop.cause_of(terminal) is terminal
    assert stop.cause_of(unknown) is unknown


def test_a_stop_interrupts_what_cannot_look() -> None:
    """Another thread interrupts it, once; work that could not be interrupted is not begun."""
    stop, interrupted = Stop(), threading.Event()
    with stop.interrupting(interrupted.set):
        threading.Thread(target=stop.set).start()
        assert interrupted.wait(10)
    with pytest.raises(StoppedError), stop.interrupting(interrupted.clear):
        pytest.fail("began after the stop")
    assert interrupted.is_set()


def test_a_wait_ends_with_the_stop() -> None:
    """The wait ends at once, not after its time."""
    stop = Stop()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(StoppedError):
        stop.wait(60)
    assert not stop.sleep(60)


def test_a_run_has_a_context_of_its_own() -> None:
    """The stop of one run does not stop the next."""
    with run_context() as context:
        context.stop.set()
        assert current_run().stop.is_set()
    assert not current_run().stop.is_set()
