"""Work shared among the processes that torchrun or accelerate started: each does its part, and all get the whole."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from ugatit.io.errors import UserError
from ugatit.io.files import atomic_folder, writing
from ugatit.io.processes import this_process
from ugatit.io.terminal import tracked

T = TypeVar("T")


def join() -> bool:
    """Have the processes of this start know each other, until they end; returns whether this one is the first, or the
    only one."""
    if this_process().processes > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")  # numbers go from processor to processor
    return is_first()


def is_first() -> bool:
    """Whether this is the first of several processes, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def agreed(work: Callable[[], T]) -> list[T]:
    """What a piece of work gave in each process; none goes on alone where it failed in another.

    Raises:
        UserError: it failed in another process; where it failed, its own error is raised.
    """
    if not dist.is_initialized():
        return [work()]
    made: T | None = None
    failure: Exception | None = None
    try:
        made = work()
    except Exception as error:
        failure = error
    told = str(failure) if isinstance(failure, UserError) else f"another process failed ({type(failure).__name__})."
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (made, told if failure else None))
    if failure:
        raise failure
    if sentence := next((sentence for _, sentence in parts if sentence), None):
        raise UserError(sentence)
    return [found for found, _ in parts]


def shared(work: Callable[[int], T], count: int, what: str) -> list[T]:
    """``[work(0), ..., work(count - 1)]``, of which each process does some; all get all of it. A bar says ``what`` is
    done. Errors are those of `agreed`."""
    mine = range(count)
    if dist.is_initialized():
        mine = range(dist.get_rank(), count, dist.get_world_size())

    def part() -> dict[int, T]:
        return {number: work(number) for number in tracked(mine, what, len(mine))}

    every = {number: value for done in agreed(part) for number, value in done.items()}
    return [every[number] for number in range(count)]


@contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """`ugatit.io.files.atomic_folder` that all processes write into; it is in its place when the block is left.

    Raises:
        UserError: it cannot be written, in all processes.
    """
    with ExitStack() as stack:

        def begin() -> Path | None:
            with writing(path):
                return stack.enter_context(atomic_folder(path)) if is_first() else None

        def end() -> None:
            with writing(path):
                stack.close()

        temporary = agreed(begin)[0]
        assert temporary is not None
        with written_by_all(path):
            yield temporary
        agreed(end)


@contextmanager
def written_by_all(path: Path) -> Iterator[None]:
    """A block that writes into a folder and that ends well in all processes or in none."""
    raised: list[Exception] = []
    try:
        with writing(path, "give another `out`" if is_first() else "give an `out` that all processes see"):
            yield
    except Exception as error:
        raised.append(error)

    def check() -> None:
        if raised:
            raise raised[0]

    agreed(check)
