"""Reading a command line: what its real parser cannot know yet, and that parser's refusals as single sentences."""

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import tyro

from ugatit.io.errors import UserError
from ugatit.io.terminal import some

# In tyro's refusals: what parts them, and an option.
RULE, NAME = re.compile(r" *-{3,} *"), re.compile(r" {6}(-|[A-Z])")


def option(arguments: list[str], name: str) -> str | None:
    """The value of ``--name VALUE`` or ``--name=VALUE``, read before the real parser can know its defaults; of several
    the last, as there."""
    value = None
    for word, after in zip(arguments, [*arguments[1:], None], strict=False):
        if word == name and after is not None:
            value = after
        if word.startswith(name + "="):
            value = word.split("=", 1)[1]
    return value


def parse(kind: Any, command: str, arguments: list[str], **options: Any) -> Any:
    """What `tyro.cli` makes of a command's arguments: a dataclass of that kind, every field in its range.

    Raises:
        UserError: they are not the command's, or out of range.
        SystemExit: help was asked for, and is printed.
    """
    check_words(arguments, command)
    if any(word in ("-h", "--help") or word.startswith("--tyro") for word in arguments):  # it prints, and ends
        return tyro.cli(kind, prog=command, args=arguments, **options)
    told = io.StringIO()
    try:
        with redirect_stderr(told), redirect_stdout(io.StringIO()):  # without colours and lines, which go by the latter
            given = tyro.cli(kind, prog=command, args=arguments, **options)
    except SystemExit:
        raise UserError(f"{refusal(told.getvalue())}: see {command} --help.") from None
    from ugatit.training.config import check_range  # not before: help does not wait for torch

    check_range(given)
    return given


def check_words(arguments: list[str], command: str) -> None:
    """Raises UserError for an empty argument, as of a shell's variable that is not set: a path would be this folder."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        joined = word.startswith("--") and word.endswith("=")  # --name=
        if word and not joined:
            continue
        name = word[:-1] if joined else before if before.startswith("-") else ""
        if name != "--root-path":  # whose default is empty
            raise UserError(f"{name or 'An argument'} is empty: give a value, or leave it out: see {command} --help.")


def refusal(told: str) -> str:
    """What tyro tells in several parts below a title, as a phrase."""
    parts: list[list[str]] = [[]]
    for line in told.splitlines():
        if RULE.fullmatch(line):
            parts.append([])
        else:
            parts[-1].append(line)
    if len(parts) == 1:  # another version's
        return " ".join(told.split())
    _, first, *others = parts
    names = [line.strip() for part in others for line in part if NAME.match(line)]
    text = " ".join(line.strip() for line in first)
    if found := re.match(r"Error parsing (\S+): (.*)", text):
        if not names:  # what the settings together are refused for
            return found[2]
        return f"{found[1]} cannot be read, give {names[0].replace('{None}|', '')}"
    if text.startswith("Missing from"):
        missing = "; ".join(line.strip() for line in first if NAME.match(line) or line.startswith(6 * " " + "{"))
        return f"Missing: {missing}"
    words = text.removeprefix("Unrecognized options: ").split(", ")
    if files := [word for word in words if word.startswith("-") and len(word) < 256 and Path(word).exists()]:
        return f"{some(files)} would be an option: write ./{files[0]}, or put -- before the files"
    meant = f", perhaps you meant {names[0]}" if names else ""
    return f"{text.rstrip('.')}{meant}"
