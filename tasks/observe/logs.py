"""Structured log lines: logfmt in Prefect's run log, colours for a person, JSON for a collector.

Job, run, stage and partition are on each line that has them. `KAFKA_SORT_LOG_FORMAT=json` sends the lines to standard
output as JSON, one object a line; otherwise a terminal gets them on standard error.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog

from tasks.errors import SettingsError

LOGGER: Final = "kafka_sort"
FORMAT: Final = "KAFKA_SORT_LOG_FORMAT"
_LOGFMT = structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)
_JSON = structlog.processors.JSONRenderer(ensure_ascii=False)
_PLACE = ("job", "run", "stage", "partition", "sort")


def _render(_: object, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """Render the whole line as the message, which Prefect stores; our own handlers render the fields again."""
    ordered = {"event": event.pop("event"), **{name: event.pop(name) for name in _PLACE if name in event}, **event}
    return (_LOGFMT(None, "", dict(ordered)),), {"extra": {"fields": ordered}}


def json_wanted() -> bool:
    """Whether standard output belongs to a collector. SettingsError if the format is neither json nor console."""
    wanted = os.environ.get(FORMAT) or "console"
    if wanted not in {"json", "console"}:
        raise SettingsError(f"{FORMAT}={wanted}: use json or console")
    return wanted == "json"


def configure_logging(*, terminal: bool = False, level: int = logging.INFO, collector: TextIO | None = None) -> None:
    """Send our lines to the standard library's logger `kafka_sort`, and on to a collector, or to a terminal.

    `level`: the least that these two get, while Prefect's run log gets all. `collector`: its stream, standard output by
    default. Only the first call of a process chooses where lines go.
    """
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _render],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logger = logging.getLogger(LOGGER)
    # Prefect leaves the root at WARNING, which would drop our INFO lines.
    logger.setLevel(logging.INFO)
    if any(isinstance(handler, _LineHandler) for handler in logger.handlers):
        return
    handler = _JsonHandler(collector or sys.stdout) if json_wanted() else _TerminalHandler() if terminal else None
    if handler is not None:
        handler.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return the project's logger; its context comes from `log_context`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(LOGGER)
    return logger


def log_context(**fields: object) -> AbstractContextManager[None]:
    """Put these fields on every line logged in the block, also by tasks started from it."""
    return structlog.contextvars.bound_contextvars(**fields)


def show_line(level: int, fields: Mapping[str, Any]) -> None:
    """Show a line of another process, where this one shows its own. Prefect's run log has it from there."""
    logger = logging.getLogger(LOGGER)
    record = logger.makeRecord(LOGGER, level, "", 0, str(fields.get("event", "")), (), None, extra={"fields": fields})
    for handler in logger.handlers:
        if isinstance(handler, _LineHandler) and level >= handler.level:
            handler.handle(record)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a line, its event among them."""
    return dict(getattr(record, "fields", {"event": record.getMessage()}))


class _LineHandler(logging.StreamHandler[Any]):
    """A handler of ours; the logger has at most one."""


class _TerminalHandler(_LineHandler):
    """Shows time, event, then the fields: for a person."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        colors = sys.stderr.isatty()
        self._console = structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=28)
        # The command's last line reports the error that ended a run.
        self.addFilter(lambda record: record.levelno < logging.ERROR)

    def format(self, record: logging.LogRecord) -> str:
        time = logging.Formatter("%(asctime)s", "%H:%M:%S").formatTime(record, "%H:%M:%S")
        line = self._console(None, "", {"timestamp": time, "level": record.levelname.lower(), **fields_of(record)})
        return str(line)


class _JsonHandler(_LineHandler):
    """Writes time, level, the flow run, then the fields: for a collector."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        run = _flow_run_id()
        head = {"timestamp": time, "level": record.levelname.lower(), **({"flow_run_id": run} if run else {})}
        return str(_JSON(None, "", {**head, **fields_of(record)}))


def _flow_run_id() -> str | None:
    """Return the id of the line's flow run. Prefect takes seconds to import, and is not imported for this."""
    if "prefect" not in sys.modules:
        return None
    from prefect.runtime import flow_run

    found: str | None = flow_run.id
    return found
