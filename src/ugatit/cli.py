"""The command line: `ugatit COMMAND`. Each command is a file of `ugatit.commands`, imported only when it runs."""

import ast
import atexit
import errno
import gc
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import ugatit
from ugatit.io.errors import UserError, with_options
from ugatit.io.terminal import endings, say

REFUSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO)  # what file systems say to a path
COMMANDS = {  # name: its file
    "demo": "demo",
    "prepare": "prepare",
    "train": "train",
    "translate": "translate",
    "evaluate": "evaluate",
    "inspect": "inspect",
    "ablate": "ablate",
    "compare": "compare",
    "import": "importing",
    "export": "export",
    "serve": "serve",
    "study": "study",
    "completion": "completion",
}


def summary(command: str) -> str:
    """The first sentence of a command's file, read without running it."""
    file = Path(__file__).parent / "commands" / f"{COMMANDS[command]}.py"
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n\n")[0]


def usage() -> str:
    """What `ugatit --help` prints."""
    lines = [f"  {name:10} {summary(name)}" for name in COMMANDS]
    ends = "Exit codes: 0 done, 2 bad input (one sentence says what), 130 stopped, 141 nobody reads the output."
    return "\n".join(["usage: ugatit COMMAND ...", "", *lines, "", "ugatit COMMAND --help tells the options.", ends])


def load(command: str) -> ModuleType:
    """A command's file, imported. PyTorch makes so much that nothing is to be collected of, that looking for it at the
    import and at the end takes longer than some commands."""
    gc.disable()
    try:
        return import_module(f"ugatit.commands.{COMMANDS[command]}")
    finally:
        gc.enable()
        atexit.register(gc.freeze)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 130 if it was stopped, or 141 if nobody reads what is
    printed."""
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except BrokenPipeError:  # who reads what is printed, such as head, has enough
        return 141
    finally:
        let_go()


def let_go() -> None:
    """Print what is not printed yet; Python would complain at its end where nobody reads it."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(arguments: list[str]) -> int:
    """One command; its exit code.

    Raises:
        BrokenPipeError: nobody reads what it prints.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"ugatit {ugatit.__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        say(f"There is no command {arguments[0]}: choose one of {', '.join(COMMANDS)}.")
        return 2
    # Between small operations OpenMP's threads wait for milliseconds without letting go of the cores: beside another
    # busy program that made steps 50 times as long (docs/performance.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for number in endings():  # a batch system's end, or that of a connection, is a person's Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        load(arguments[0]).main(arguments[1:])
    except UserError as error:
        say(f"error: {' '.join(with_options(str(error)).splitlines())}")  # names may hold line breaks
        return 2
    except OSError as error:
        if error.errno not in REFUSED or error.filename is None:
            raise
        name = " ".join(str(error.filename).splitlines())
        say(f"error: {name} cannot be used ({error.strerror}): check the path and its rights.")
        return 2
    except KeyboardInterrupt:
        say("Stopped; what was written stays.")
        return 130
    return 0
