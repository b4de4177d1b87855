"""Videos: every frame translated, sound, timing and colours kept, in constant memory, resumable after a kill.

Translated frames go into short pieces beside the result; a piece is there only when it is whole, so after a kill the
next one is where work goes on. The last step joins pieces and sound without coding either again.
"""

import json
import shutil
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ugatit.io.errors import UserError, package
from ugatit.io.files import alone_in, atomic_file, short_name, write_text, writing
from ugatit.io.sheet import shown, to_picture
from ugatit.systems.base import Direction
from ugatit.translation.frames import (
    Colours,
    count_frames,
    exact,
    film_of,
    frame_rate,
    frames,
    look_of,
    opened,
    time_base,
)
from ugatit.translation.joining import join, last_duration
from ugatit.translation.translator import Size, Translator, at_once

T = TypeVar("T")
PIECE = 64  # frames
WRITTEN = {".mp4", ".m4v", ".mov", ".mkv"}  # what a result's name may end with
LONGEST = 16384  # pixels on a side that H.264 has
# H.264 without frames that wait for later ones, so that pieces can be joined packet by packet.
OPTIONS = {"crf": "18", "preset": "medium", "bf": "0"}


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

    Frames are read, translated and written in a thread each, beside each other.

    Args:
        translator: the model.
        source, target: files; the target is MP4, MOV or Matroska.
        direction, size, batch: as `Translator.__call__` takes them.
        settings: all that the pictures depend on; pieces that were made with others are not used.

    Raises:
        ValueError: the source cannot be read, or its translation not written; the message is a phrase that says why.
        UserError: the target cannot be written, or has another suffix.
    """
    if target.suffix.lower() not in WRITTEN:
        raise UserError(f"`target={target}`: videos are written as {', '.join(sorted(WRITTEN))}, give one of these.")
    package("av", "video")
    with opened(source) as container:
        look = look_of(container)
    folder = target.with_name(short_name(f".{target.name}.pieces"))
    with alone(folder, target):
        pieces = yield from translate_pieces(translator, source, target, direction, size, batch, folder, settings, look)
        join_pieces(pieces, source, target)
        shutil.rmtree(folder)


@contextmanager
def alone(folder: Path, target: Path) -> Iterator[None]:
    """Within this block no other process makes the pieces of a video, in a folder that is there.

    Raises:
        ValueError: one does; the message is a phrase that says so.
        UserError: the folder cannot be written.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, where the pieces of a video shall go: remove it.")
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(alone_in(folder, "is in use"))
        except UserError:
            raise ValueError(f"is being translated to {target} by another process: wait for its end") from None
        yield


def translate_pieces(
    translator: Translator,
    source: Path,
    target: Path,
    direction: Direction,
    size: Size,
    batch: int,
    folder: Path,
    settings: dict[str, Any],
    look: Colours,
) -> Generator[tuple[int, int | None], None, list[Path]]:
    """The loop of `translate_video`, which goes on after the pieces that ``folder`` has of the same settings; returns
    all pieces. Errors are its."""
    with opened(source) as container:
        total = count_frames(container)
        base, rate = time_base(container), frame_rate(container)
        batch = at_once((3, film_of(container).height, film_of(container).width), batch)
        with writing(target):
            pieces = known_pieces(folder, settings)
        translator.keep_style()
        done = PIECE * len(pieces)
        yield min(done, total or done), total
        with translated_frames(translator, islice(frames(container), done, None), direction, size, batch) as made:
            while first := next(made, None):
                path = folder / f"{len(pieces):06d}-{first[0]}.mp4"
                height, width = first[1].shape[2:]
                if max(height, width) > LONGEST:
                    raise ValueError(
                        f"would be {width} x {height} pixels, of which H.264 has {LONGEST} on a side at most"
                    )
                with writing(target):
                    count = write_piece(chain([first], islice(made, PIECE - 1)), path, base, rate, look)
                yield PIECE * len(pieces) + count, total
                pieces.append(path)
    if not pieces:
        shutil.rmtree(folder)
        raise ValueError("has no pictures that can be decoded")
    return pieces


def join_pieces(pieces: list[Path], source: Path, target: Path) -> None:
    """Write the video of all pieces, with the source's sound.

    Raises:
        ValueError: they cannot be joined, and stay; the message is a phrase that says why.
        UserError: the target cannot be written.
    """
    av = package("av", "video")
    try:
        with opened(source) as container:
            last = last_duration(container)
        with opened(source) as container, writing(target):
            join(pieces, container, last, target)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"cannot be joined with its sound in {target} ({reason}); its pictures stay in {pieces[0].parent}: convert "
            "its sound and try again"
        ) from None


@contextmanager
def translated_frames(
    translator: Translator, source: Iterable[tuple[int, Image.Image]], direction: Direction, size: Size, batch: int
) -> Iterator[Iterator[tuple[int, Tensor]]]:
    """Within this block frames come translated, 1 x channels x H x W, with their times."""
    times: deque[int] = deque()  # of the frames that are being translated

    def read() -> Iterator[Tensor]:
        for time, frame in source:
            times.append(time)
            yield translator.to_tensor(frame, direction)

    def translated(pictures: Iterator[Tensor]) -> Iterator[tuple[int, Tensor]]:
        for one in translator.stream(pictures, direction, size, batch):
            yield times.popleft(), one.image

    with beside(read(), 2 * batch) as pictures, beside(translated(pictures), 2 * batch) as made:
        yield made


@contextmanager
def beside(items: Iterable[T], count: int) -> Iterator[Iterator[T]]:
    """Within this block items are made in a thread of their own, up to ``count`` before they are asked for; what goes
    wrong there is raised here."""
    made: Queue[tuple[T | None, BaseException | None]] = Queue(count)
    ended = Event()

    def hand_over(item: T | None, error: BaseException | None = None) -> None:
        while not ended.is_set():
            with suppress(Full):
                made.put((item, error), timeout=0.1)
                break

    def work() -> None:
        try:
            for item in items:
                hand_over(item)
                if ended.is_set():
                    return
            hand_over(None, StopIteration())
        except BaseException as error:
            hand_over(None, error)

    def taken() -> Iterator[T]:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        ended.set()
        thread.join()


def write_piece(made: Iterable[tuple[int, Tensor]], path: Path, base: Fraction, rate: Fraction, look: Colours) -> int:
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
            even = 0, x.shape[3] % 2, 0, x.shape[2] % 2  # as H.264 wants it
            x = F.pad(shown(x).expand(-1, 3, -1, -1), even, "replicate")
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


def known_pieces(folder: Path, settings: dict[str, Any]) -> list[Path]:
    """The pieces that an earlier try with the same settings made; all but the video's last are full."""
    note = folder / "settings.json"
    text = json.dumps(settings, sort_keys=True, default=str)
    if not note.exists() or note.read_text("utf-8") != text:
        for piece in folder.glob("[0-9]*.mp4"):
            piece.unlink()
        write_text(note, text)
    return sorted(folder.glob("[0-9]*.mp4"))
