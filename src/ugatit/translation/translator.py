"""The `Translator` of the Python interface: pictures of any size, with a trained model."""

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import groupby, product
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ugatit.data.metadata import orientation_of
from ugatit.data.reading import read_samples, sampled
from ugatit.data.samples import BandsError, ShapeError, UnscaledError, Whole, check_shape, to_tensor
from ugatit.io.errors import UserError, words_of
from ugatit.io.files import writing
from ugatit.nn.precision import tf32
from ugatit.systems.base import Direction, Range, Samples, System, Translation, samples_of
from ugatit.translation.folder import load_model, save_model, saved_step
from ugatit.translation.hub import find_model, push
from ugatit.translation.results import as_image

Size = Literal["model", "keep", "tiles"]
Precision = Literal["no", "bf16", "fp16"]
Translate = Callable[[Tensor], Translation]
T = TypeVar("T")
Images = TypeVar("Images", Image.Image, list[Image.Image], Tensor)
BEYOND = 2  # what numbers may reach of a tensor that is meant to be in [-1, 1], as some ways to resize leave it
LEAST = 32  # pixels on a side that the networks need
HELD = 2**27  # samples of pictures that are translated at once
TILES = 8  # that a card translates at once; a processor takes them one by one, which needs less memory
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Translator:
    """A trained model, ready to translate.

    >>> translator = Translator.load("runs/cat2dog-light/model")
    >>> translator(Image.open("cat.jpg"), direction="a2b").save("dog.png")
    """

    def __init__(self, system: System, device: torch.device | str | None = None, precision: Precision = "no"):
        self.system, self.device, self.precision = system.eval(), find_device(device), precision
        if precision not in get_args(Precision):
            raise UserError(f"`precision={precision}` is not known: use {', '.join(get_args(Precision))}.")
        self.reference: Image.Image | Tensor | None = None  # whose style translations get
        self.generator = torch.Generator().manual_seed(0)  # of random styles
        self.own_range: Range | None = None
        self.floats: Range | None = None  # of floats and 32 bits that are translated, where there is no other
        self.folder: Path | None = None  # that it was loaded from
        self.kept: Tensor | None = None  # the one random style of all pictures, 1 x styles
        for part in system.children():
            if not any(tensor.is_meta for tensor in part.state_dict().values()):  # what was not loaded
                part.to(self.device)

    @classmethod
    def load(
        cls,
        path_or_hub_id: str | Path,
        device: torch.device | str | None = None,
        with_training: bool = False,
        precision: Precision = "no",
        revision: str | None = None,
        token: str | None = None,
    ) -> "Translator":
        """Load a model folder, a model that comes with the package by its name ("face2anime", "cat2dog"), or one of the
        Hugging Face hub by its id ("user/name").

        Args:
            path_or_hub_id: where it is.
            device: to translate on; the accelerator if there is one, else the CPU, if not given.
            with_training: also load the networks that only training needs, if the model has them.
            precision: "bf16" or "fp16" computes most layers in half precision, which is faster on cards; "no" in
                float32.
            revision: a branch, tag or commit of a model of the hub; "user/name@REVISION" says the same.
            token: of the hub, for private models; that of this machine's log-in if not given.

        Raises:
            UserError: there is no such model, or it is damaged; or an argument is not known.
        """
        folder = find_model(path_or_hub_id, revision, token)
        with_training = with_training and (folder / "training.safetensors").exists()
        translator = cls(load_model(folder, with_training), device, precision)
        translator.folder = folder
        return translator

    from_pretrained = load  # what the hub's libraries call it

    def __call__(
        self, images: Images, direction: Direction = "a2b", *, size: Size | None = None, batch: int = 8
    ) -> Images:
        """Translate a picture, a list of pictures, or a tensor; the result is of the same kind.

        Args:
            images: Pillow pictures of any mode (of floats and 32 bits with a `range`), whose translations have 8 bits;
                or N x channels x H x W in [-1, 1].
            direction: "a2b" or "b2a".
            size: "model" resizes to what the model was trained at (a light model keeps the proportions, a full one sees
                a squeezed square, and its answer is stretched back); "keep" translates at the picture's own size
                (light models only); "tiles" too, in overlapping tiles of the model's size. If not given: "model" for
                pictures; for tensors "keep" if the model can, else "model".
            batch: how many pictures of one size are translated at once.

        Raises:
            UserError: the model cannot do this direction or size, or what is given has another type, shape or bands, or
                numbers far from [-1, 1].
        """
        self.check_direction(direction)
        if isinstance(batch, bool) or not isinstance(batch, Integral) or batch < 1:
            raise UserError(f"`batch={batch!r}`: give a whole number, 1 or more.")
        if not isinstance(images, Tensor | Image.Image | list):
            raise UserError(
                f"`images` is a {type(images).__name__}: give a picture (Image.open(path)), a list, or a tensor."
            )
        if isinstance(images, Tensor):
            size = size or ("keep" if self.system.any_size else "model")
            self.check_tensor(images, direction, "images")
            if not images.detach().abs().max() <= BEYOND:
                raise UserError("`images` has numbers far from [-1, 1], or none: divide bytes by 127.5 and subtract 1.")
            return torch.cat([self.translate(part, direction, size).image for part in images.split(int(batch))])
        if isinstance(images, Image.Image):
            return self([images], direction, size=size, batch=batch)[0]
        if odd := [type(image).__name__ for image in images if not isinstance(image, Image.Image)]:
            raise UserError(f"`images` has a {odd[0]}: give pictures (Image.open(path)), or one tensor.")
        tensors = (self.to_tensor(image, direction) for image in images)
        return [as_image(made.image[0]) for made in self.stream(tensors, direction, size or "model", batch)]

    def stream(self, pictures: Iterable[Tensor], direction: Direction, size: Size, batch: int) -> Iterator[Translation]:
        """Translate pictures, each 1 x channels x H x W, one after the other; neighbours of one shape share a batch."""
        for shape, alike in groupby(pictures, lambda x: x.shape[1:]):
            for group in batched(alike, at_once(shape, batch)):
                yield from self.translate(torch.cat(group), direction, size).each()

    @tf32(False)
    @torch.inference_mode()
    def translate(self, x: Tensor, direction: Direction, size: Size) -> Translation:
        """Translate a batch, N x channels x H x W in [-1, 1]; the result has the device and type of ``x``.

        Raises:
            UserError: the model cannot do this direction or size, or ``x`` has another shape or type.
        """
        self.check_direction(direction)
        self.check_tensor(x, direction, "x")
        if size not in get_args(Size):
            raise UserError(f"`size={size}` is not known: use {', '.join(get_args(Size))}.")
        if size == "keep" and not self.system.any_size:
            raise UserError(
                f'This model only translates {self.side} x {self.side} pictures: use `size="model"` or `size="tiles"`.'
            )
        forward = {"model": self.at_model_size, "keep": self.padded, "tiles": self.in_tiles}[size]
        half = HALF.get(self.precision)
        with torch.autocast(self.device.type, half) if half else nullcontext():
            made = forward(x.to(self.device, torch.float32), self.one_way(direction, len(x)))
        return made.map(lambda part: part.to(x))

    def at_size(self, x: Tensor, direction: Direction) -> Translation:
        """Translate a batch at the size that the model was trained at."""
        return self.translate(x, direction, "model")

    def one_way(self, direction: Direction, count: int) -> Translate:
        """What translates ``count`` pictures, or several parts of each, one after the other, always in the same style
        if the system has styles."""
        translate: Callable[..., Translation] = self.system.translate
        if not self.system.styles:
            return partial(translate, direction=direction)
        if self.reference is None:
            styles = self.draw_styles(count).to(self.device)
        else:
            given = self.reference
            target = self.samples(direction[-1])
            example = given if isinstance(given, Tensor) else self.as_tensor(given, target)
            if example.shape[:2] != (1, target.channels):
                shape = " x ".join(map(str, example.shape))
                raise UserError(f"`style` is {shape}, not 1 x {target.channels} x H x W: give one picture.")
            example = resize(example.to(self.device, torch.float32), (self.side, self.side))
            styles = self.system.style_of(example, direction)
        return lambda x: translate(x, direction, style=styles.repeat(len(x) // len(styles), 1))

    @property
    def random(self) -> bool:
        """Whether every picture gets a random style."""
        return bool(self.system.styles) and self.reference is None

    def draw_styles(self, count: int) -> Tensor:
        """Random styles for ``count`` pictures, count x styles."""
        if self.kept is not None:
            return self.kept.expand(count, -1)
        return torch.randn(count, self.system.styles, generator=self.generator)

    def keep_style(self) -> None:
        """Give every picture from now on the random style that the next one would get, if styles are random; for the
        pictures of one video."""
        if self.system.styles and self.reference is None:
            self.kept = None
            self.kept = self.draw_styles(1)

    def set_style(self, style: Image.Image | Tensor | int) -> None:
        """How a model with styles translates from now on.

        Args:
            style: a picture of the target domain (1 x channels x H x W in [-1, 1] if it is a tensor), whose style all
                translations get; or the seed of random styles, of which every picture gets another. A new translator
                has the seed 0.

        Raises:
            UserError: the model has no styles, or this is none.
        """
        if isinstance(style, Integral) and not isinstance(style, bool):
            style = int(style)  # NumPy has its own
        if isinstance(style, bool) or not isinstance(style, Image.Image | Tensor | int):
            kind = type(style).__name__
            raise UserError(f"`style` is a {kind}: give a picture (Image.open(path)), a tensor, or a whole number.")
        if isinstance(style, int) and not 0 <= style < 2**63:
            raise UserError(f"`style={style}`: give a number from 0 up, below {2**63}.")
        if isinstance(style, Tensor) and (style.ndim != 4 or not style.is_floating_point()):
            raise UserError("`style` is a tensor, but not 1 x channels x H x W of floats in [-1, 1]: give such a one.")
        if not self.system.styles:
            raise UserError("This model has one translation for a picture: leave out `style` and `samples`.")
        self.reference = None if isinstance(style, int) else style
        self.kept = None
        self.generator.manual_seed(style if isinstance(style, int) else 0)

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are translated in one batch."""
        return 1 if self.device.type == "cpu" else TILES

    @property
    def side(self) -> int:
        """Side in pixels of the pictures that the model was trained on."""
        return self.system.config.size

    @property
    def range(self) -> Range | None:
        """The samples of what is translated that become black and white, instead of the model's; None if these count.

        Raises:
            UserError: it was set to something else.
        """
        return self.own_range

    @range.setter
    def range(self, given: Range | None) -> None:
        try:
            self.own_range = TypeAdapter(Range | None).validate_python(given)
        except ValidationError:
            raise UserError(f"`range={given!r}`: give two numbers, of which the second is larger, or None.") from None

    def samples(self, domain: str) -> Samples:
        """How the model has pictures of domain "a" or "b": their channels, and the samples that are -1 and 1."""
        return samples_of(self.system.config, domain)._replace(floats=self.floats)

    def read_as(self, direction: Direction) -> Samples:
        """How the pictures that are translated that way are read: as the model has them, or by `range`."""
        own = self.samples(direction[0])
        return own._replace(range=self.range) if self.range else own

    def written_as(self, direction: Direction) -> Samples:
        """How translations that way are written: as the model has that domain, or else by `range`."""
        own = self.samples(direction[-1])
        return own if own.range else own._replace(range=self.range)

    def to_tensor(self, image: Image.Image, direction: Direction = "a2b") -> Tensor:
        """A picture of any mode, to be translated that way, as 1 x channels x H x W in [-1, 1]; upright and in sRGB, as
        its metadata says. Errors are those of `as_tensor`."""
        return self.as_tensor(image, self.read_as(direction))

    def as_tensor(self, image: Image.Image, samples: Samples) -> Tensor:
        """A picture of any mode as 1 x channels x H x W in [-1, 1].

        Raises:
            UserError: it has other bands than the model takes, is too small or too long, cannot be read, or its samples
                do not tell what is black and what is white, and there is no range for them.
        """
        try:
            check_shape(*image.size)
            picture = sampled(Whole(image, orientation_of(image)), samples)
        except UnscaledError as error:
            raise UserError(f"The picture {error}: set the translator's `range`, to (0, 1) for example.") from None
        except (BandsError, ShapeError) as error:
            raise UserError(f"The picture {error}: give another.") from None
        except OSError as error:  # Pillow decodes it only now
            raise UserError(f"The picture cannot be read ({error}): give another.") from None
        return to_tensor(picture.pixels)[None]

    def read(self, source: Path | io.BytesIO, direction: Direction, **options: Any) -> Tensor:
        """A file to be translated that way, as 1 x channels x H x W in [-1, 1]; options and errors are those of
        `read_samples`."""
        return to_tensor(read_samples(source, self.read_as(direction), **options).pixels)[None]

    def read_example(self, source: Path, direction: Direction) -> Tensor:
        """A file whose style translations that way are to have, as `read` reads one; it is of the target domain, so the
        sources' `range` does not count."""
        return to_tensor(read_samples(source, self.samples(direction[-1])).pixels)[None]

    def check_direction(self, direction: str) -> None:
        """Raises UserError if the model does not translate that way."""
        if direction not in self.system.directions:
            ways = " or ".join(self.system.directions)
            raise UserError(f"This model does not translate `direction={direction}`: use {ways}.")

    def check_tensor(self, x: Tensor, direction: Direction, name: str) -> None:
        """Raises UserError if what is given by that name is no batch of the source domain's pictures."""
        channels = self.samples(direction[0]).channels
        if not isinstance(x, Tensor):
            raise UserError(f"`{name}` is a {type(x).__name__}: give a tensor.")
        if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape or not x.is_floating_point():
            raise UserError(
                f"`{name}` is a {x.dtype} tensor of shape {tuple(x.shape)}: "
                f"give floats of N x {channels} x H x W in [-1, 1]."
            )

    # Sizes

    def at_model_size(self, x: Tensor, translate: Translate) -> Translation:
        """Translate with the shorter side resized to the model's; by networks of one size in a square of it, which is
        resized to the picture's shape then."""
        height, width = x.shape[2:]
        scale = self.side / min(height, width)
        target = max(self.side, round(height * scale)), max(self.side, round(width * scale))
        if target == (height, width) == (self.side, self.side):
            return translate(x)
        if self.system.any_size:
            return self.padded(resize(x, target), translate)
        made = translate(resize(x, (self.side, self.side)))
        return Translation(resize(made.image, target), made.heatmap)

    def padded(self, x: Tensor, translate: Translate) -> Translation:
        """Translate at the picture's own size: padded on the right and below to a multiple of 4, then cropped back."""
        height, width = x.shape[2:]
        down, right = (max(LEAST, -(-n // 4) * 4) - n for n in (height, width))
        made = translate(F.pad(x, (0, right, 0, down), "replicate"))
        heat = made.heatmap
        if heat is not None and (down or right):
            step = (height + down) // heat.shape[2]  # pixels of the picture to one of the map
            heat = heat[:, :, : -(-height // step), : -(-width // step)]
        return Translation(made.image[:, :, :height, :width], heat)

    def in_tiles(self, x: Tensor, translate: Translate) -> Translation:
        """Translate in tiles of the model's size, a quarter of which overlaps, and blend them linearly."""
        height, width = x.shape[2:]
        side = self.side
        x = F.pad(x, (0, max(0, side - width), 0, max(0, side - height)), "replicate")
        ramp = torch.linspace(-1, 1, side + 2, device=x.device)[1:-1].abs().neg().add(1).mul(4).clamp(max=1)
        weight = ramp[:, None] * ramp  # falls to 0 over the overlap
        total = torch.zeros_like(x[:1, :1])
        image: Tensor | None = None
        heat = torch.zeros_like(x[:, :1])
        found_heat = False
        starts = product(tile_starts(x.shape[2], side), tile_starts(x.shape[3], side))
        windows = [(..., slice(top, top + side), slice(left, left + side)) for top, left in starts]
        for group in batched(windows, max(1, self.tiles_at_once // len(x))):
            made = translate(torch.cat([x[window] for window in group]))
            if image is None:
                image = x.new_zeros(len(x), made.image.shape[1], *x.shape[2:])
            for window, part in zip(group, made.each(len(x)), strict=True):
                image[window] += part.image * weight
                total[window] += weight
                if part.heatmap is not None:
                    found_heat = True
                    heat[window] += F.interpolate(part.heatmap, size=(side, side), mode="bilinear") * weight
        assert image is not None  # there is at least one tile
        image, heat = ((part / total)[..., :height, :width] for part in (image, heat))
        return Translation(image, heat if found_heat else None)

    # Sharing

    def save(self, folder: str | Path) -> None:
        """Write a model folder with what translation needs.

        Raises:
            UserError: it cannot be written.
        """
        step = saved_step(self.folder) if self.folder else None
        with writing(Path(folder), "give another folder"):
            save_model(self.system, Path(folder), step or 0, with_training=False)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, revision: str | None = None
    ) -> str:
        """Upload the model to the Hugging Face hub, with the card and the sheet of the folder that it was loaded from.

        Args:
            repo_id: "user/name".
            private: whether others may not see it; as its owner's repositories are if not given.
            token: of the hub; that of this machine's log-in if not given.
            revision: the branch to upload to; the main branch if not given.

        Returns:
            Its address.

        Raises:
            UserError: the hub refuses.
        """
        return push(self.save, self.system, self.folder, repo_id, private, token, revision)


def find_device(name: torch.device | str | None) -> torch.device:
    """The device of that name; the accelerator if there is one, else the CPU, for None.

    Raises:
        UserError: it cannot be used here.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is not None and "LOCAL_RANK" in os.environ:  # one of several processes on this machine
        found = torch.device(found.type, int(os.environ["LOCAL_RANK"]) % torch.accelerator.device_count())
    here = ["cpu", *([found.type] if found else [])]
    if name is not None and str(name).split(":")[0] not in here:
        raise UserError(
            f"`device={name}` cannot be used, as this machine has {' and '.join(here)}: leave it out, or give cpu."
        )
    try:
        device = torch.device(name or found or "cpu")
        torch.zeros(1, device=device).item()  # which what only looks like a device cannot do
    except (RuntimeError, AssertionError) as error:  # of which one not implemented is one
        raise UserError(f"`device={name}` cannot be used ({words_of(error)}): leave it out, or give cpu.") from None
    return device


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures, N x channels x H x W, at another height and width."""
    return F.interpolate(x, size=size, mode="bilinear", antialias=True)


def tile_starts(length: int, side: int) -> list[int]:
    """Where tiles begin along an axis: at least a quarter of each overlaps its neighbour, the last ends at the edge."""
    count = 1 + max(0, -(-(length - side) // (side - side // 4)))
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def at_once(shape: Sequence[int], most: int) -> int:
    """How many pictures of one shape, channels x H x W, are worked on at once, lest large ones take too much memory.

    It divides ``most``, so that processes which share pictures by so many put the same ones together.
    """
    fitting = HELD // max(1, math.prod(shape))  # damaged films tell no size
    return next((n for n in range(most, 1, -1) if most % n == 0 and n <= fitting), 1)


def batched(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Lists of up to ``count`` consecutive items."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch
