"""The structure of the house: rooms, and arrows that go one way."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ugatit
from ugatit.cli import COMMANDS, summary
from ugatit.io.errors import with_options, words_of

HOUSE = Path(ugatit.__file__).parent
ROOMS = ["io", "nn", "nn.fast", "systems", "data", "translation", "training", "evaluation", "experiments", "apps",
         "commands"]  # fmt: skip
OUTSIDE = {"cli", "__main__", "__init__", "export", "released"}  # the door, and the documented names


def modules() -> dict[str, Path]:
    """Every module's name within the package, and its file."""
    return {".".join(f.relative_to(HOUSE).with_suffix("").parts): f for f in HOUSE.rglob("*.py")}


def room(module: str) -> str:
    return max((r for r in ROOMS if module.startswith(f"{r}.")), key=len, default="")


def imports(file: Path) -> set[str]:
    """What a file imports of the package, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ugatit."):
            name = (node.module or "").removeprefix("ugatit.")
            whole = {f"{name}.{alias.name}" for alias in node.names} & modules().keys()
            found |= whole or {name}
    return found


def test_every_module_has_a_room_and_imports_only_from_rooms_below():
    for name, file in modules().items():
        if name in OUTSIDE:
            continue
        assert room(name), f"{name} is in no room"
        for other in imports(file):
            if other == "io.errors" or "." not in other:
                continue
            assert ROOMS.index(room(other)) <= ROOMS.index(room(name)), f"{name} imports {other}, which is above it"


def test_no_module_imports_itself_in_a_circle():
    edges = {name: imports(file) for name, file in modules().items()}
    while edges:
        free = {name for name, others in edges.items() if not others & edges.keys()}
        assert free, f"a circle among {sorted(edges)}"
        edges = {name: others for name, others in edges.items() if name not in free}


def test_no_room_below_names_what_is_above_it():
    """The trainer knows no system, and the networks no method."""
    for name, file in modules().items():
        text = file.read_text().lower()
        if room(name) in ("training", "io", "data"):
            assert not any(f"systems.{system}" in text for system in ("ugatit", "cyclegan", "drit", "munit", "unit"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_file_that_says_what_it_does(command):
    assert summary(command).endswith(".")


def test_the_help_imports_no_library_of_numbers():
    code = (
        "import sys; from ugatit.cli import main; main(['--help']); print({'torch', 'numpy', 'tyro'} & {*sys.modules})"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.stdout.endswith("set()\n"), made.stdout + made.stderr


def test_translating_does_not_wait_for_what_only_training_needs():
    """torchvision takes as long to import as torch."""
    code = "import sys, ugatit.commands.translate; print({'torchvision', 'accelerate', 'pandas'} & {*sys.modules})"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.stdout == "set()\n", made.stdout + made.stderr


def test_the_architecture_lists_every_file():
    text = (HOUSE.parents[1] / "docs" / "architecture.md").read_text()
    names = {f.relative_to(HOUSE).as_posix() for name, f in modules().items() if room(name) and f.name != "__init__.py"}
    assert [name for name in sorted(names) if f"| `{name}` |" not in text] == []
    told = dict(re.findall(r"\| `([a-z_/]+\.py)` \| (.+) \|\n", text))
    assert told.keys() == names | {"cli.py"}
    for name in names:
        said = (ast.get_docstring(ast.parse((HOUSE / name).read_text())) or "").split("\n\n")[0]
        assert told[name] == said.replace("\n", " ").replace("``", "`"), name


LIBRARY = ("io", "nn", "systems", "data", "translation", "training", "evaluation", "experiments")


def refusals(tree: ast.AST) -> Iterator[str]:
    """All text of what a file raises."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            for part in ast.walk(node.exc):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def test_library_functions_speak_of_arguments_and_the_command_line_of_options():
    files = [file for room in LIBRARY for file in (HOUSE / room).rglob("*.py")]
    said = {text: file for file in files for text in refusals(ast.parse(file.read_text()))}
    assert len(said) > 150
    assert not {text: file for text, file in said.items() if re.search(r"(^|\W)(--[a-z]| -o\b(?! (MODEL|DIR)))", text)}
    for sentence, expected in (
        ('use `size="tiles"` or `size="model"`.', "use --size tiles or --size model."),
        ("`subset_size=9` is too much, as `range=(0, 1)` is.", "--subset-size 9 is too much, as --range 0 1 is."),
        ("give `data` or `source`.", "give DATA or --source."),
        ("give another `out`, or `checkpointing=True`.", "give another -o, or --checkpointing."),
    ):
        assert with_options(sentence) == expected


def test_an_exception_always_says_something():
    assert words_of(ValueError()) == "ValueError" and words_of(ValueError("\n"), -1) == "ValueError"
    assert [words_of(ValueError("one\n\n two\n"), line) for line in (0, 1, 2, -1)] == ["one", "two", "two", "two"]
    assert len(words_of(ValueError("a" * 300))) == 200


def test_text_is_written_and_read_the_same_in_every_locale():
    """Windows and bare containers have others than UTF-8."""
    calls = [
        (file, call)
        for file in HOUSE.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    ]
    texts = [(file, call) for file, call in calls if call.func.attr in ("read_text", "write_text")]
    assert len(texts) > 20
    for file, call in texts:
        words = [
            part.value for part in [*call.args, *[k.value for k in call.keywords]] if isinstance(part, ast.Constant)
        ]
        assert {"utf-8", "utf-8-sig"}.intersection(words), f"{file}:{call.lineno}"
