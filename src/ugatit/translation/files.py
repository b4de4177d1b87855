"""Translating whole folders of files."""

import glob
import mimetypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ugatit.data.finding import Skipped, find_files
from ugatit.data.reading import read_picture
from ugatit.io.errors import UserError
from ugatit.io.files import real, writing
from ugatit.io.sheet import overlay, save_picture, to_picture
from ugatit.systems.base import Direction, Translation
from ugatit.translation.translator import Size, Translator

T = TypeVar("T")
U = TypeVar("U")
KEPT_FORMATS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}  # others are written as PNG
KEPT_VIDEOS = {".mp4", ".m4v", ".mov", ".mkv"}  # others are written as Matroska
OTHER_VIDEOS = {".mkv", ".m4v", ".ts", ".mts", ".m2ts", ".flv", ".ogv", ".wmv", ".3gp"}  # not known to `mimetypes`


# Files


class Job(NamedTuple):
    """A picture to translate and where the result goes."""

    source: Path
    target: Path


def is_video(file: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return (mimetypes.guess_type(file.name)[0] or "").startswith("video/") or file.suffix.lower() in OTHER_VIDEOS


def plan_jobs(inputs: list[str], out: Path) -> list[Job]:
    """What to translate: files, all files of folders (their sub-folders are kept below ``out``) and globs.

    Raises:
        UserError: an input does not exist, or two results, or a result and an input, would be the same file.
    """
    jobs = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            jobs += [Job(file, out / file.relative_to(path)) for file in find_files(path)]
            continue
        if path.exists() and not path.is_file():
            raise UserError(f"The input {given} is not a regular file: give a picture, a video or a folder.")
        files = [path] if path.is_file() else [Path(f) for f in sorted(glob.glob(given, recursive=True))]
        if not files:
            raise UserError(f"The input {given} does not exist and matches nothing: check the path.")
        jobs += [Job(file, out / file.name) for file in files if file.is_file()]
    kept = KEPT_FORMATS | KEPT_VIDEOS
    jobs = [
        Job(s, t if t.suffix.lower() in kept else t.with_suffix(".mkv" if is_video(s) else ".png")) for s, t in jobs
    ]
    sources = {real(job.source) for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if real(job.target) in sources:
            raise UserError(f"The result for {job.source} would replace the input {job.target}: give another -o.")
        other = taken.setdefault(job.target, job.source)
        if real(other) != real(job.source):
            raise UserError(
                f"{other} and {job.source} would both be written to {job.target}: translate them to two folders."
            )
    return jobs


def translate_files(
    translator: Translator,
    jobs: list[Job],
    direction: Direction,
    size: Size,
    batch: int = 8,
    attention: bool = False,
) -> Iterator[Job | Skipped]:
    """Translate and write pictures; yields each job when its result is written, or why it was skipped.

    Two threads decode the next pictures and encode the last ones, so that the network does not wait for them.

    Args:
        translator: the model.
        jobs: from `plan_jobs`.
        direction, size, batch: as `Translator.__call__` takes them.
        attention: also write ``NAME.attention.png``, the heat map over the source (Figure 2).

    Raises:
        UserError: a result cannot be written, or memory is short; what was written before stays.
    """
    ready: deque[tuple[Job, Tensor]] = deque()  # decoded, not yet translated
    writing: deque[tuple[Job, Future]] = deque()
    skipped: list[Skipped] = []

    def decode(job: Job) -> Tensor | Skipped:
        try:
            return translator.to_tensor(read_picture(job.source, translator.channels))
        except ValueError as error:
            return Skipped(job.source, str(error))

    def decoded() -> Iterator[Tensor]:
        for job, x in zip(jobs, ahead(pool, decode, jobs, 2 * batch), strict=True):
            if isinstance(x, Skipped):
                skipped.append(x)
            else:
                ready.append((job, x))
                yield x

    def written(left: int) -> Iterator[Job]:
        """Wait until at most ``left`` results are still being written."""
        while len(writing) > left:
            job, future = writing.popleft()
            future.result()
            yield job

    try:
        with ThreadPoolExecutor(2) as pool:
            for made in translator.stream(decoded(), direction, size, batch):
                job, x = ready.popleft()
                writing.append((job, pool.submit(write_result, job, x, made, attention)))
                yield from written(2 * batch)
            yield from written(0)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            what = ready[0][0].source if ready else "a picture"
            raise UserError(f"There is not enough memory to translate {what}: use --size tiles or --batch 1.") from None
        raise
    yield from skipped


def ahead(pool: Executor, function: Callable[[T], U], items: Iterable[T], count: int) -> Iterator[U]:
    """``map(function, items)`` with up to ``count`` results computed before they are asked for."""
    running: deque[Future[U]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > count:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def write_result(job: Job, x: Tensor, made: Translation, attention: bool) -> None:
    """Write one translated picture, and its attention map over the source ``x``, 1 x channels x H x W."""
    pictures = {job.target: made.image}
    if attention:
        if made.heatmap is None:
            raise UserError("This model has no attention maps: leave out --attention.")
        pictures[job.target.with_suffix(".attention.png")] = overlay(x, made.heatmap)
    with writing(job.target):
        for path, picture in pictures.items():
            save_picture(to_picture(picture[0]), path)
