"""Structured log lines: logfmt in Prefect's run log, readable in a terminal; job, run, stage and partition on each."""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Final

import structlog

LOGGER: Final = "kafka_sort"
_LOGFMT = structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)
_PLACE = ("job", "run", "stage", "partition", "sort")


def _render(_: object, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """The message is what Prefect stores, so it is the whole line; a terminal's handler renders the fields anew."""
    ordered = {"event": event.pop("event"), **{name: event.pop(name) for name in _PLACE if name in event}, **event}
    return (_LOGFMT(None, "", dict(ordered)),), {"extra": {"fields": ordered}}


def configure_logging(*, terminal: bool = False) -> None:
    """Send our lines to the standard library's logger `kafka_sort`; with `terminal`, to standard error as well."""
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _render],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logger = logging.getLogger(LOGGER)
    # Prefect leaves the root at WARNING, which would drop our INFO lines.
    logger.setLevel(logging.INFO)
    if terminal and not any(isinstance(handler, _TerminalHandler) for handler in logger.handlers):
        logger.addHandler(_TerminalHandler())
        logger.propagate = False


def get_logger() -> structlog.stdlib.BoundLogger:
    """The project's logger; context comes from `log_context`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(LOGGER)
    return logger


def log_context(**fields: object) -> AbstractContextManager[None]:
    """Put these fields on every line logged in the block, also by tasks started from it."""
    return structlog.contextvars.bound_contextvars(**fields)


class _TerminalHandler(logging.StreamHandler[Any]):
    """Time, event, then the fields: for a person."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        colors = sys.stderr.isatty()
        self._console = structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=28)

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {"event": record.getMessage()}))
        time = logging.Formatter("%(asctime)s", "%H:%M:%S").formatTime(record, "%H:%M:%S")
        line = self._console(None, "", {"timestamp": time, "level": record.levelname.lower(), **fields})
        return str(line)
