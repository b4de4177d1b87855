"""The one exception whose message is for the person at the keyboard."""

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

SHORT = {"data": "DATA", "out": "-o"}  # what arguments are called on the command line that are no long options
ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")


class UserError(Exception):
    """Bad input: one sentence that names the file or argument, what is wrong and what to do. Exit code 2.

    Arguments stand in backticks, alone or with a value, of which the command line makes options (`with_options`).
    """


def with_options(sentence: str) -> str:
    """What a library function says, as the command line says it: ``--size tiles`` for an argument ``size="tiles"``."""

    def option(found: re.Match) -> str:
        name = SHORT.get(found[1], f"--{found[1].replace('_', '-')}")
        if found[2] in ("True", "False"):
            return name if found[2] == "True" else name.replace("--", "--no-", 1)
        value = re.sub("""[()"',]""", "", found[2] or "")
        return f"{name} {value}".rstrip()

    return ARGUMENT.sub(option, sentence)


def words_of(error: BaseException, line: int = 0) -> str:
    """A line of what a library's exception says, its last if it has fewer; its kind if it says nothing."""
    lines = [text.strip() for text in str(error).splitlines() if text.strip()] or [type(error).__name__]
    return lines[line if line < len(lines) else -1][:200]


def on_one_line(error: BaseException) -> str:
    """All that a library's exception says; its kind if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def first_problem(error: "ValidationError") -> str:
    """Pydantic's first complaint as a phrase that names the option."""
    problem = error.errors()[0]
    option = ".".join(str(part) for part in problem["loc"])
    return f"{option} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"


def package(name: str, extra: str) -> Any:
    """The module ``name``, which comes with an extra of this package.

    Raises:
        UserError: it, or something that it needs, is not installed or cannot be loaded.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'ugatit[{extra}]'.") from None
    except ImportError as error:
        raise UserError(
            f"{name} cannot be loaded ({on_one_line(error)}): pip install -U 'ugatit[{extra}]', or what it lacks."
        ) from None
