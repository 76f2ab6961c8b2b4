"""A task on a worker tells the driver its own log lines and those of its threads, and no other task's."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Barrier

from tasks.dask.orders import telling_lines
from tasks.observe.logs import LOGGER


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def report_line(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_lines_of_a_task_and_of_its_threads() -> None:
    """Two tasks work at once, each with a thread in a copy of its context. Each tells its own two lines."""
    tasks, both = {"first": Heard(), "second": Heard()}, Barrier(2)
    logger = logging.getLogger(LOGGER)

    def work(name: str) -> None:
        with telling_lines(tasks[name]):
            both.wait(10)
            logger.error("%s itself", name)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(copy_context().run, logger.error, "%s by a thread", name).result()
                pool.submit(logger.error, "of nobody").result()
            both.wait(10)
        logger.error("%s afterwards", name)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, name) for name in tasks]:
            done.result()
    for name, heard in tasks.items():
        assert heard.lines == [f"{name} itself", f"{name} by a thread"]
