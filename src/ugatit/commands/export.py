"""Write a model in another form: ONNX files, a web page that runs them, or a Hugging Face Space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ugatit.apps.page import PAGE_FILES, runtime, write_page
from ugatit.apps.space import space_files, write_space
from ugatit.commands.parsing import parse
from ugatit.io.errors import UserError
from ugatit.io.files import writing
from ugatit.io.terminal import console, say, some
from ugatit.systems.base import WAYS
from ugatit.translation.card import printable_id
from ugatit.translation.export import export
from ugatit.translation.folder import is_model
from ugatit.translation.hub import model_name, photographs
from ugatit.translation.mobile import SUFFIXES, Mobile
from ugatit.translation.translator import Translator

FILES = {f"{way}{end}" for way in WAYS for end in (".onnx", *SUFFIXES.values())} | {"config.json", *PAGE_FILES}


@dataclass(frozen=True)
class ExportConfig:
    """Write a model in another form: ONNX files, a web page that runs them, or a Hugging Face Space."""

    model: Positional[str]
    """The model: its folder (RUN/model), the name of one in the package, such as cat2dog, or its id on the Hugging Face
    hub, like user/name."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """The folder for a2b.onnx, b2a.onnx and config.json, or for what is asked for instead."""
    page: bool = False
    """Also write index.html, a single file that translates in the visitor's browser, without a server."""
    also: tuple[Mobile, ...] = ()
    """Also write other forms, for pictures of the model's size: coreml (a2b.mlpackage, for Apple's devices), litert
    (a2b.tflite, for Android and others)."""
    space: bool = False
    """Write a folder that runs as a Hugging Face Space instead, with the page of ugatit serve."""
    runtime: Path | None = None
    """The npm package onnxruntime-web that the page carries. If it is not given, it is downloaded once."""


def main(arguments: list[str]) -> None:
    options = parse(ExportConfig, "ugatit export", arguments)
    if options.page and options.space:
        raise UserError("--page and --space are two things: give one of them.")
    if options.also and options.space:
        raise UserError("--also is for files, of which a Space has none: leave one of --also and --space out.")
    if options.runtime and not options.page:
        raise UserError("--runtime is what a page carries: give --page too, or leave it out.")
    name = model_name(options.model)
    ours = space_files(printable_id(name), options.out) if options.space else FILES if is_model(options.out) else set()
    if options.out.is_dir() and (other := sorted({path.name for path in options.out.iterdir()} - ours)):
        raise UserError(
            f"{options.out} holds other files ({some(other)}): give another -o, the folder is replaced as a whole."
        )
    translator = Translator.load(options.model, "cpu")
    with writing(options.out):
        if options.space:
            write_space(translator, printable_id(name), options.out)
            say(f"Written to {options.out}: python {options.out / 'app.py'} runs it here; its README.md says the rest.")
            return
        if options.page:
            runtime(options.runtime)  # told before the work
        with console.status("writing and checking"):
            written = export(translator, options.out, options.also)
        for file, worst in written.items():
            told = "not run, which only macOS can"
            if worst is not None:
                told = f"largest difference from PyTorch {worst:.1e} of a range of 2"
            say(f"{options.out / file}: {told}")
        if options.page:
            page = write_page(options.out, options.runtime, name, photographs(options.model))
            say(f"{page}: open it in a browser, or put the folder on any web site, where it can be installed as an app")
