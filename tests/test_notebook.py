"""The notebook, run from top to bottom with tiny settings, as a person would on a fresh machine."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import one_thread
from ugatit.translation.translator import Translator

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "ugatit.ipynb"
TINY = {
    "SOURCE = ": 'SOURCE = "what is under test"',
    "%pip install": "# it is installed",
    "PRESET, STEPS, PREVIEW_EVERY": 'PRESET, STEPS, PREVIEW_EVERY = "quick", 4, 2',
    "OPTIONS = ": 'OPTIONS = ["--size", "32", "--width", "2", "--blocks", "1", "--workers", "0"]',
}


@pytest.fixture
def notebook():
    """The notebook with lines of `TINY` in the place of its own."""
    book = nbformat.read(NOTEBOOK, 4)
    text = "".join(cell.source for cell in book.cells)
    assert all(text.count(f"\n{begin}") + text.startswith(begin) == 1 for begin in TINY)
    for cell in book.cells:
        lines = cell.source.split("\n")
        changed = [next((new for begin, new in TINY.items() if line.startswith(begin)), line) for line in lines]
        cell.source = "\n".join(changed)
    return book


def test_it_is_committed_without_outputs():
    book = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(book)
    assert all(not cell.outputs and cell.execution_count is None for cell in book.cells if cell.cell_type == "code")


def test_it_runs_and_again(notebook, tmp_path, monkeypatch):
    for name, value in one_thread().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for steps in (4, 6):  # the second time it goes on
        for cell in notebook.cells:
            cell.source = cell.source.replace('"quick", 4, 2', f'"quick", {steps}, 2')
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        pictures = [o for o in outputs if "image/png" in o.get("data", {})]
        assert len(pictures) >= 1 + 2 * 4  # a sheet, and four pictures with their translations
        assert (tmp_path / "run" / "previews" / f"step-{steps:08d}.png").is_file()
    assert Translator.load(tmp_path / "run").side == 32
    assert (tmp_path / "model.zip").is_file()
