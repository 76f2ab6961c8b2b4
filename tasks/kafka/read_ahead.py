"""Reading ahead: the next block is prepared in a thread while the last one is used."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def read_ahead(blocks: Iterator[T]) -> Generator[T, None, None]:
    """Yield the blocks, each prepared while the one before it is used; at the end nothing runs any more."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, blocks, None)
        try:
            while (block := ahead.result()) is not None:
                ahead = pool.submit(next, blocks, None)
                yield block
        finally:
            # Nothing else may use a consumer, or close a generator, before it is done.
            wait([ahead])
            if isinstance(blocks, Generator):
                blocks.close()
