"""Reading videos: their frames as players show them, with the times of a clock that only goes on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ugatit.data.reading import plain
from ugatit.data.samples import check_shape
from ugatit.io.errors import package
from ugatit.io.files import open_regular, printable
from ugatit.io.terminal import say

if TYPE_CHECKING:
    import av

# What a video file may be. FFmpeg goes by the contents and would also open lists of other files and addresses.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,apng,mxf,nut,dv,h264,hevc,ivf,av1,"
    "obu,rm,swf,vc1,y4m,yuv4mpegpipe,wtv,nsv,m4v"
)
# FFmpeg's numbers of how colours are coded: as RGB, with the matrices of HD and SD, and not told; of the curves that
# reach beyond white, PQ and HLG; and of the usual one.
RGB, HD, SD, UNTOLD = 0, 1, 6, 2
HDR, USUAL = (16, 18), 1
# To ordinary colours: what is brighter than white is made darker, and what is more colourful than sRGB paler.
TO_USUAL = "out_primaries=bt709:out_transfer=iec61966-2-1:intent=perceptual"
LONG_STEP = 4 * 3600  # seconds from one frame or sound to the next that no film has
MOST_DAMAGED = 1000  # parts of a video, before it is given up
SAFE = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}


class Colours(NamedTuple):
    """How the source describes its colours, in FFmpeg's numbers, and how much wider than high its pixels are."""

    colorspace: int
    color_range: int
    color_primaries: int
    color_trc: int
    aspect: Fraction


@contextmanager
def opened(path: Path) -> Iterator["av.container.InputContainer"]:
    """A video file to read.

    Raises:
        ValueError: it is no video, or has no pictures; the message is a phrase that says which.
        UserError: PyAV is not installed.
    """
    av = package("av", "video")
    open_regular(path).close()
    try:
        # A relative name could pass for an address.
        container = av.open(str(path.absolute()), options=SAFE, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    with container:
        film = film_of(container)
        if film.width * film.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(f"is too large ({film.width} x {film.height} pixels)")
        film.thread_type = "AUTO"
        yield container


def film_of(container: "av.container.InputContainer") -> "av.VideoStream":
    """The pictures of a video; its cover, if it has one, is no film.

    Raises:
        ValueError: it has none.
    """
    from av.stream import Disposition

    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not films:
        raise ValueError("has no pictures")
    if films[0].codec_context is None:
        raise ValueError("is coded in a way that FFmpeg does not read")
    return films[0]


class ToneMap:
    """What brings the frames of one film from a high dynamic range, if they have it, to the one that pictures have."""

    def __init__(self) -> None:
        self.graph: av.filter.Graph | None = None
        self.made_for: tuple[int, int, str] | None = None

    def __call__(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """The frame in sRGB; as it is if it has no high dynamic range."""
        if int(frame.color_trc) not in HDR:
            return frame
        shape = frame.width, frame.height, frame.format.name
        if self.graph is None or self.made_for != shape:
            self.graph, self.made_for = tone_mapping(*shape), shape
        self.graph.vpush(frame)
        return self.graph.vpull()


def tone_mapping(width: int, height: int, kind: str) -> "av.filter.Graph":
    """FFmpeg's filters that bring frames of that size and pixel format to sRGB."""
    graph = package("av", "video").filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=width, height=height, format=kind, time_base=Fraction(1, 25)),
        graph.add("scale", TO_USUAL),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    return graph


def usual_matrix(width: int, height: int) -> int:
    """FFmpeg's number of the matrix that players take for a film of that size which does not tell its own."""
    return HD if width >= 1280 or height > 576 else SD


def upright(frame: "av.VideoFrame", size: tuple[int, int] | None = None, tone: ToneMap | None = None) -> np.ndarray:
    """A frame as H x W x 3 in 8 bits, brought to sRGB by ``tone`` if given, scaled to ``size`` (width, height) if
    given, then turned and mirrored as players do it."""
    width, height = size or (None, None)
    clear = any(component.is_alpha for component in frame.format.components)
    seen = tone(frame) if tone else frame
    pixels = seen.to_ndarray(
        format="rgba" if clear else "rgb24",
        width=width,
        height=height,
        src_colorspace=usual_matrix(frame.width, frame.height) if int(seen.colorspace) == UNTOLD else None,
        interpolation=exact(),
    )
    if clear:  # on white, as pictures are
        pixels = np.asarray(plain(Image.fromarray(pixels, "RGBA"), 3))
    return np.rot90(pixels[::-1] if is_mirrored(frame) else pixels, round(frame.rotation / 90))


def is_mirrored(frame: "av.VideoFrame") -> bool:
    """Whether players mirror a frame beside turning it."""
    sides: list[Any] = list(frame.side_data)
    matrices = [np.frombuffer(bytes(side), np.int32) for side in sides if side.type.name == "DISPLAYMATRIX"]
    return any(float(a) * float(d) < float(b) * float(c) for a, b, _, c, d, *_ in matrices)


def exact() -> int:
    """How FFmpeg shall convert colours: rounded, where by default it cuts off, which darkens."""
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def time_base(container: "av.container.InputContainer") -> Fraction:
    """Seconds that the times of a video's frames count."""
    return Fraction(film_of(container).time_base or Fraction(1, 1000))


def frame_rate(container: "av.container.InputContainer") -> Fraction:
    """Frames a second, 25 if the file does not tell."""
    film = film_of(container)
    return Fraction(film.average_rate or film.guessed_rate or 25)


def beginning(container: "av.container.InputContainer") -> Fraction:
    """Seconds that a video's clock shows at its start where that means nothing, as in broadcasts; else 0."""
    broadcast = {"mpegts", "mpeg", "wtv"}.intersection(container.format.name.split(","))
    return Fraction(container.start_time or 0, 1_000_000) if broadcast else Fraction(0)


class FrameClock:
    """The times of a video's frames in the order that they are shown in, whatever its file says.

    Args:
        second: in units of the video's time base, as are all times.
        tick: from one frame to the next, as far as is known; then the shortest there was.
        zero: what counts as 0.
    """

    def __init__(self, second: int, tick: int, zero: int):
        self.second, self.tick, self.zero = second, tick, zero
        self.last: int | None = None
        self.before: dict[str, int] = {}
        self.faults = {"pts": 0, "dts": 0}

    def was_set(self, step: int) -> bool:
        """Whether a step of that length means that the clock was set, back or, as FFmpeg has it of broadcasts, on."""
        return step < -self.second or step > LONG_STEP * self.second

    def time(self, frame: "av.VideoFrame") -> int:
        """When the next frame is shown, later than the last one.

        Some files have times of showing that go to and fro; then the times of decoding, which FFmpeg hands on in the
        order of the pictures, are right.
        """
        for name in self.faults:
            value = getattr(frame, name)
            if value is not None:
                self.faults[name] += value <= self.before.get(name, value - 1)
                self.before[name] = value
        shown = frame.pts is not None and (frame.dts is None or self.faults["pts"] <= self.faults["dts"])
        found = frame.pts if shown else frame.dts
        if self.last is not None and found is not None and self.was_set(found - self.zero - self.last):
            self.zero = found - self.last - self.tick
        time = None if found is None else found - self.zero
        if time is None or (self.last is not None and time < self.last):
            time = 0 if self.last is None else self.last + self.tick
        elif self.last is not None and time == self.last:  # for a moment, that those which follow keep their times
            time += max(1, self.tick // 2)
        elif self.last is not None:
            self.tick = min(self.tick, time - self.last)
        self.last = time
        return time


def frames(container: "av.container.InputContainer") -> Iterator[tuple[int, Image.Image]]:
    """All frames of a video, with their times in units of its time base; all as large as the first.

    What is damaged is passed over, as players do, and how much of it is said.
    """
    av, film, base = package("av", "video"), film_of(container), time_base(container)
    tick, zero = max(1, round(1 / frame_rate(container) / base)), round(beginning(container) / base)
    clock = FrameClock(round(1 / base), tick, zero)
    size: tuple[int, int] | None = None
    tone, damaged, packets = ToneMap(), 0, container.demux(film)
    while True:
        try:
            packet = next(packets, None)
            decoded = packet.decode() if packet else []
            if decoded and size is None:
                size = decoded[0].width, decoded[0].height
                check_shape(*size)
            shown = [(frame, upright(frame, size, tone)) for frame in decoded]
        except av.FFmpegError:
            damaged += 1
            if damaged > MOST_DAMAGED:
                break
            continue
        if packet is None:
            break
        for frame, pixels in shown:
            yield clock.time(frame), Image.fromarray(pixels)
    if damaged:
        say(f"{damaged} damaged parts of {printable(Path(container.name).name)} are left out", "yellow")


def first_frame(container: "av.container.InputContainer") -> "av.VideoFrame | None":
    """The first frame that can be decoded; the container is of no other use then."""
    av = package("av", "video")
    try:
        return next(container.decode(film_of(container)), None)
    except av.FFmpegError:
        return None


def look_of(container: "av.container.InputContainer") -> Colours:
    """The colours that a video's translation has, which are its own where 8 bits with a matrix can have them, and the
    shape of its pixels when they are turned as players turn them; a frame is decoded for that, so the container is of
    no other use then."""
    film = film_of(container)
    context = film.codec_context
    aspect = Fraction(film.sample_aspect_ratio or context.sample_aspect_ratio or 1)
    told = Colours(
        colorspace=int(context.colorspace or 0),
        color_range=int(context.color_range or 0),
        color_primaries=int(context.color_primaries or 0),
        color_trc=int(context.color_trc or 0),
        aspect=aspect,
    )
    if told.color_trc in HDR:
        told = told._replace(colorspace=HD, color_primaries=USUAL, color_trc=USUAL)
    usual = usual_matrix(context.width, context.height)
    if told.colorspace == RGB or (told.colorspace == UNTOLD and usual == HD):
        told = told._replace(colorspace=usual)
    first = first_frame(container)  # only now, as some decoders put their own colours where none are told
    lying = first is not None and round(first.rotation / 90) % 2 == 1
    return told._replace(aspect=1 / aspect) if lying else told


def count_frames(container: "av.container.InputContainer") -> int | None:
    """About how many frames there are, if the file tells."""
    stream = film_of(container)
    if stream.frames:
        return stream.frames
    seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else None
    if seconds is None and container.duration:
        seconds = Fraction(container.duration, 1_000_000)
    return round(seconds * stream.average_rate) if seconds and stream.average_rate else None
