"""The web page and the endpoint: pictures in and out, and everything that is turned away."""

import asyncio
import http.client
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from conftest import run_here, served, tiny_model, write_picture
from ugatit.apps.desk import Desk, ServeConfig, Waiting
from ugatit.apps.guard import GoneError
from ugatit.apps.serve import endpoint
from ugatit.data.reading import read_picture
from ugatit.io.sheet import overlay, to_picture
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator


@pytest.fixture(scope="module")
def desk() -> Desk:
    translators = {name: Translator(tiny_model(name), "cpu") for name in ("ugatit", "cyclegan", "munit", "cartoongan")}
    return Desk(translators, ServeConfig(models=[], max_mib=0.5, max_megapixels=2, queue=2))


@pytest.fixture(scope="module")
def client(desk):
    return TestClient(endpoint(desk), raise_server_exceptions=False)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_a_picture_goes_in_and_its_translation_comes_out(desk, client):
    picture = noise(40, 30)
    for name in ("ugatit", "cyclegan"):
        answer = client.post(f"/api/translate?model={name}&direction=b2a&size=keep", content=encoded(picture))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        expected = desk.translators[name](picture, "b2a", size="keep")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), np.asarray(expected))
    for kind in ("JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        answer = client.post("/api/translate", content=encoded(picture, kind))
        expected = desk.translators["ugatit"](read_picture(io.BytesIO(encoded(picture, kind))), "a2b")
        assert np.array_equal(pixels(answer.content), np.asarray(expected)), kind
    attended = pixels(client.post("/api/translate?attention=true&size=keep", content=encoded(picture)).content)
    translator = desk.translators["ugatit"]
    x = translator.to_tensor(picture)
    expected = to_picture(overlay(x, translator.translate(x, "a2b", "keep").heatmap)[0])
    assert np.array_equal(attended, np.asarray(expected)) and not np.array_equal(attended, np.asarray(picture))
    styles = [client.post(f"/api/translate?model=munit&style={s}", content=encoded(picture)).content for s in (0, 1, 0)]
    assert styles[0] == styles[2] != styles[1]
    assert client.get("/api/models").json() == [
        {"name": "ugatit", "directions": ["a2b", "b2a"], "size": 32, "any_size": True, "styles": 0},
        {"name": "cyclegan", "directions": ["a2b", "b2a"], "size": 32, "any_size": True, "styles": 0},
        {"name": "munit", "directions": ["a2b", "b2a"], "size": 64, "any_size": True, "styles": 8},
        {"name": "cartoongan", "directions": ["a2b"], "size": 32, "any_size": True, "styles": 0},
    ]
    assert "/api/translate" in client.get("/openapi.json").json()["paths"]


def test_of_an_animation_the_first_picture_is_translated_and_that_is_said(desk, client):
    first, second = noise(40, 30), noise(40, 30, 1)
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        buffer = io.BytesIO()
        first.save(
            buffer, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {})
        )
        answer = client.post("/api/translate", content=buffer.getvalue())
        assert answer.status_code == 200 and "several pictures, of which the first" in answer.headers["x-note"], kind
        one = read_picture(io.BytesIO(encoded(first, "GIF"))) if kind == "GIF" else first
        assert np.array_equal(pixels(answer.content), np.asarray(desk.translators["ugatit"](one, "a2b"))), kind
    assert "x-note" not in client.post("/api/translate", content=FINE).headers


FINE = encoded(noise(40, 30))
BOMB = encoded(Image.new("1", (30_000, 30_000)))


@pytest.mark.parametrize(
    ("query", "body", "status", "sentence"),
    [
        ("", b"", 415, "is empty"),
        ("", b"\0\0\0\x18ftypheic" + bytes(99), 415, "is a HEIC picture"),
        ("", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a picture"),
        ("", b"GIF89a", 415, "not a picture"),
        ("", FINE[: len(FINE) // 2], 422, "cannot be read"),
        ("", encoded(noise(8, 8)), 422, "the least is 16 x 16"),
        ("", b"x" * 600_000, 413, "larger than 0.5 MiB"),
        ("", encoded(Image.new("RGB", (2000, 1001))), 413, "2000 x 1001 pixels, the most is 2 million"),
        ("", BOMB, 413, "far too many pixels"),
        ("", encoded(Image.new("RGB", (20_000, 20))), 413, "too long"),
        ("?model=none", FINE, 404, "choose one of ugatit, cyclegan"),
        ("?direction=up", FINE, 422, "direction"),
        ("?size=huge", FINE, 422, "size"),
        ("?style=-1", FINE, 422, "style"),
        ("?model=cyclegan&attention=true", FINE, 422, "no attention"),
        ("?model=cartoongan&direction=b2a", FINE, 422, "does not translate `direction=b2a`"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_a_sentence(query, body, status, sentence, client):
    answer = client.post(f"/api/translate{query}", content=body)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"] and answer.json()["error"].endswith(".")


def test_an_upload_without_a_stated_length_is_cut_off(desk):
    """Asked without a client between, which would read the whole upload first."""
    taken, answers = [], []

    async def receive():
        taken.append(1)
        if len(taken) > 100:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"x" * 100_000, "more_body": len(taken) < 100}

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/translate", "query_string": b"", "headers": []}
    with ThreadPoolExecutor(1) as pool:  # this thread may have a loop: the browser's
        pool.submit(lambda: asyncio.run(endpoint(desk)(scope, receive, send))).result()
    assert answers[0]["status"] == 413 and b"larger than 0.5 MiB" in answers[1]["body"]
    assert len(taken) == 6, "the first that is over half a MiB is the last"


def test_more_than_the_queue_holds_are_told_to_come_again(desk, client):
    answers = []
    with desk.working:  # one is at work that does not end
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/api/translate", content=FINE)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(answers) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [a.status_code for a in answers] == [503] and answers[0].headers["retry-after"]
        assert "2 pictures are waiting already" in answers[0].json()["error"]
    for thread in threads:
        thread.join()
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 503]


def test_the_page_in_a_browser(browser, tmp_path):
    for i, name in enumerate(("first", "second")):
        system = tiny_model()
        torch.manual_seed(i)
        system.init_weights()
        save_model(system, tmp_path / name / "model", step=0)
    source = write_picture(tmp_path / "one.png", 1, 32)
    with served("serve", tmp_path / "first" / "model", tmp_path / "second") as address:
        assert address.startswith("http://127.0.0.1:"), "nobody else can come in unless asked to"
        page = browser.new_page()
        page.goto(address)
        page.set_input_files("#source input[type=file]", source)
        for number, name in enumerate(("first", "second")):
            page.wait_for_selector(f"#made-{number} img")
            assert f"{name}: source, translation" in page.inner_text(f"#made-{number}")
            pictures = {
                Image.open(io.BytesIO(page.request.get(image.get_attribute("src")).body())).convert("RGB").tobytes()
                for image in page.query_selector_all(f"#made-{number} img")
            }
            expected = Translator.load(tmp_path / name / "model", "cpu")(Image.open(source), "a2b")
            assert expected.tobytes() in pictures and Image.open(source).tobytes() in pictures
            with page.expect_download() as download:
                page.click(f"#made-{number} [aria-label='Download']")
            assert Image.open(download.value.path()).convert("RGB").tobytes() == expected.tobytes()
        page.set_input_files("#source input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
        page.wait_for_selector("text=The upload is not a picture")
        page.close()


def test_examples_are_clicked_by_mouse_or_keyboard_and_stay(browser, tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    write_picture(tmp_path / "shown" / "one.png", 1, 32)
    limits = ["--max-mib", "0.01", "--examples", tmp_path / "shown"]  # a shelf for one picture or two
    with served("serve", tmp_path / "model", *limits) as address:
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page = context.new_page()
        page.goto(address)
        for _ in range(3):
            page.locator("button.gallery-item").focus()
            page.keyboard.press("Enter")
            page.wait_for_selector("#made-0 img")
            page.click("[aria-label='Remove Image']")
            page.wait_for_selector("#made-0 img", state="detached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        context.close()


@contextmanager
def stripping_proxy(target: str, prefix: str) -> Iterator[str]:
    """A proxy that has another server below a path, and takes the path away before it asks that server."""
    host = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            connection = http.client.HTTPConnection(host, timeout=60)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path.removeprefix(prefix), body or None, kept)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            while part := answer.read1():  # events come one by one
                self.wfile.write(part)
                self.wfile.flush()
            connection.close()

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_page_below_a_path_behind_a_proxy(browser, tmp_path):
    save_model(tiny_model(), tmp_path / "one" / "model", step=0)
    source = write_picture(tmp_path / "one.png", 1, 32)
    expected = Translator.load(tmp_path / "one" / "model", "cpu")(Image.open(source), "a2b")
    prefix = "/art/translate"
    with served("serve", tmp_path / "one", "--root-path", prefix) as address, stripping_proxy(address, prefix) as proxy:
        page = browser.new_page()
        lost: list[str] = []
        page.on(
            "response", lambda answer: lost.append(f"{answer.status} {answer.url}") if answer.status > 399 else None
        )
        page.goto(f"{proxy}{prefix}/")
        page.set_input_files("#source input[type=file]", source)
        page.wait_for_selector("#made-0 img")
        pictures = {
            Image.open(io.BytesIO(page.request.get(image.get_attribute("src")).body())).convert("RGB").tobytes()
            for image in page.query_selector_all("#made-0 img")
        }
        assert expected.tobytes() in pictures
        assert not lost, "all that the page asks for is below its path"
        page.close()
        described = json.loads(urlopen(f"{proxy}{prefix}/openapi.json").read())
        assert described["servers"] == [{"url": prefix}]
        asked = Request(f"{proxy}{prefix}/api/translate", source.read_bytes(), {"content-type": "image/png"})
        assert Image.open(io.BytesIO(urlopen(asked).read())).tobytes() == expected.tobytes()


def test_the_page_s_controls_in_a_browser(browser, tmp_path):
    """Direction, style, attention and limits: each shows what `Translator` makes with them."""
    save_model(tiny_model(), tmp_path / "plain" / "model", step=0)
    save_model(tiny_model("munit"), tmp_path / "styled" / "model", step=0)
    source = write_picture(tmp_path / "one.png", 1, 64)
    translators = [Translator.load(tmp_path / name / "model", "cpu") for name in ("plain", "styled")]

    def expected(number: int, direction: str, style: int = 0) -> bytes:
        if translators[number].system.styles:
            translators[number].set_style(style)
        return translators[number](Image.open(source), direction).tobytes()

    with served("serve", tmp_path / "plain", tmp_path / "styled", "--max-megapixels", "0.2") as address:
        page = browser.new_page()
        refused: list[str] = []
        page.on("console", lambda m: refused.append(m.text) if "Content Security Policy" in m.text else None)
        page.goto(address)

        def shown(part: str) -> set[bytes]:
            sources = [image.get_attribute("src") for image in page.query_selector_all(f"#{part} img")]
            answers = [page.request.get(src).body() for src in sources if src and src.startswith("http")]
            return {Image.open(io.BytesIO(body)).convert("RGB").tobytes() for body in answers}

        def wait_for(part: str, wanted: bytes) -> None:
            end = time.monotonic() + 30
            while wanted not in shown(part):
                assert time.monotonic() < end, part
                page.wait_for_timeout(100)

        page.set_input_files("#source input[type=file]", source)
        for number in range(2):
            wait_for(f"made-{number}", expected(number, "a2b"))
        x = translators[0].to_tensor(Image.open(source))
        heat = translators[0].translate(x, "a2b", "model").heatmap
        wait_for("attention-0", to_picture(overlay(x, heat)[0]).tobytes())
        assert page.is_hidden("#attention-1"), "that model has none"
        page.click("text=B to A")
        for number in range(2):
            wait_for(f"made-{number}", expected(number, "b2a"))
        page.fill("#style input", "7")
        page.press("#style input", "Enter")
        wait_for("made-1", expected(1, "b2a", 7))
        page.fill("#style input", "")
        page.press("#style input", "Enter")
        wait_for("made-1", expected(1, "b2a", 0))
        page.fill("#style input", "-1")
        page.press("#style input", "Enter")
        page.wait_for_selector("text=Style is a whole number from 0 up")
        page.fill("#style input", "0")
        for size, sentence in (
            ((600, 600), "600 x 600 pixels, the most is 0.2 million"),
            ((8, 8), "the least is 16 x 16"),
        ):
            upload = {"name": "a.png", "mimeType": "image/png", "buffer": encoded(noise(*size))}
            page.set_input_files("#source input[type=file]", upload)
            page.wait_for_selector(f"text={sentence}")
        assert not refused, refused
        page.close()


def test_bad_options_are_explained(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    for options, sentence in (
        ([tmp_path / "none"], "none does not exist"),
        ([tmp_path / "model", "--host", "203.0.113.1"], "--host 203.0.113.1 --port 7860 cannot be used"),
        ([tmp_path / "model", "--queue", "0"], "--queue"),
        ([tmp_path / "model", "--frames", "example.org"], "--frames example.org is no web site: give it like"),
        ([tmp_path / "model", "--examples", tmp_path / "none.png"], "--examples: "),
        ([tmp_path / "model", "--root-path", "art/"], "--root-path art/ is not the path of an address: give one like"),
    ):
        done = run_here("serve", *options)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


def test_pictures_that_wait_and_are_alike_are_translated_together(desk, monkeypatch):
    """On a card, here as if on one."""
    (name, translator), *_ = desk.translators.items()
    config = replace(desk.config, max_gib=1e6)
    monkeypatch.setattr(Translator, "tiles_at_once", 3)
    busy, seen = Desk({name: translator}, config), []
    whole = translator.translate

    def counted(x, *rest):
        seen.append(len(x))
        return whole(x, *rest)

    monkeypatch.setattr(translator, "translate", counted)
    pictures = [encoded(Image.new("RGB", size, (40 * n, 99, 0))) for n, size in enumerate([(40, 40)] * 4 + [(40, 60)])]
    alone = [busy.translate(data, [name], "a2b")[0] for data in pictures]
    assert seen[-5:] == [1] * 5, "one after the other"
    seen.clear()
    with ThreadPoolExecutor(5) as pool:
        with busy.working:
            running = [pool.submit(busy.translate, data, [name], "a2b") for data in pictures]
            deadline = time.monotonic() + 20
            while len(busy.waiting) < 5 and time.monotonic() < deadline:
                time.sleep(0.01)
        made = [future.result()[0] for future in running]
    assert sorted(seen) == [1, 1, 3] and not busy.waiting
    for one, other in zip(alone, made, strict=True):
        assert np.abs(np.asarray(one.picture, int) - np.asarray(other.picture, int)).max() <= 1


def test_a_batch_that_is_too_much_for_the_memory_is_translated_one_by_one(desk, monkeypatch):
    (name, translator), *_ = desk.translators.items()
    whole, seen = translator.translate, []

    def short(x, *rest):
        seen.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(x, *rest)

    monkeypatch.setattr(translator, "translate", short)
    group = [
        Waiting(torch.zeros(1, 3, 32, 32), (name, "a2b", "model", None), threading.Event(), math.inf) for _ in "ab"
    ]
    desk.make(group)
    assert seen == [2, 1, 1] and all(request.made is not None for request in group)
    for request in group:
        request.stop.set()
    desk.make(group)
    assert all(isinstance(request.error, GoneError) for request in group)
