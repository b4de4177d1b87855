"""Exported models: ONNX files that do what the model does, and the page that runs them in a browser."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import run_ugatit, tiny_model, write_picture
from ugatit.apps.page import write_page
from ugatit.io.errors import UserError
from ugatit.translation.export import OnnxTranslator, difference, export, write_onnx
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator


@pytest.mark.parametrize(("name", "options"), [("ugatit", {"light": False}), ("munit", {}), ("aggan", {})])
def test_onnx_runtime_gives_the_same_pictures_and_attention(name, options, tmp_path):
    translator = Translator(tiny_model(name, **options), "cpu")
    worst = export(translator, tmp_path / "onnx")
    assert set(worst) == {"a2b", "b2a"} and max(worst.values()) < 1e-4
    again = OnnxTranslator(tmp_path / "onnx", "cpu")
    x = torch.rand(2, 3, 76, 90) * 2 - 1
    for size in ("model", "keep") if translator.system.any_size else ("model", "tiles"):
        for one in (translator, again):
            if translator.system.styles:
                one.set_style(7)
        expected, found = (one.translate(x, "b2a", size) for one in (translator, again))
        torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-4)
        assert (found.heatmap is None) == (expected.heatmap is None)
        if found.heatmap is not None:
            torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=1e-3, atol=1e-4)
    if translator.system.styles:
        again.set_style(Image.new("RGB", (64, 64)))
        with pytest.raises(UserError, match="no style from a picture"):
            again(x)


def test_a_file_that_does_something_else_is_noticed(tmp_path, monkeypatch):
    """The check that stands between a wrong ONNX file and its user."""
    translator = Translator(tiny_model(), "cpu")
    export(translator, tmp_path / "right")
    other = tiny_model()
    with torch.no_grad():
        other.gen_a2b.out[0].weight.add_(0.01)
    right = difference(translator.system, "a2b", tmp_path / "right" / "a2b.onnx")
    wrong = difference(other, "a2b", tmp_path / "right" / "a2b.onnx")
    assert 0 < right < 1e-4 < 1e-3 < wrong
    x = torch.rand(1, 3, 32, 36) * 2 - 1
    with torch.no_grad():
        apart = (other.translate(x, "a2b").image - translator.system.translate(x, "a2b").image).abs().max().item()
    assert wrong > apart / 10, "of the size that it truly is"

    def other_file(system, direction, path):
        write_onnx(other, direction, path)

    monkeypatch.setattr("ugatit.translation.export.write_onnx", other_file)
    with pytest.raises(UserError, match="a2b differs by"):
        export(translator, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_commands_and_the_page_in_a_browser(tmp_path, runtime, browser):
    save_model(tiny_model(), tmp_path / "model", step=0)
    source = write_picture(tmp_path / "pictures" / "one.png", 1, 32)
    done = run_ugatit("export", tmp_path / "model", "-o", tmp_path / "onnx", "--page", "--runtime", runtime)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("largest difference") == 2
    for model, options in (("model", []), ("onnx", ["--backend", "onnx"])):
        done = run_ugatit("translate", tmp_path / model, source, "-o", tmp_path / f"by-{model}", *options)
        assert done.returncode == 0, done.stderr
    expected = np.asarray(Image.open(tmp_path / "by-model" / "one.png"), int)
    assert np.abs(np.asarray(Image.open(tmp_path / "by-onnx" / "one.png"), int) - expected).max() <= 1

    asked = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "onnx" / "index.html").as_uri())
    page.set_input_files("#file", source)
    page.wait_for_function("document.getElementById('state').textContent == 'Done.'")
    with page.expect_download() as download:
        page.click("#save")
    made = Image.open(download.value.path()).convert("RGB")
    assert np.abs(np.asarray(made, int) - expected).max() <= 1, "the browser makes the same picture"
    assert all(url.startswith(("file:", "blob:")) for url in asked), "nothing is asked of any server"
    page.set_input_files("#file", {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_function("document.getElementById('state').textContent.includes('no.png is not a picture')")
    page.close()


def test_what_cannot_be_exported_or_run_is_explained(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    done = run_ugatit("translate", tmp_path / "model", tmp_path, "-o", tmp_path / "out", "--backend", "onnx")
    assert done.returncode == 2 and "model holds no ONNX files" in done.stderr
    done = run_ugatit("export", tmp_path / "model", "-o", tmp_path / "model")
    assert done.returncode == 2 and "holds other files" in done.stderr
    (tmp_path / "model" / "a2b.onnx").write_bytes(b"damaged")
    (tmp_path / "model" / "b2a.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"a2b.onnx cannot be used"):
        OnnxTranslator(tmp_path / "model")
    with pytest.raises(UserError, match=r"is not onnxruntime-web"):
        write_page(tmp_path / "model", tmp_path / "model" / "a2b.onnx")
    with pytest.raises(UserError, match=r"none.tgz cannot be read"):
        write_page(tmp_path / "model", Path("none.tgz"))
