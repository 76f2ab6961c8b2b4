"""The shells' scripts that complete commands and flags. Completion itself is click's, and imports no Prefect."""

import click
from click.shell_completion import get_completion_class

_PROGRAM = "kafka-sort"
# Click reads this variable, whose name it derives from the program's.
_VARIABLE = "_KAFKA_SORT_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def print_completion(command: click.Command, shell: str) -> None:
    """Print the script that makes a shell complete `kafka-sort`."""
    if (kind := get_completion_class(shell)) is not None:
        print(kind(command, {}, _PROGRAM, _VARIABLE).source())
