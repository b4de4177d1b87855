"""Videos: every frame translated, sound, timing and colours kept, in constant memory, resumable after a kill.

Translated frames go into short pieces beside the result; a piece is there only when it is whole, so after a kill the
next one is where work goes on. The last step joins pieces and sound without coding either again.
"""

import heapq
import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ugatit.data.reading import plain
from ugatit.io.errors import UserError, package
from ugatit.io.files import atomic_file, open_regular, writing
from ugatit.io.sheet import to_picture
from ugatit.systems.base import Direction
from ugatit.translation.translator import Size, Translator

if TYPE_CHECKING:
    import av

PIECE = 64  # frames
# H.264 without frames that wait for later ones, so that pieces can be joined packet by packet.
OPTIONS = {"crf": "18", "preset": "medium", "bf": "0"}
# What a video file may be. FFmpeg goes by the contents and would also open lists of other files and addresses.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,apng,mxf,nut,dv,h264,hevc,ivf,av1,"
    "obu,rm,swf,vc1,y4m,yuv4mpegpipe,wtv,nsv,m4v"
)
SAFE = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}


class Look(NamedTuple):
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
        container = av.open(str(path.absolute()), options=SAFE)  # a relative name could pass for an address
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    with container:
        if not container.streams.video:
            raise ValueError("has no pictures")
        container.streams.video[0].thread_type = "AUTO"
        yield container


def upright(frame: "av.VideoFrame", size: tuple[int, int] | None = None) -> np.ndarray:
    """A frame as H x W x 3 in 8 bits, scaled to ``size`` (width, height) if given, then turned as players turn it."""
    width, height = size or (None, None)
    clear = any(component.is_alpha for component in frame.format.components)
    kind = "rgba" if clear else "rgb24"
    pixels = frame.to_ndarray(format=kind, width=width, height=height, interpolation=exact())
    if clear:  # on white, as pictures are
        pixels = np.asarray(plain(Image.fromarray(pixels, "RGBA"), 3))
    return np.rot90(pixels, round(frame.rotation / 90))


def exact() -> int:
    """How FFmpeg shall convert colours: rounded, where by default it cuts off, which darkens."""
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def time_base(container: "av.container.InputContainer") -> Fraction:
    """Seconds that the times of a video's frames count."""
    return Fraction(container.streams.video[0].time_base or Fraction(1, 1000))


def frame_rate(container: "av.container.InputContainer") -> Fraction:
    """Frames a second, 25 if the file does not tell."""
    return Fraction(container.streams.video[0].average_rate or 25)


def frames(container: "av.container.InputContainer") -> Iterator[tuple[int, Image.Image]]:
    """All frames of a video, with their times in units of its time base; all as large as the first.

    Raises:
        ValueError: it is damaged; the message is a phrase that says so.
    """
    av = package("av", "video")
    stream = container.streams.video[0]
    tick = 1 / frame_rate(container) / time_base(container)
    last: int | None = None
    size: tuple[int, int] | None = None
    coded = container.decode(stream)
    while True:
        try:
            frame = next(coded, None)
        except av.FFmpegError as error:
            raise ValueError(f"is damaged ({error.strerror})") from None
        if frame is None:
            return
        time = frame.pts if frame.pts is not None else round((last or 0) + tick)
        if last is not None and time <= last:
            continue  # damaged files repeat themselves
        last = time
        size = size or (frame.width, frame.height)
        yield time, Image.fromarray(upright(frame, size))


def look_of(container: "av.container.InputContainer") -> Look:
    """The colours of a video's pictures, and the shape of their pixels when they are turned as players turn them; a
    frame is decoded for that, so the container is of no other use then."""
    stream = container.streams.video[0]
    context = stream.codec_context
    aspect = Fraction(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1)
    return Look(
        colorspace=int(context.colorspace or 0),
        color_range=int(context.color_range or 0),
        color_primaries=int(context.color_primaries or 0),
        color_trc=int(context.color_trc or 0),
        aspect=1 / aspect if is_lying(container) else aspect,
    )


def is_lying(container: "av.container.InputContainer") -> bool:
    """Whether players turn the pictures by a quarter."""
    av = package("av", "video")
    try:
        first = next(container.decode(video=0), None)
    except av.FFmpegError:
        return False  # it is told when its frames are read
    return first is not None and round(first.rotation / 90) % 2 == 1


def count_frames(container: "av.container.InputContainer") -> int | None:
    """About how many frames there are, if the file tells."""
    stream = container.streams.video[0]
    if stream.frames:
        return stream.frames
    seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else None
    if seconds is None and container.duration:
        seconds = Fraction(container.duration, 1_000_000)
    return round(seconds * stream.average_rate) if seconds and stream.average_rate else None


def write_piece(made: Iterable[tuple[int, Tensor]], path: Path, base: Fraction, rate: Fraction, look: Look) -> int:
    """Write translated frames as an MP4 file that begins at 0, atomically; returns how many.

    Args:
        made: times in units of ``base``, and 1 x channels x H x W in [-1, 1].
        path: of the piece.
        base: seconds.
        rate: frames a second.
        look: of the source.
    """
    av = package("av", "video")
    with atomic_file(path) as temporary, av.open(str(temporary.absolute()), "w", format="mp4") as output:
        stream: Any = None
        first = count = 0
        for time, x in made:
            count += 1
            x = F.pad(x.expand(-1, 3, -1, -1), (0, x.shape[3] % 2, 0, x.shape[2] % 2), "replicate")  # H.264 wants even
            if stream is None:
                first = time
                stream = output.add_stream("libx264", rate=rate, options=OPTIONS)
                stream.height, stream.width = x.shape[2:]
                stream.pix_fmt = "yuv420p"
                stream.time_base = stream.codec_context.time_base = base
                for name, value in look._asdict().items():
                    setattr(stream.codec_context, name.replace("aspect", "sample_aspect_ratio"), value)
            frame = av.VideoFrame.from_image(to_picture(x[0])).reformat(
                format="yuv420p",
                dst_colorspace=look.colorspace,
                dst_color_range=look.color_range or 1,
                interpolation=exact(),
            )
            frame.pts, frame.time_base = time - first, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return count


def not_kept(source: Path, target: Path) -> list[str]:
    """What a video has and its translation will not have, as phrases; nothing for what is no video.

    Raises:
        UserError: PyAV is not installed.
    """
    lost = []
    try:
        with opened(source) as container:
            if container.streams.subtitles and not takes_subtitles(target):
                lost.append("its subtitles (a result called .mkv keeps them)")
            if others := [s.type for s in container.streams if s.type not in ("video", "audio", "subtitle")]:
                lost.append(f"its streams of the kind {', '.join(sorted(set(others)))}")
            if len(container.streams.video) > 1:
                lost.append("all but the first of its pictures' streams")
            components = container.streams.video[0].format.components
            if any(component.bits > 8 for component in components):
                lost.append("more than 8 bits of its colours")
            if any(component.is_alpha for component in components):
                lost.append("its transparency, which is laid on white")
    except (ValueError, AttributeError):  # it is told what it is when it is translated
        return lost
    return lost


def takes_subtitles(target: Path) -> bool:
    """Whether subtitles of any kind can be copied into such a file."""
    return target.suffix.lower() == ".mkv"


def last_duration(container: "av.container.InputContainer") -> int:
    """How long the last frame of a video is shown, in units of its time base."""
    tick = round(1 / frame_rate(container) / time_base(container))
    ends = [(packet.pts, packet.duration or tick) for packet in container.demux(video=0) if packet.pts is not None]
    return max(ends, default=(0, tick))[1]


def join(pieces: list[Path], source: "av.container.InputContainer", last: int, path: Path) -> None:
    """Write pieces one after the other with the source's sound, chapters and subtitles, atomically; nothing is coded
    again.

    Args:
        pieces: in order.
        source: whose sound, chapters and subtitles they are.
        last: how long the last frame is shown, in units of the source's time base.
        path: to write.

    Raises:
        av.FFmpegError: the sound does not fit into such a file.
    """
    av, base = package("av", "video"), time_base(source)
    kind = {".mkv": "matroska", ".mov": "mov"}.get(path.suffix.lower(), "mp4")
    with atomic_file(path) as temporary, av.open(str(temporary.absolute()), "w", format=kind) as output:
        with av.open(str(pieces[0].absolute())) as first:
            pictures = output.add_stream_from_template(first.streams.video[0])
        pictures.time_base = base
        copied = [*source.streams.audio, *(source.streams.subtitles if takes_subtitles(path) else ())]
        sounds = {stream.index: output.add_stream_from_template(stream) for stream in copied}
        output.set_chapters(source.chapters())

        def seen() -> Iterator[Any]:
            for piece in pieces:
                start = int(piece.stem.split("-", 1)[1])
                with av.open(str(piece.absolute())) as container:
                    for packet in container.demux(video=0):
                        if packet.pts is not None:
                            ticks = start + round(packet.pts * packet.time_base / base)
                            packet.pts = packet.dts = ticks
                            packet.time_base, packet.stream = base, pictures
                            yield packet

        def shown() -> Iterator[tuple[float, int, Any]]:
            """Each packet with its duration: until the next one."""
            packets = seen()
            packet = next(packets)
            for following in chain(packets, [None]):
                packet.duration = last if following is None else following.pts - packet.pts
                yield float(packet.pts * base), 0, packet
                packet = following

        def heard() -> Iterator[tuple[float, int, Any]]:
            for packet in source.demux(*copied) if copied else ():
                if packet.dts is not None:
                    at = float(packet.dts * packet.time_base)
                    packet.stream = sounds[packet.stream.index]
                    yield at, 1, packet

        for _, _, packet in heapq.merge(
            shown(), heard(), key=lambda entry: entry[:2]
        ):  # a muxer waits for what is late
            output.mux(packet)


def translate_video(
    translator: Translator,
    source: Path,
    target: Path,
    direction: Direction,
    size: Size,
    batch: int,
    settings: dict[str, Any],
) -> Iterator[tuple[int, int | None]]:
    """Translate a video; yields how many frames are done, and about how many there are.

    Args:
        translator: the model.
        source, target: files; the target is MP4, MOV or Matroska.
        direction, size, batch: as `Translator.__call__` takes them.
        settings: all that the pictures depend on; pieces that were made with others are not used.

    Raises:
        ValueError: the source cannot be read; the message is a phrase that says why.
        UserError: the target cannot be written.
    """
    av = package("av", "video")
    folder = target.with_name(f".{target.name}.pieces")
    with opened(source) as container:
        look = look_of(container)
    with opened(source) as container:
        total = count_frames(container)
        base, rate = time_base(container), frame_rate(container)
        with writing(target):
            pieces = known_pieces(folder, settings)
        translator.keep_style()
        done = PIECE * len(pieces)
        yield min(done, total or done), total
        times: deque[int] = deque()  # of the frames that are being translated

        def pictures() -> Iterator[Tensor]:
            for time, frame in islice(frames(container), done, None):
                times.append(time)
                yield translator.to_tensor(frame, direction)

        made = ((times.popleft(), one.image) for one in translator.stream(pictures(), direction, size, batch))
        while first := next(made, None):
            path = folder / f"{len(pieces):06d}-{first[0]}.mp4"
            with writing(target):
                count = write_piece(chain([first], islice(made, PIECE - 1)), path, base, rate, look)
            yield PIECE * len(pieces) + count, total
            pieces.append(path)
    if not pieces:
        raise ValueError("has no pictures that can be decoded")
    try:
        with opened(source) as container:
            last = last_duration(container)
        with opened(source) as container, writing(target):
            join(pieces, container, last, target)
    except av.FFmpegError as error:
        raise UserError(
            f"{source} cannot be joined with its sound in {target} ({error.strerror}): convert it to Matroska first."
        ) from None
    shutil.rmtree(folder)


def known_pieces(folder: Path, settings: dict[str, Any]) -> list[Path]:
    """The pieces that an earlier try with the same settings made; all but the video's last are full."""
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, where the pieces of a video shall go: remove it.")
    note = folder / "settings.json"
    text = json.dumps(settings, sort_keys=True, default=str)
    if not note.exists() or note.read_text() != text:
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_file(note) as temporary:
            temporary.write_text(text)
    return sorted(folder.glob("[0-9]*.mp4"))
