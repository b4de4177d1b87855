"""A folder that runs as a Hugging Face Space: the page of `ugatit serve` for one model."""

from pathlib import Path

import ugatit
from ugatit.io.files import atomic_folder
from ugatit.translation.hub import save_with_card
from ugatit.translation.translator import Translator

APP = '''"""The page of `ugatit serve` for the model in the folder NAME beside this file: python app.py"""

import os
import sys
from pathlib import Path

from ugatit.cli import main

options = ["--host", "0.0.0.0", "--port", os.environ.get("GRADIO_SERVER_PORT", "7860")]
if name := os.environ.get("SPACE_HOST"):  # what visitors' browsers call this machine
    options += ["--names", name, "--frames", "https://huggingface.co"]
sys.exit(main(["serve", str(Path(__file__).parent / "NAME"), *options]))
'''

READ_ME = """---
title: {name}
emoji: 🖼️
sdk: gradio
sdk_version: {gradio}
app_file: app.py
license: unknown
short_description: Translates pictures with {kind}
---

# {name}

A Space: upload this folder to one (`hf upload user/name . --repo-type space`), or run it here: `pip install -r
requirements.txt && python app.py`. [The model's card]({name}/README.md) says what it was trained on.
"""


def space_files(name: str, out: Path) -> set[str]:
    """What is of such a folder in ``out``: nothing, if its ``app.py`` is somebody else's."""
    path = out / "app.py"
    ours = path.is_file() and path.read_bytes().startswith(APP.split("NAME")[0].encode())
    return {"app.py", "requirements.txt", "README.md", name} if ours else set()


def write_space(translator: Translator, name: str, out: Path) -> None:
    """Write a folder with ``app.py``, ``requirements.txt``, ``README.md`` and the model's folder.

    Args:
        translator: of the model.
        name: what it and its folder are called.
        out: the folder, which is replaced as a whole.

    Raises:
        UserError: it cannot be replaced.
        OSError: it cannot be written.
    """
    with atomic_folder(out) as temporary:
        save_with_card(translator.save, translator.system, translator.folder, name, temporary / name)
        (temporary / "app.py").write_text(APP.replace("NAME", name), "utf-8")
        (temporary / "requirements.txt").write_text(f"ugatit[web,prepare]=={ugatit.__version__}\n", "utf-8")
        kind = type(translator.system).__name__
        read_me = READ_ME.format(name=name, kind=kind, gradio=gradio_version())
        (temporary / "README.md").write_text(read_me, "utf-8")


def gradio_version() -> str:
    """The version of gradio that is installed here, or that the package asks for."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gradio")
    except PackageNotFoundError:
        return "6.0.0"
