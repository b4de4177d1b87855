"""Exported models: ONNX files that do what the model does, and the page that runs them in a browser."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import ugatit
from conftest import one_thread, run_here, tiny_model, write_picture
from ugatit.apps.page import write_page
from ugatit.cli import main
from ugatit.io.errors import UserError
from ugatit.translation.export import OneDirection, OnnxTranslator, difference, export, write_onnx
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator


@pytest.mark.parametrize(("name", "options"), [("ugatit", {"light": False}), ("munit", {})])
def test_onnx_runtime_gives_the_same_pictures_and_attention(name, options, tmp_path):
    translator = Translator(tiny_model(name, **options), "cpu")
    worst = export(translator, tmp_path / "onnx")
    assert set(worst) == {"a2b.onnx", "b2a.onnx"} and max(worst.values()) < 1e-4
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
    with pytest.raises(UserError, match=r"cannot be used by ONNX Runtime: leave it out, or give cpu\."):
        OnnxTranslator(tmp_path / "onnx", "gpu")
    with pytest.raises(UserError, match="has no weights to save"):
        again.save(tmp_path / "saved")
    if translator.system.styles:
        again.set_style(Image.new("RGB", (64, 64)))
        with pytest.raises(UserError, match="no style from a picture"):
            again(x)


def test_a_file_that_does_something_else_is_noticed(tmp_path, monkeypatch):
    """The check that stands between a wrong ONNX file and its user."""
    translator = Translator(tiny_model(), "cpu")
    write_onnx(translator.system, "a2b", tmp_path / "a2b.onnx")
    other = tiny_model()
    with torch.no_grad():
        other.gen_a2b.out[0].weight.add_(0.01)
    right = difference(translator.system, "a2b", tmp_path / "a2b.onnx")
    wrong = difference(other, "a2b", tmp_path / "a2b.onnx")
    assert 0 < right < 1e-4 < 1e-3 < wrong
    x = torch.rand(1, 3, 32, 36) * 2 - 1
    with torch.no_grad():
        apart = (other.translate(x, "a2b").image - translator.system.translate(x, "a2b").image).abs().max().item()
    assert wrong > apart / 10, "of the size that it truly is"

    monkeypatch.setattr("ugatit.translation.export.write_onnx", lambda *a: shutil.copy(tmp_path / "a2b.onnx", a[-1]))
    with pytest.raises(UserError, match=r"a2b.onnx differs by"):
        export(Translator(other, "cpu"), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_commands_and_the_page_in_a_browser(tmp_path, runtime, browser):
    save_model(tiny_model(), tmp_path / "model", step=0)
    source = write_picture(tmp_path / "pictures" / "one.png", 1, 32)
    done = run_here("export", tmp_path / "model", "-o", tmp_path / "onnx", "--page", "--runtime", runtime)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("largest difference") == 2
    for model, options in (("model", []), ("onnx", ["--backend", "onnx"])):
        done = run_here("translate", tmp_path / model, source, "-o", tmp_path / f"by-{model}", *options)
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
    page.set_viewport_size({"width": 360, "height": 800})
    boxes = [page.locator(f"#{name}").bounding_box() for name in ("source", "result")]
    assert boxes[0] == boxes[1] and boxes[0]["width"] < 360, "one lies over the other at any size"
    page.set_input_files("#file", {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_function("document.getElementById('state').textContent.includes('no.png is not a picture')")
    page.add_init_script("delete window.DecompressionStream")
    page.reload()
    page.wait_for_function("document.getElementById('state').textContent.startsWith('This browser cannot run')")
    page.close()


def test_a_torch_that_cannot_write_a_model_is_named(tmp_path, monkeypatch):
    """Its exporter knows more operators from version to version."""

    def unable(*_, **__):
        raise torch.onnx.OnnxExporterError("a long tale") from ValueError("No function for relu_\nWhile executing")

    monkeypatch.setattr(torch.onnx, "export", unable)
    says = r"torch [\d.]+\S* cannot write this model as ONNX \(No function for relu_\): update torch"
    with pytest.raises(UserError, match=says):
        export(Translator(tiny_model(), "cpu"), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_exported_models_have_no_operator_that_only_the_newest_exporter_knows():
    """torch 2.11 has no ONNX for an adaptive maximum."""
    graph = OneDirection(tiny_model(), "a2b").eval()
    ops = {str(node.target) for node in torch.export.export(graph, (torch.rand(1, 3, 32, 32),)).graph.nodes}
    assert "aten.max.dim" in ops and not any("adaptive" in op for op in ops)


def test_what_cannot_be_exported_or_run_is_explained(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    done = run_here("translate", tmp_path / "model", tmp_path, "-o", tmp_path / "out", "--backend", "onnx")
    assert done.returncode == 2 and "model holds no ONNX files" in done.stderr
    done = run_here("export", tmp_path / "model", "-o", tmp_path / "model")
    assert done.returncode == 2 and "holds other files" in done.stderr
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("my own page")
    (site / "config.json").write_text('{"theme": "dark"}')
    done = run_here("export", tmp_path / "model", "-o", site)
    assert done.returncode == 2 and "holds other files (config.json, index.html)" in done.stderr
    with pytest.raises(UserError, match=r"has a config\.json of something else, which would be lost"):
        save_model(tiny_model(), site, step=0)
    assert (site / "index.html").read_text() == "my own page" and "dark" in (site / "config.json").read_text()
    (tmp_path / "model" / "a2b.onnx").write_bytes(b"damaged")
    (tmp_path / "model" / "b2a.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"a2b.onnx cannot be used"):
        OnnxTranslator(tmp_path / "model")
    with pytest.raises(UserError, match=r"is not onnxruntime-web"):
        write_page(tmp_path / "model", tmp_path / "model" / "a2b.onnx")
    with pytest.raises(UserError, match=r"none.tgz cannot be read"):
        write_page(tmp_path / "model", Path("none.tgz"))


@contextmanager
def web_site(folder: Path) -> Iterator[str]:
    """A web server that does nothing but send files; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def test_the_page_is_an_app_that_opens_without_a_connection(tmp_path, runtime, browser):
    site = tmp_path / "one"
    export(Translator(tiny_model("cartoongan")), site)
    example = write_picture(tmp_path / "a_face.png", 1, 40)
    write_page(site, runtime, "cats & dogs", [example])
    shutil.copytree(site, tmp_path / "other")
    manifest = json.loads((site / "app.webmanifest").read_text())
    assert manifest["name"] == "cats & dogs" and manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        assert "x".join(map(str, Image.open(site / icon["src"]).size)) == icon["sizes"]
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    with web_site(tmp_path) as address:
        for name in ("one", "other"):  # neither takes the other's place
            page.goto(f"{address}{name}/")
            page.evaluate("navigator.serviceWorker.ready")
            page.wait_for_function("navigator.serviceWorker.controller !== null")
    page.goto(f"{address}one/")  # the server is gone
    page.wait_for_function("document.getElementById('state').textContent == 'Ready.'")
    page.get_by_role("button", name="a face").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('state').textContent == 'Done.'")
    assert page.get_by_role("img", name="The translation", exact=True).is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"
    context.close()


def test_a_space_is_the_page_of_its_model(tmp_path, capsys):
    save_model(tiny_model(), tmp_path / "run" / "model", step=0)
    (tmp_path / "run" / "model" / "README.md").write_text("My card.")
    command = ["export", str(tmp_path / "run" / "model"), "--space", "-o"]
    assert main([*command, str(tmp_path / "space")]) == 0
    assert (tmp_path / "space" / "run" / "README.md").read_text() == "My card."
    meta = yaml.safe_load((tmp_path / "space" / "README.md").read_text().split("---")[1])
    assert meta["sdk"] == "gradio" and meta["app_file"] == "app.py" and meta["title"] == "run"
    name, version = (tmp_path / "space" / "requirements.txt").read_text().strip().split("==")
    assert name == "ugatit[web,prepare]" and version == ugatit.__version__
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = one_thread() | {"GRADIO_SERVER_PORT": str(port), "SPACE_HOST": "me-run.hf.space"}
    process = subprocess.Popen(
        [sys.executable, "space/app.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        next(line for line in process.stderr if "http://" in line)
        visitor = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Host": "me-run.hf.space"})
        assert [model["name"] for model in visitor.get("/api/models").json()] == ["run"]
        policy = visitor.get("/").headers["content-security-policy"]
        assert policy.endswith("frame-ancestors https://huggingface.co")
        framed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        assert [visitor.get(path, headers=framed).status_code for path in ("/", "/api/models")] == [200, 403]
        assert visitor.post("/api/translate", headers=framed).status_code == 403
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert main([*command, str(tmp_path / "run")]) == 2 and "holds other files" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "space")]) == 0, "it is replaced by its like"
    (tmp_path / "space" / "thesis.txt").touch()
    assert main([*command, str(tmp_path / "space")]) == 2
    assert "space holds other files (thesis.txt): give another -o" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "app.py").write_text("import flask")
    assert main([*command, str(tmp_path / "mine")]) == 2 and "(app.py)" in capsys.readouterr().err
    (tmp_path / "site").mkdir()
    for name in ("a2b.onnx", "CNAME"):
        (tmp_path / "site" / name).touch()
    assert main(["export", str(tmp_path / "run" / "model"), "-o", str(tmp_path / "site")]) == 2
    assert "(CNAME, a2b.onnx)" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "x"), "--page"]) == 2 and "give one of them" in capsys.readouterr().err
