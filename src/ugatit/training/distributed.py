"""What several processes that train the same networks do together; each of these is called by all of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, nn

from ugatit.io.errors import UserError
from ugatit.nn.fast.factored import factors_of

T = TypeVar("T")
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


def average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Average the gradients over all processes; those in factors have the factors of all."""
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = reduce(torch.cat([g.flatten() for g in gradients]), "mean")
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
    for factors in (factors_of(p) for p in parameters):
        for i, (grad, x) in enumerate(factors):
            factors[i] = accelerator.gather(grad) / accelerator.num_processes, accelerator.gather(x)


def any_says(mine: list[bool], accelerator: Accelerator) -> list[bool]:
    """What any process says is so; every process gets the same answers."""
    if accelerator.num_processes == 1:
        return mine
    said = torch.tensor(mine, dtype=torch.float32, device=accelerator.device)
    return [value > 0 for value in reduce(said, "sum").tolist()]


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
