"""`ugatit serve`: a web page to translate pictures on, and an HTTP endpoint for programs.

Both put their pictures on one desk, which translates one at a time and turns away what is too much.
"""

import io
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from PIL import Image, UnidentifiedImageError
from pydantic import Field
from tyro.conf import Positional

from ugatit.data import read_picture
from ugatit.errors import UserError, package
from ugatit.sheet import overlay, to_picture
from ugatit.systems.base import Direction
from ugatit.translate import Size, Translator

DIRECTIONS: dict[Direction, str] = {"a2b": "A to B", "b2a": "B to A"}


@dataclass(frozen=True)
class ServeConfig:
    """Translate pictures on a web page, and over HTTP for programs."""

    models: Positional[list[str]]
    """Model folders (RUN/model) or hub ids; several are shown side by side."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the page to the whole network."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """Port to listen on; 0 for any that is free."""
    max_mib: Annotated[float, Field(gt=0)] = 20
    """Largest upload in MiB."""
    max_megapixels: Annotated[float, Field(gt=0)] = 25
    """Largest picture in millions of pixels."""
    queue: Annotated[int, Field(ge=1)] = 16
    """Pictures that may wait; further ones are told to come again."""
    device: str | None = None
    """cuda, cpu, ...; CUDA where there is one if not given."""


class RefusalError(Exception):
    """A request that is turned away: an HTTP status and a sentence that says why."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Made(NamedTuple):
    """A translated picture."""

    source: Image.Image
    picture: Image.Image
    attention: Image.Image | None  # over the source


class Desk:
    """The models, and one picture at a time for them.

    Args:
        translators: by name.
        config: with the limits.
    """

    def __init__(self, translators: dict[str, Translator], config: ServeConfig):
        self.translators, self.config = translators, config
        self.working = threading.Lock()
        self.places = threading.BoundedSemaphore(config.queue + 1)  # those that wait and the one at work

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn.

        Raises:
            RefusalError: too many wait already.
        """
        if not self.places.acquire(blocking=False):
            raise RefusalError(503, f"{self.config.queue} pictures are waiting already: try again in a while.")
        try:
            with self.working:
                yield
        finally:
            self.places.release()

    def check(self, data: bytes) -> None:
        """Look at an uploaded file's size and header, before anything is decoded.

        Raises:
            RefusalError: it is no picture, or too large.
        """
        self.check_bytes(len(data))
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as opened:
                self.check_pixels(*opened.size)
        except Image.DecompressionBombError:
            raise self.too_many_pixels("far too many") from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            raise RefusalError(415, "The upload is not a picture: send a PNG, JPEG or WebP file.") from None

    def check_bytes(self, count: float) -> None:
        """Raises RefusalError if an upload of so many bytes is too large."""
        if count > self.config.max_mib * 2**20:
            raise RefusalError(413, f"The upload is larger than {self.config.max_mib:g} MiB: send a smaller file.")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises RefusalError if a picture is too large, or so long that it would be once it has the model's height."""
        if width * height > self.config.max_megapixels * 1e6:
            raise self.too_many_pixels(f"{width} x {height}")
        long, short = max(width, height), min(width, height)
        side = max(translator.side for translator in self.translators.values())
        if side**2 * long / max(1, short) > self.config.max_megapixels * 1e6:
            raise RefusalError(413, f"The picture has {width} x {height} pixels, it is too long: send a part of it.")

    def too_many_pixels(self, what: str) -> RefusalError:
        return RefusalError(413, f"The picture has {what} pixels, the most is {self.config.max_megapixels:g} million.")

    def translate(
        self, data: bytes, names: list[str], direction: Direction, size: Size = "model", style: int = 0
    ) -> list[Made]:
        """Decode an uploaded file and translate it by each of the named models, when its turn comes.

        Raises:
            RefusalError: it is no picture, damaged or too large, a model does not do that, or too many wait.
        """
        self.check(data)
        with self.turn():
            try:
                picture = read_picture(io.BytesIO(data))
            except ValueError as error:
                raise RefusalError(422, f"The picture {error}: send another.") from None
            try:
                return [one_by(self.translators[name], picture, direction, size, style) for name in names]
            except UserError as error:
                raise RefusalError(422, str(error)) from None


def one_by(translator: Translator, picture: Image.Image, direction: Direction, size: Size, style: int) -> Made:
    """A picture translated by one model.

    Raises:
        UserError: the model does not do that.
    """
    x = translator.to_tensor(picture)
    if translator.system.styles:
        translator.set_style(style)
    made = translator.translate(x, direction, size)
    attention = None if made.heatmap is None else to_picture(overlay(x, made.heatmap)[0])
    result = to_picture(made.image[0])
    return Made(picture.resize(result.size, Image.Resampling.BICUBIC), result, attention)


def load_models(config: ServeConfig) -> dict[str, Translator]:
    """The models by a short name: the last part of their path that says something.

    Raises:
        UserError: one cannot be loaded.
    """
    found: dict[str, Translator] = {}
    for given in config.models:
        path = Path(given)
        name = path.resolve().parent.name if path.resolve().name == "model" else path.name
        number = 1 + sum(known.split(" #")[0] == name for known in found)
        found[name if number == 1 else f"{name} #{number}"] = Translator.load(given, config.device)
    return found


# For programs


def endpoint(desk: Desk) -> Any:
    """The FastAPI application with ``GET /api/models`` and ``POST /api/translate``."""
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response

    app = FastAPI(title="ugatit", description="Translate pictures. Every refusal is a JSON object with an `error`.")

    @app.exception_handler(RefusalError)
    async def refuse(_request: Request, refusal: RefusalError) -> Response:
        headers = {"Retry-After": "10"} if refusal.status == 503 else None
        return JSONResponse({"error": refusal.sentence}, refusal.status, headers)

    @app.exception_handler(RequestValidationError)
    async def explain(_request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        return JSONResponse({"error": f"{problem['loc'][-1]} = {problem.get('input')!r}: {problem['msg']}."}, 422)

    @app.get("/api/models")
    def models() -> list[dict[str, Any]]:
        """What can be asked for: names, directions, the side of the training pictures, whether any size will do."""
        return [
            {
                "name": name,
                "directions": t.system.directions,
                "size": t.side,
                "any_size": t.system.any_size,
                "styles": t.system.styles,
            }
            for name, t in desk.translators.items()
        ]

    body = {"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string"}}}}}
    answers: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The translation."}}
    answers |= {status: {"description": f"{why}."} for status, why in REFUSALS.items()}

    @app.post("/api/translate", response_class=Response, responses=answers, openapi_extra=body)
    async def translate(
        request: Request,
        model: str | None = None,
        direction: Direction = "a2b",
        size: Size = "model",
        style: Annotated[int, Field(ge=0, lt=2**63)] = 0,
        attention: bool = False,
    ) -> Response:
        """Translate the picture that is the request's body, by ``model`` (the first if not given).

        ``style`` is the seed of the style, for models that have some; with ``attention`` the answer is the attention
        map over the picture instead of the translation.
        """
        name = next(iter(desk.translators)) if model is None else model
        if name not in desk.translators:
            raise RefusalError(404, f"There is no model {name}: choose one of {', '.join(desk.translators)}.")
        desk.check_bytes(float(request.headers.get("content-length", 0)))
        data = await body_of(request.stream(), desk)
        (made,) = await run_in_threadpool(desk.translate, data, [name], direction, size, style)
        shown = made.attention if attention else made.picture
        if shown is None:
            raise RefusalError(422, f"The model {name} has no attention maps: leave attention out.")
        buffer = io.BytesIO()
        shown.save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png")

    return app


REFUSALS = {
    404: "There is no such model",
    413: "The upload or the picture is too large",
    415: "The upload is not a picture",
    422: "The picture is damaged or too small, or the model does not do what is asked",
    503: "Too many pictures are waiting",
}


async def body_of(stream: AsyncIterator[bytes], desk: Desk) -> bytes:
    """A request's body, given up as soon as it is too large."""
    data = bytearray()
    async for chunk in stream:
        data += chunk
        desk.check_bytes(len(data))
    return bytes(data)


# For people


def page(desk: Desk) -> Any:
    """The gradio page: a picture in, every model's translation of it under a slider, and where the model looked."""
    import gradio as gr

    systems = [translator.system for translator in desk.translators.values()]
    labels = {label: d for d, label in DIRECTIONS.items() if any(d in system.directions for system in systems)}

    def translate(path: str | None, label: str, style: float) -> list[Any]:
        """Two values a model: source and translation; attention. Nothing for a model that does not go that way."""
        made: dict[str, Made] = {}
        if path is not None:
            way = labels[label]
            able = [name for name, t in desk.translators.items() if way in t.system.directions]
            try:
                found = desk.translate(Path(path).read_bytes(), able, way, style=int(style))
            except RefusalError as refusal:
                raise gr.Error(refusal.sentence, print_exception=False) from None
            made = dict(zip(able, found, strict=True))
        values: list[Any] = []
        for one in map(made.get, desk.translators):
            attention = one and one.attention
            values += [one and (one.source, one.picture), gr.update(value=attention, visible=attention is not None)]
        return values

    with gr.Blocks(title="ugatit", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown("# Translate a picture\nDrop a picture, paste one, or take one with the camera.")
        with gr.Row():
            source = gr.Image(
                label="Picture",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                height=320,
                elem_id="source",
            )
            # The file as it is: gradio would open it, and has no good words for what is not a picture.
            source.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
            with gr.Column():
                direction = gr.Radio(list(labels), value=next(iter(labels)), label="Direction", elem_id="direction")
                style = gr.Number(0, label="Style", precision=0, visible=any(system.styles for system in systems))
                again = gr.Button("Translate", variant="primary")
        outputs: list[Any] = []
        with gr.Row():
            for number, name in enumerate(desk.translators):
                with gr.Column(min_width=280):
                    outputs += [
                        gr.ImageSlider(
                            label=f"{name}: source, translation",
                            format="png",
                            interactive=False,
                            elem_id=f"made-{number}",
                        ),
                        gr.Image(
                            label=f"{name}: where it looks",
                            format="png",
                            buttons=["download", "fullscreen"],
                            visible=False,
                        ),
                    ]
        gr.on(
            [source.change, direction.change, style.change, again.click],
            translate,
            [source, direction, style],
            outputs,
            concurrency_limit=1,
            api_visibility="private",
        )
    return blocks.queue(max_size=desk.config.queue)


def application(config: ServeConfig) -> Any:
    """Endpoint and page as one ASGI application.

    Raises:
        UserError: a model cannot be loaded, or gradio is not installed.
    """
    gr = package("gradio", "web")
    desk = Desk(load_models(config), config)
    return gr.mount_gradio_app(
        endpoint(desk),
        page(desk),
        path="/",
        server_name=config.host,
        server_port=config.port,
        max_file_size=int(config.max_mib * 2**20),
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),  # of the visitor's machine
        footer_links=[],
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address.

    Raises:
        UserError: it is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise UserError(f"--host {host} --port {port} cannot be used ({error.strerror}): give another.") from None
    return found


def run(app: Any, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve an application until Ctrl-C.

    Raises:
        UserError: the address cannot be used.
    """
    import uvicorn

    with listen(host, port) as bound:
        say(f"http://{host}:{bound.getsockname()[1]}/  (Ctrl-C ends it)")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])
