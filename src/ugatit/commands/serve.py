"""Translate pictures on a web page, and over HTTP for programs."""

import tyro

from ugatit.apps import guard, serve
from ugatit.io.terminal import say
from ugatit.training.config import check_range


def main(arguments: list[str]) -> None:
    config = tyro.cli(serve.ServeConfig, prog="ugatit serve", args=arguments)
    check_range(serve.ServeConfig, config)
    guard.run(serve.application(config), serve.rules(config), config.port, say)
