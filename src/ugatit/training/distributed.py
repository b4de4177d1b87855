"""What several processes that train the same networks do together; each of these is called by all of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from ugatit.io.errors import UserError
from ugatit.nn.fast.factored import factors_of, in_factors

T = TypeVar("T")
BUCKET = 25 * 2**20  # bytes of gradients that travel together
BEAT = 60  # seconds; processes that hear nothing for minutes give up


def told_by_first(work: Callable[[], T], accelerator: Accelerator) -> T:
    """What ``work`` returns in the first process, in all of them; the others wait for it however long it takes.

    Raises:
        UserError: it was raised in the first process, or that failed in another way.
    """
    if accelerator.num_processes == 1:
        return work()
    if not accelerator.is_main_process:
        while (heard := broadcast_object_list([None])[0]) is None:
            pass
        result, sentence = heard
        if sentence:
            raise UserError(sentence)
        return result
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while not wait([future], BEAT).done:
            broadcast_object_list([None])
    error = future.exception()
    sentence = None if error is None else str(error) if isinstance(error, UserError) else "The first process failed."
    told: list[Any] = [(None if error else future.result(), sentence)]
    broadcast_object_list(told)
    return future.result()


@contextmanager
def averaged(parameters: list[nn.Parameter], accelerator: Accelerator) -> Iterator[None]:
    """Within this block one backward pass is made, whose gradients are averaged over all processes; those in factors
    have the factors of all.

    They travel in buckets, in the order in which a backward pass comes by them, each as soon as it is full and while
    the rest is still computed. All processes send the same buckets in the same order.
    """
    if accelerator.num_processes == 1:
        yield
        return
    apart = [p for p in parameters if in_factors(p)]
    buckets = in_buckets([p for p in reversed(parameters) if not in_factors(p)])
    missing = [len(bucket) for bucket in buckets]
    sent: list[tuple[list[Tensor], Tensor, Any] | None] = []

    def send() -> None:
        gradients = [p.grad for p in buckets[len(sent)] if p.grad is not None]
        if not gradients:
            sent.append(None)
            return
        flat = torch.cat([g.flatten() for g in gradients])
        sent.append((gradients, flat, dist.all_reduce(flat, async_op=True)))

    def arrived(number: int, _: Tensor) -> None:
        missing[number] -= 1
        while len(sent) < len(buckets) and not missing[len(sent)]:
            send()

    hooks = [
        p.register_post_accumulate_grad_hook(partial(arrived, number)) for number, b in enumerate(buckets) for p in b
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    while len(sent) < len(buckets):  # those with parameters that had no part in it
        send()
    for gradients, flat, work in filter(None, sent):
        work.wait()
        means = (flat / accelerator.num_processes).split([g.numel() for g in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
    for parameter in apart:
        share_factors(parameter, accelerator)


def in_buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in groups of at least `BUCKET` bytes, but the last."""
    buckets: list[list[nn.Parameter]] = [[]]
    for parameter in parameters:
        if sum(p.nbytes for p in buckets[-1]) >= BUCKET:
            buckets.append([])
        buckets[-1].append(parameter)
    return buckets


def share_factors(parameter: nn.Parameter, accelerator: Accelerator) -> None:
    """Give a gradient that is in factors those of all processes; what of it is whole is averaged."""
    factors = factors_of(parameter)
    for i, (grad, x) in enumerate(factors):
        factors[i] = accelerator.gather(grad) / accelerator.num_processes, accelerator.gather(x)
    if parameter.grad is not None:
        dist.all_reduce(parameter.grad)
        parameter.grad /= accelerator.num_processes


@cache
def by_processors() -> Any:
    """All processes, as they talk to each other without their cards, which nobody has to wait for then."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def any_says(mine: list[bool], accelerator: Accelerator) -> list[bool]:
    """What any process says is so; every process gets the same answers."""
    if accelerator.num_processes == 1:
        return mine
    said = torch.tensor(mine, dtype=torch.int32)
    dist.all_reduce(said, dist.ReduceOp.MAX, by_processors())
    return [value > 0 for value in said.tolist()]


def differing(tensors: dict[str, Tensor], accelerator: Accelerator) -> list[str]:
    """The names of the tensors that are not the same in all processes, to the bit."""
    if accelerator.num_processes == 1:
        return []
    mine = torch.stack([checksum(tensor.to(accelerator.device)) for tensor in tensors.values()])
    everyone = accelerator.gather(mine[None])  # processes x tensors
    apart = (everyone != everyone[0]).any(0).tolist()
    return [name for name, differs in zip(tensors, apart, strict=True) if differs]


def checksum(tensor: Tensor) -> Tensor:
    """A number that two tensors have in common if all their bits are the same, and hardly ever else; on the device."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().contiguous().view(kinds[tensor.itemsize]).sum(dtype=torch.int64)
