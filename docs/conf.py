"""The documentation as a site: pip install -e ".[docs]", then sphinx-build -W docs site

The guide is the Markdown files here. The references are made of the package when the site is built: of the commands'
own help, and of docstrings.
"""

import contextlib
import io
import os
import re
from pathlib import Path

import ugatit
from ugatit import cli
from ugatit.systems import REGISTRY

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "ugatit"
ROOMS = ["io", "nn", "nn/fast", "systems", "data", "translation", "training", "evaluation", "experiments", "apps"]

project, author, release = "ugatit", "the ugatit authors", ugatit.__version__
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "ugatit"
exclude_patterns: list[str] = []
default_role = "py:obj"  # what docstrings mean by `name`
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_use_rtype = False
autodoc_inherit_docstrings = False
suppress_warnings = ["ref.python"]  # a name that several classes have


def help_of(*words: str) -> str:
    """What a command prints for --help."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", told.getvalue())


def commands_page() -> str:
    """The reference of the command line."""
    parts = [f"# Commands\n\n```text\n{cli.usage()}\n```\n"]
    for command in cli.COMMANDS:
        parts.append(f"## ugatit {command}\n\n```text\n{help_of(command)}```\n")
        systems = [name for name in REGISTRY if name != "ugatit"] if command == "train" else []
        for name in systems:
            shown = help_of(command, "--system", name)
            parts.append(f"### ugatit train --system {name}\n\n```text\n{shown}```\n")
    return "\n".join(parts)


def room_page(room: str) -> str:
    """The reference of a room's modules."""
    dotted = f"ugatit.{room.replace('/', '.')}"
    modules = sorted(file.stem for file in (PACKAGE / room).glob("*.py") if file.stem != "__init__")
    parts = [f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {dotted}.{name}\n```\n" for name in modules]
    return f"# {dotted}\n\n" + "\n".join(parts)


def write_references(_app: object) -> None:
    """Write the pages that are made, which git does not keep; those that are as before are left alone."""
    os.environ["COLUMNS"] = "110"
    pages = {"commands": commands_page()}
    pages |= {f"python-{room.replace('/', '-')}": room_page(room) for room in ROOMS}
    cards = {file.parent.name: file.read_text().split("---\n", 2)[2] for file in PACKAGE.glob("models/*/README.md")}
    pages |= {f"card-{name}": text for name, text in cards.items()}
    (HERE / "reference").mkdir(exist_ok=True)
    for name, text in pages.items():
        path = HERE / "reference" / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def point_to_cards(_app: object, _name: str, source: list[str]) -> None:
    """Links to models' cards lead to their pages here."""
    source[0] = re.sub(r"\]\(\.\./src/ugatit/models/(\w+)/README\.md", r"](reference/card-\1.md", source[0])


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_references)  # type: ignore[attr-defined]
    app.connect("source-read", point_to_cards)  # type: ignore[attr-defined]
