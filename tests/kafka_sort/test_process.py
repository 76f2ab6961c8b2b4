"""The process of a command: signals at any instant, the listeners they reach, and the exit status at the end."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster import wait_for
from tests.processes import KAFKA_SORT, Program, is_caught

# The head of each program; `work` is what it does.
HEAD = """
import atexit, pathlib, sys, threading, time
from kafka_sort.process import run
from tasks import signals

def tell(text):
    print(text, flush=True)

def sleep():
    tell("at work")
    threading.Event().wait()
"""
ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CAN_UNSHARE = subprocess.run(
    ["unshare", "--pid", "--fork", "true"] if shutil.which("unshare") else ["false"], check=False, capture_output=True
)


def start(body: str, folder: Path, prefix: tuple[str, ...] = (), **how: Any) -> Program:
    """Start a program with a command's frame; its work is the function `work` of `body`."""
    return Program.start([*prefix, sys.executable, "-c", f"{HEAD}\n{body}\nrun(work)"], folder, **how)


@pytest.mark.parametrize("number", ALL)
def test_nothing_listens(number: signal.Signals, tmp_path: Path) -> None:
    """During an import or a wait, a signal ends it at once, one line says so, and what was set up is taken down."""
    body = """
def work():
    signals.add_cleanup(lambda: pathlib.Path("CLEANED").write_text("yes"))
    sleep()
"""
    program = start(body.replace("CLEANED", f"{tmp_path}/cleaned"), tmp_path)
    outcome = program.wait_for_line("at work").send(number).finish()
    assert (outcome.status, outcome.err) == (128 + number, f"kafka-sort: {number.name}: stopped\n")
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("number", ALL)
def test_from_the_first_line(number: signal.Signals, tmp_path: Path) -> None:
    """A command that has only begun to import ends in the same way as later on."""
    program = Program.start([KAFKA_SORT, "sort", "--source-topic", "s"], tmp_path)
    outcome = program.wait_until_watched().send(number).finish()
    assert (outcome.status, outcome.err) == (128 + number, f"kafka-sort: {number.name}: stopped\n")


def test_what_listens_later_is_told_too(tmp_path: Path) -> None:
    """A signal that comes between two steps, where nothing waits for it, reaches the next step."""
    body = """
def work():
    with signals.holding():
        tell("between")
        while signals.asked() is None:
            time.sleep(0.01)
        told = []
        with signals.listening(told.append), signals.listening(told.append):
            tell(f"told {told}")
    return 0
"""
    outcome = start(body, tmp_path).wait_for_line("between").send(signal.SIGINT).finish()
    assert outcome.status == 130
    assert "told [2, 2]" in outcome.out


def test_a_listener_is_told_once(tmp_path: Path) -> None:
    """A listener hears a signal once, not twice and not never, while listeners come and go."""
    body = """
def work():
    counts = [0]
    with signals.holding():
        tell("at work")
        while counts[0] == 0:
            told = []
            with signals.listening(told.append):
                pass
            counts[0] += len(told)
        last = []
        with signals.listening(last.append):
            pass
        tell(f"told {counts[0]} {len(last)}")
    return 0
"""
    outcome = start(body, tmp_path).wait_for_line("at work").send(signal.SIGTERM).finish()
    assert outcome.status == 143
    assert "told 1 1" in outcome.out


def test_what_holds_comes_to_its_end(tmp_path: Path) -> None:
    """A run that was committed before is reported whole; the status is the signal's, and no line claims otherwise."""
    body = """
def work():
    with signals.holding():
        tell("committed")
        while signals.asked() is None:
            time.sleep(0.01)
        tell("the report")
    return 0
"""
    outcome = start(body, tmp_path).wait_for_line("committed").send(signal.SIGTERM).finish()
    assert (outcome.status, outcome.out) == (143, "committed\nthe report\n")
    assert outcome.err == "kafka-sort: SIGTERM: it came too late to stop anything: all was done\n"


HOLDS = """
def work():
    with signals.listening(lambda _: tell("asked")):
        sleep()
"""


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """If something does not come to its end, the next signal is a kill."""
    program = start(HOLDS, tmp_path).wait_for_line("at work").send(signal.SIGINT).wait_for_line("asked")
    wait_for(lambda: program.is_over or bool(program.send(signal.SIGTERM)) is program.is_over)
    assert program.finish().status == 143


def test_a_signal_that_comes_to_another_thread(tmp_path: Path) -> None:
    """The system may give a signal to any thread, as after a stop. It is seen at once all the same."""
    body = """
import signal
def work():
    with signals.stop_event() as stop:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        stop.wait()
    return 0
"""
    assert start(body, tmp_path).finish().status == 143


def test_the_same_wish_twice_is_one(tmp_path: Path) -> None:
    """A signal that comes twice at once is no kill: `timeout` and wrappers pass Ctrl-C on a second time."""
    body = HOLDS.replace("sleep()", 'tell("at work"); [time.sleep(0.01) for _ in iter(signals.asked, 2)]; tell("end")')
    program = start(f"{body}\n    return 0", tmp_path).wait_for_line("at work")
    for _ in range(5):
        program.send(signal.SIGINT)
    outcome = program.finish()
    assert outcome.status == 130
    assert outcome.out.endswith("end\n")


def test_a_signal_may_be_the_end(tmp_path: Path) -> None:
    """A broker and a stream end by a signal with status 0, and nothing on standard error."""
    body = """
def work():
    with signals.stop_event() as stop:
        tell("ready")
        stop.wait()
    signals.answer()
    return 0
"""
    outcome = start(body, tmp_path).wait_for_line("ready").send(signal.SIGTERM).finish()
    assert (outcome.status, outcome.err) == (0, "")


def test_when_all_is_done_and_reported(tmp_path: Path) -> None:
    """While the process closes what is left, a signal ends it at once, with the status that its work had."""
    body = """
def work():
    atexit.register(sleep)
    return 3
"""
    assert start(body, tmp_path).wait_for_line("at work").send(signal.SIGTERM).finish().status == 3


def test_what_others_ignore(tmp_path: Path) -> None:
    """SIGINT ends a background job of a shell, which ignores it; `nohup` keeps what it starts from SIGHUP."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    body = "def work():\n    sleep()"
    program = start(body, tmp_path, preexec_fn=ignore).wait_for_line("at work")
    assert not is_caught(program.process.pid, signal.SIGHUP)
    program.send(signal.SIGHUP)
    assert program.send(signal.SIGINT).finish().status == 130


@pytest.mark.skipif(CAN_UNSHARE.returncode != 0, reason="no namespace of processes may be made here")
@pytest.mark.parametrize("number", ALL)
def test_the_first_process_of_a_container(number: signal.Signals, tmp_path: Path) -> None:
    """No signal kills it by default; a first and a second one end it all the same."""
    program = start("def work():\n    sleep()", tmp_path, ("unshare", "--pid", "--fork")).wait_for_line("at work")
    (first,) = program.children()
    first.send_signal(number)
    assert program.finish().status == 128 + number

    program = start(HOLDS, tmp_path, ("unshare", "--pid", "--fork")).wait_for_line("at work")
    (first,) = program.children()
    first.send_signal(number)
    program.wait_for_line("asked")
    wait_for(lambda: program.is_over or send_again(first, number))
    assert program.finish().status == 128 + number


def send_again(process: psutil.Process, number: signal.Signals) -> bool:
    if process.is_running():
        process.send_signal(number)
    return False


def test_an_error_of_the_frame_itself(tmp_path: Path) -> None:
    """Work that ends by an exception that nothing has reported is a failure, and is shown."""
    outcome = start("def work():\n    raise ValueError('unforeseen')", tmp_path).finish()
    assert outcome.status == 1
    assert "unforeseen" in outcome.err
