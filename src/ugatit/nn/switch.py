"""One switch between a function as it stands in the paper and the same function in `ugatit.nn.fast`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")


class Switch:
    """Whether the fast forms are used where they suit."""

    fast = True


SWITCH = Switch()


def switched(plain: Callable[P, R]) -> Callable[P, R]:
    """Let a function give way to the one of its name in `ugatit.nn.fast`, where that one suits what it is given.

    Never under `torch.compile`, which makes its own fast form of the plain one.
    """

    @wraps(plain)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        if SWITCH.fast and not torch.compiler.is_dynamo_compiling():
            fast, suits = fast_form(plain.__name__)
            if suits(*args, **kwargs):
                return fast(*args, **kwargs)
        return plain(*args, **kwargs)

    return chosen


@cache
def fast_form(name: str) -> tuple[Callable[..., Any], Callable[..., bool]]:
    """The function of that name in the room of the fast ones, which is not entered before it is needed."""
    return import_module("ugatit.nn.fast").FORMS[name]


def compile_networks(module: nn.Module) -> None:
    """Have `torch.compile` make its own fast forms of all networks within a module when they are first called; names
    and weights stay as they are."""
    for child in module.children():
        if type(child).forward is nn.Module.forward:  # it only holds others
            compile_networks(child)
        else:
            child.compile(dynamic=False)  # training knows its shapes


@contextmanager
def fast_forms(used: bool) -> Iterator[None]:
    """Within this block, in all threads, the fast forms are used where they suit, or the plain ones everywhere."""
    before, SWITCH.fast = SWITCH.fast, used
    try:
        yield
    finally:
        SWITCH.fast = before
