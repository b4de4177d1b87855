"""What the program says on the terminal."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class Terminal(Console):
    """What is printed on; where nobody reads it any more, whoever prints is told and may go on."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = Terminal(stderr=True)


def endings() -> list[signal.Signals]:
    """The signals besides Ctrl-C's that ask a program for its end: a batch system's, and that of a terminal which goes
    away, unless it was told not to mind (nohup)."""
    found = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


def say(text: str, style: str | None = None) -> None:
    """Print a line as it is, brackets too, in a style such as "yellow"; codes for terminals only by their names."""
    text = "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)
    console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def some(names: Sequence[object]) -> str:
    """The first three of a list, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more


def counted(number: int, noun: str) -> str:
    """``1 picture``, ``3 pictures``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def bars() -> Progress:
    """A progress bar for each task that is added; nothing where nobody looks."""
    return Progress(
        TextColumn("{task.description}", markup=False), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(),
        console=console, disable=console.quiet or not console.is_terminal,
    )  # fmt: skip


def tracked(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Items one after the other, with a progress bar."""
    with bars() as progress:
        yield from progress.track(items, total, description=what)


@contextmanager
def silence(wanted: bool = True) -> Iterator[None]:
    """Within this block nothing is printed, nor a bar begun: while another stands there, or another process speaks."""
    before, console.quiet = console.quiet, console.quiet or wanted
    try:
        yield
    finally:
        console.quiet = before
