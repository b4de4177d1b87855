"""Translating the faces in a picture: each cut out as those of the training pictures were, and perhaps laid back."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from ugatit.data.faces import Cut, Detect, cut_of, cut_out, detector, lay_back
from ugatit.data.finding import DARK
from ugatit.data.reading import read_samples
from ugatit.data.samples import SHALLOW, to_tensor
from ugatit.io.errors import UserError
from ugatit.io.files import printable, real
from ugatit.io.sheet import overlay, save_picture, to_picture
from ugatit.io.terminal import say
from ugatit.systems.base import Direction, Faces, Translation, faces_of
from ugatit.translation.files import Job
from ugatit.translation.results import save_result
from ugatit.translation.translator import Size, Translator, resize

How = Literal["crop", "back"]
USUAL = Faces(align=True)  # where a model does not tell
NO_FACE = "holds no face that was found"


class Finder(NamedTuple):
    """What finds the faces of pictures, and how they are cut out."""

    detect: Detect
    faces: Faces

    def cuts(self, x: Tensor) -> list[Cut]:
        """The squares of the faces in a picture, channels x H x W in [-1, 1], the largest first."""
        picture = to_picture(x).convert("RGB")
        found = [cut_of(face, self.faces.margin, self.faces.align, picture.size) for face in self.detect(picture)]
        return sorted(found, key=lambda cut: -cut.side)


def face_finder(
    translator: Translator, direction: Direction, given: str | None = None, margin: float | None = None
) -> Finder:
    """What finds faces for a model and cuts them out as its training pictures were.

    Args:
        translator: the model.
        direction: to translate them in.
        given: instead of the model's, a detector as in `ugatit.data.faces.detector`.
        margin: instead of the model's, added to a face's square at every side, as a share of it.

    Raises:
        UserError: the model's pictures have other bands, or its detector is none of the known ones and none is given;
            or a package is missing.
    """
    channels = translator.samples(direction[0]).channels
    if channels not in (1, 3):
        raise UserError(f"Faces are found in grey and colour pictures, and this model's have {channels} channels.")
    faces = faces_of(translator.system.config, direction[0]) or USUAL
    if given is None and faces.detector == "file":
        raise UserError("This model's faces were found by a file of its maker's: give `detector`, photo for example.")
    if given is not None and faces.align and Path(given).suffix == ".xml":
        raise UserError(
            f"`detector={given}` finds no eyes, by which this model's faces are turned: "
            "give photo, drawn or the file of YuNet."
        )
    detect = detector(given or faces.detector, "detector")
    if detect is None:
        raise UserError("`detector=none` finds no faces: give photo, drawn, or a cascade (.xml) or YuNet (.onnx).")
    return Finder(detect, faces if margin is None else Faces(faces.detector, margin, faces.align))


class Made(NamedTuple):
    """A face, and what became of it."""

    cut: Cut
    source: Tensor  # 1 x channels x side x side, as the networks saw it
    made: Translation


def translate_cuts(
    translate: Callable[[Tensor], Translation], x: Tensor, cuts: Iterable[Cut], side: int | None
) -> Iterator[Made]:
    """Translate squares of a picture.

    Args:
        translate: one of them, 1 x channels x side x side in [-1, 1].
        x: the picture, channels x H x W in [-1, 1].
        cuts: the squares.
        side: in pixels, that they are resized to; each keeps its own if it is None.
    """
    for cut in cuts:
        face = cut_out(x, cut)[None]
        if side is not None:
            face = resize(face, (side, side))
        yield Made(cut, face, translate(face))


def all_laid_back(x: Tensor, made: list[Made]) -> Tensor:
    """A picture, channels x H x W in [-1, 1], with its faces translated; smaller ones lie above larger ones.

    Raises:
        UserError: the domains' channels differ.
    """
    for one in made:
        if len(one.made.image[0]) != len(x):
            raise UserError("The model's results have other channels than its sources, which cannot be laid back.")
        x = lay_back(x, one.made.image[0], one.cut)
    return x


def looks(one: Made) -> Tensor:
    """A face with its heat map over it, 3 x side x side in [-1, 1]."""
    assert one.made.heatmap is not None
    return overlay(one.source, one.made.heatmap)[0]


def looks_laid_back(x: Tensor, made: list[Made]) -> Tensor:
    """A picture, channels x H x W in [-1, 1], with the heat maps over its faces, 3 x H x W."""
    x = x.expand(3, -1, -1)
    for one in made:
        x = lay_back(x, looks(one), one.cut)
    return x


def translate_face_file(
    translator: Translator,
    job: Job,
    direction: Direction,
    size: Size,
    finder: Finder,
    how: How,
    attention: bool = False,
    taken: Collection[Path] = (),
) -> list[Path]:
    """Translate the faces in a picture and write them.

    Args:
        translator: the model.
        job: from `plan_jobs`.
        direction, size: as `Translator.__call__` takes them.
        finder: from `face_finder`.
        how: "crop" writes each face, the largest under the job's name and others as NAME.face2, NAME.face3 and so on;
            "back" writes the picture with the faces laid back into it.
        attention: also write the heat map over what was written (Figure 2).
        taken: files that are others' results or sources, and are not written.

    Returns:
        What was written besides the job's own results.

    Raises:
        ValueError: the picture cannot be read or holds no face; the message is a phrase that says so.
        UserError: the model has no attention maps, or its results cannot be laid back.
        OSError: the results cannot be written.
    """
    origin, target = translator.read_as(direction), translator.written_as(direction)
    read = read_samples(job.source, origin)
    x = to_tensor(read.pixels)
    translate = partial(translator.translate, direction=direction, size=size)
    made = list(translate_cuts(translate, x, finder.cuts(x), translator.side if size == "model" else None))
    if not made and read.extremes()[1] < DARK:
        raise ValueError(
            f"{NO_FACE}, and is nearly black as it is read: tell which samples are black and white, `range`"
        )
    if not made:
        raise ValueError(NO_FACE)
    if read.lost:
        say(f"1 picture {SHALLOW}: {printable(str(job.source))}", "yellow")
    if attention and made[0].made.heatmap is None:
        raise UserError("This model has no attention maps: leave out `attention`.")
    if how == "back":
        save_result(all_laid_back(x, made), job.target, read.kind, target)
        if attention:
            save_picture(to_picture(looks_laid_back(x, made)), job.attention)
        return []
    further = []
    for number, one in enumerate(made, 1):
        further.append(numbered(job.target, number, taken))
        save_result(one.made.image[0], further[-1], read.kind, target)
        if attention:
            further.append(numbered(job.attention, number, taken))
            save_picture(to_picture(looks(one)), further[-1])
    return [path for path in further if path not in (job.target, job.attention)]


def numbered(path: Path, number: int, taken: Collection[Path]) -> Path:
    """The file of the first face, or of a further one; NAME.face2.face2 and so on where that name is taken."""
    found = path
    while number > 1 and (found == path or real(found) in taken):
        found = found.with_stem(f"{found.stem}.face{number}")
    return found
