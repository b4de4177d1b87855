"""Write a model as ONNX files, checked against PyTorch, and perhaps a web page that runs them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ugatit.apps.page import write_page
from ugatit.commands.parsing import parse
from ugatit.io.errors import UserError
from ugatit.io.files import writing
from ugatit.io.terminal import say
from ugatit.translation.export import export
from ugatit.translation.translator import Translator


@dataclass(frozen=True)
class ExportConfig:
    """Write a model as ONNX files, checked against PyTorch, and perhaps a web page that runs them."""

    model: Positional[str]
    """The model's folder (RUN/model), or its id on the Hugging Face hub, like user/name."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """The folder for a2b.onnx, b2a.onnx and config.json."""
    page: bool = False
    """Also write index.html, a single file that translates in the visitor's browser, without a server."""
    runtime: Path | None = None
    """The npm package onnxruntime-web that the page carries. If it is not given, it is downloaded once."""


def main(arguments: list[str]) -> None:
    options = parse(ExportConfig, "ugatit export", arguments)
    if options.out.is_dir() and not (options.out / "a2b.onnx").exists() and any(options.out.iterdir()):
        raise UserError(f"{options.out} holds other files: give another -o, the folder is replaced as a whole.")
    translator = Translator.load(options.model, "cpu")
    with writing(options.out):
        for direction, worst in export(translator, options.out).items():
            say(f"{options.out / direction}.onnx: largest difference from PyTorch {worst:.1e} of a range of 2")
        if options.page:
            say(f"{write_page(options.out, options.runtime)}: open it in a browser, or put it on any web site")
