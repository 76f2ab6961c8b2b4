"""The error catalogue, docs/errors.md: `make docs` writes it from the texts of the error classes."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import flows
import kafka_sort
import tasks
from tasks.errors import KafkaSortError, TerminalError, TransientError

_HEAD = """\
# Errors

Generated from the code by `make docs`. A command that ends with an error prints one line: what happened, where, and
what to do. The error's name is in Prefect's state of the flow run, and in the traceback of `--debug`.

Whatever the error, a run is whole or not visible: no `read_committed` reader sees what was not committed, and the
next start reads in the ledger where to go on. "At risk" says what else may have happened to data.
"""
_COLUMNS = "| error | exit status | meaning | what to do | data at risk |\n|---|---|---|---|---|\n"
_SECTIONS = {
    "Errors that may pass": (TransientError, "A task that meets one is retried, `--retries` times."),
    "Errors that stay": (TerminalError, "They stay until somebody changes something. Nothing is retried."),
    "Other errors": (KafkaSortError, "Errors of commands that only read."),
}


def all_errors() -> list[type[KafkaSortError]]:
    """Every error of the project, by name."""
    for package in (flows, kafka_sort, tasks):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return sorted(_subclasses(KafkaSortError), key=lambda kind: kind.__name__)


def render() -> str:
    """The catalogue, as Markdown."""
    left, parts = all_errors(), [_HEAD]
    for title, (root, note) in _SECTIONS.items():
        kinds = [kind for kind in left if root in kind.__mro__]
        left = [kind for kind in left if kind not in kinds]
        parts.append(f"## {title}\n\n{note}\n\n{_COLUMNS}{''.join(map(_row, kinds))}")
    return "\n".join(parts)


def meaning(kind: type[KafkaSortError]) -> str:
    """Return the first sentence of an error's docstring; the later ones speak of its attributes."""
    text = " ".join((inspect.getdoc(kind) or "").split())
    return text.partition(". ")[0].removesuffix(".") + "."


def _row(kind: type[KafkaSortError]) -> str:
    cells = (f"`{kind.__name__}`", str(kind.exit_code), meaning(kind), kind.action, kind.at_risk)
    return f"| {' | '.join(cells)} |\n"


def _subclasses(kind: type[KafkaSortError]) -> Iterator[type[KafkaSortError]]:
    for child in kind.__subclasses__():
        # Errors of tests are left out.
        if child.__module__.partition(".")[0] in {"flows", "kafka_sort", "tasks"}:
            yield child
        yield from _subclasses(child)


if __name__ == "__main__":
    print(render(), end="")
