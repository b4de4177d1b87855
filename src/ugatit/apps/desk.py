"""The desk of `ugatit serve`: its models translate what is brought in turn, and what is too much is turned away."""

import asyncio
import io
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import torch
from PIL import Image
from pydantic import Field
from tyro.conf import Positional

from ugatit.apps.guard import GoneError, RefusalError, check_size
from ugatit.data.reading import UPLOADS, NoPictureError, TooLargeError, has_pages
from ugatit.evaluation.inspection import held_bytes, translation_cost
from ugatit.io.errors import UserError
from ugatit.io.sheet import overlay, to_picture
from ugatit.systems.base import Direction, System, Translation, faces_of
from ugatit.translation.faces import Finder, How, all_laid_back, face_finder, looks_laid_back, translate_cuts
from ugatit.translation.files import out_of_memory
from ugatit.translation.hub import model_name
from ugatit.translation.translator import Precision, Size, Translator, tile_starts

T = TypeVar("T")
UNTOLD = "The model does not tell how its training pictures were cut: faces have the usual margin."
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

    @property
    def max_bytes(self) -> int:
        """Bytes of the largest upload."""
        return int(self.max_mib * 2**20)


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
        check_size(len(data), self.config.max_bytes)
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
