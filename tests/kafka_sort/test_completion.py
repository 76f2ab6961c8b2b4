"""`kafka-sort completion`, and the completion that its scripts ask for."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes import KAFKA_SORT

# The command, which also says on standard error whether Prefect was imported.
PROGRAM = """
import atexit, sys
from kafka_sort.process import main

sys.argv[0] = "kafka-sort"
atexit.register(lambda: print("prefect" in sys.modules, file=sys.stderr))
main()
"""


def run(command: Sequence[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


def complete(words: str) -> list[str]:
    """Complete the last word, as bash's script asks for it."""
    asked = {"_KAFKA_SORT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = run([sys.executable, "-c", PROGRAM], **asked)
    assert (done.returncode, done.stderr) == (0, "False\n")
    return done.stdout.splitlines()


def test_what_is_completed() -> None:
    """Commands, flags and their values, and files; Prefect is not imported, as a person waits."""
    assert complete("kafka-sort sort --wait") == ["plain,--wait-for-topic"]
    assert complete("kafka-sort sort --partition-by ha") == ["plain,hash"]
    assert complete("kafka-sort load peo") == ["file,peo"]


@pytest.mark.parametrize(("shell", "words"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "--command")])
def test_a_script(shell: str, words: str) -> None:
    """Each shell has one, for the command by its name."""
    done = run([KAFKA_SORT, "completion", shell])
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout
    assert f"_KAFKA_SORT_COMPLETE={shell}_complete" in done.stdout


def test_an_unknown_shell() -> None:
    """It is refused with the names of those that there are."""
    done = run([KAFKA_SORT, "completion", "tcsh"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "'bash', 'zsh', 'fish'" in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_in_bash(tmp_path: Path) -> None:
    """A shell that has read the script completes a word."""
    text = """
    eval "$(kafka-sort completion bash)"
    COMP_WORDS=(kafka-sort veri) COMP_CWORD=1
    _kafka_sort_completion kafka-sort
    echo "${COMPREPLY[@]}"
    """
    path = os.pathsep.join((str(Path(KAFKA_SORT).parent), os.environ["PATH"]))
    done = run(["bash", "--norc", "-c", text], PATH=path, HOME=str(tmp_path))
    assert (done.stdout, done.stderr) == ("verify\n", "")
