"""Shows the work of a command: log lines, and its result as tables for a person or as one object for a script.

Guarantee: an object has standard output for itself. Log lines for a collector then go to standard error.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from kafka_sort.tables import print_json
from tasks.observe.logs import configure_logging, json_wanted

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Display:
    """The choice of `--output` and `--quiet`."""

    output: str = "table"
    quiet: bool = False

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> Self:
        """Return the choice that the flags of a command make."""
        return cls(flags.get("output", "table"), flags.get("quiet", False))

    def begin(self) -> None:
        """Send log lines where they belong."""
        collector = sys.stderr if self.output == "json" else sys.stdout
        level = logging.WARNING if self.quiet else logging.INFO
        configure_logging(terminal=True, level=level, collector=collector)

    def show(self, tell: Callable[[], object], facts: Callable[[], Facts] = dict) -> None:
        """Print the result: its facts if an object is wanted, else what `tell` prints, unless nothing is wanted."""
        if self.output == "json":
            print_json(facts())
        elif not self.quiet and not json_wanted():
            tell()
