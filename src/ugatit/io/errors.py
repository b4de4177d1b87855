"""The one exception whose message is for the person at the keyboard."""

from importlib import import_module
from typing import Any


class UserError(Exception):
    """Bad input: one sentence that names the file or option, what is wrong and what to do. Exit code 2."""


def package(name: str, extra: str) -> Any:
    """The module ``name``, which comes with an extra of this package.

    Raises:
        UserError: it, or something that it needs, is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'ugatit[{extra}]'.") from None
