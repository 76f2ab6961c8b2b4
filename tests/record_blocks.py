"""Blocks of records that never were in a topic."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from confluent_kafka import Message

from tasks.verification.content import Headers
from tasks.verification.reading import Block


class _Message:
    def __init__(self, time: int) -> None:
        self._time = time

    def timestamp(self) -> tuple[int, int]:
        return 1, self._time


def make_block(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers] | None = None,
    times: Sequence[int] = (),
    first: int = 0,
) -> Block:
    """Make a block of partition 3 from offset `first` on; without `times` its records have none."""
    count = len(values)
    nothing: list[Any] = [None] * count
    messages = [cast("Message", _Message(time)) for time in times or [-1] * count]
    offsets = np.arange(first, first + count)
    return Block(3, offsets, list(values), list(keys or nothing), list(headers or nothing), messages)
