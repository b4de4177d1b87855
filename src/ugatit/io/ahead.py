"""Results that threads compute a little before they are asked for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def ahead(pool: Executor, function: Callable[[T], U], items: Iterable[T], count: Callable[[], int]) -> Generator[U]:
    """``map(function, items)`` with up to ``count`` results, which may change, computed before they are asked for; when
    it is closed, what has not begun is not computed."""
    running: deque[Future[U]] = deque()
    try:
        for item in items:
            running.append(pool.submit(function, item))
            while len(running) > count():
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
