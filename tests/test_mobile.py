"""Core ML and LiteRT: what is written does what the model does."""

import sys

import pytest
import torch

import mil
from conftest import tiny_model
from ugatit.cli import main
from ugatit.io.errors import UserError
from ugatit.systems.base import System
from ugatit.translation.export import INPUTS, OneDirection, example, export
from ugatit.translation.folder import save_model
from ugatit.translation.mobile import write_coreml, write_litert
from ugatit.translation.translator import Translator

MODELS = [("ugatit", {}), ("ugatit", {"light": False}), ("munit", {})]


def parts(system: System) -> tuple[OneDirection, tuple[torch.Tensor, ...], tuple[str, ...]]:
    torch.manual_seed(0)
    given = example(system, "a2b", system.config.size, system.config.size)
    return OneDirection(system, "a2b"), given, INPUTS[: len(given)]


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_saved_core_ml_package_computes_what_the_model_does(name, options, tmp_path):
    pytest.importorskip("coremltools")
    graph, given, names = parts(tiny_model(name, **options))
    worst = write_coreml(graph, given, names, tmp_path / "a2b.mlpackage")
    assert worst is None or worst < 1e-3
    found = mil.run(tmp_path / "a2b.mlpackage", dict(zip(names, given, strict=True)))
    with torch.no_grad():
        wanted = graph(*given)
    assert list(found) == ["translation", "attention"][: len(wanted)]
    for one, other in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_litert_file_computes_what_the_model_does(name, options, tmp_path):
    pytest.importorskip("litert_torch", reason="litert-torch is in an environment of its own (docs/use.md)")
    assert write_litert(*parts(tiny_model(name, **options)), tmp_path / "a2b.tflite") < 1e-4


def test_the_command_writes_it_beside_onnx_and_says_what_was_not_run(tmp_path, capsys):
    pytest.importorskip("coremltools")
    save_model(tiny_model("cartoongan"), tmp_path / "model", step=0)
    assert main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "out"), "--also", "coreml"]) == 0
    told = capsys.readouterr().err
    assert ("a2b.mlpackage: not run, which only macOS can" in told) == (sys.platform != "darwin")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "a2b.onnx", "a2b.mlpackage"}


def test_what_differs_or_has_no_converter_leaves_nothing(tmp_path, monkeypatch):
    translator = Translator(tiny_model("cartoongan"), "cpu")
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(UserError, match=r"litert_torch is not installed: pip install 'ugatit\[litert\]'"):
        export(translator, tmp_path / "out", ("litert",))
    monkeypatch.setitem(sys.modules["ugatit.translation.mobile"].WRITERS, "coreml", lambda *_: float("nan"))
    with pytest.raises(UserError, match=r"a2b.mlpackage differs by nan"):
        export(translator, tmp_path / "out", ("coreml",))
    assert not (tmp_path / "out").exists()
