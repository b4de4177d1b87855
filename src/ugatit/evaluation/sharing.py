"""Work shared among the processes that torchrun or accelerate started: each does its part, and all get the whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from ugatit.io.files import atomic_folder, writing
from ugatit.io.terminal import bars
from ugatit.translation.sharing import this_process

T = TypeVar("T")


@contextmanager
def together() -> Iterator[bool]:
    """Within this block the processes of this start know each other; yields whether this one is the first, or the only
    one."""
    if this_process().processes == 1:
        yield True
        return
    dist.init_process_group("gloo")  # numbers go from processor to processor
    try:
        yield is_first()
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this is the first of several processes, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def shared(work: Callable[[int], T], count: int, what: str) -> list[T]:
    """``[work(0), ..., work(count - 1)]``, of which each process does some; all get all of it. A bar says ``what`` is
    done."""
    mine = range(count)
    if dist.is_initialized():
        mine = range(dist.get_rank(), count, dist.get_world_size())
    with bars() as progress:
        done = {number: work(number) for number in progress.track(mine, description=what)}
    if not dist.is_initialized():
        return list(done.values())
    parts: list[dict[int, T]] = [{}] * dist.get_world_size()
    dist.all_gather_object(parts, done)
    every = {number: value for part in parts for number, value in part.items()}
    return [every[number] for number in range(count)]


@contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """`ugatit.io.files.atomic_folder` that all processes write into; it is in its place when the block is left.

    Raises:
        UserError: it cannot be written.
    """
    if not dist.is_initialized():
        with writing(path), atomic_folder(path) as temporary:
            yield temporary
        return
    told: list[Any] = [None]
    if dist.get_rank() == 0:
        with writing(path), atomic_folder(path) as temporary:
            told[0] = temporary
            dist.broadcast_object_list(told)
            yield temporary
            dist.barrier()  # all have written
    else:
        dist.broadcast_object_list(told)
        with writing(path, "give an -o that all processes see"):
            yield told[0]
        dist.barrier()
    dist.barrier()  # it is in its place
