"""Translate pictures on a web page, and over HTTP for programs."""

import re

from ugatit.apps import guard, serve
from ugatit.commands.parsing import parse
from ugatit.io.errors import UserError


def main(arguments: list[str]) -> None:
    config = parse(serve.ServeConfig, "ugatit serve", arguments)
    if not config.models:
        raise UserError("No model was named: give a folder like RUN/model, or a hub id like user/name.")
    if not re.fullmatch(r"(/[\w.~-]+)*", config.root_path):
        raise UserError(f"--root-path {config.root_path} is not the path of an address: give one like /translate.")
    guard.run(serve.application(config), serve.rules(config), config.port)
