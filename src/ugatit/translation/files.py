"""Translating whole folders of files."""

import errno
import glob
import mimetypes
import os
import re
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ugatit.data.finding import DARK, Skipped, find_files
from ugatit.data.kept import Picture
from ugatit.data.reading import read_samples
from ugatit.data.samples import SHALLOW, Kind, to_tensor
from ugatit.io.ahead import ahead
from ugatit.io.errors import UserError
from ugatit.io.files import one_case, printable, real, writing
from ugatit.io.sheet import overlay, save_picture, to_picture
from ugatit.io.terminal import counted, say, some
from ugatit.systems.base import Direction, Samples, Translation
from ugatit.translation.animation import ANIMATED, has_more, is_animation
from ugatit.translation.results import save_result, suffix_of
from ugatit.translation.translator import Size, Translator, at_once, batched
from ugatit.translation.video import WRITTEN

OTHER_VIDEOS = {  # not known to `mimetypes`, or not everywhere
    ".mkv", ".m4v", ".ts", ".mts", ".m2ts", ".m2t", ".flv", ".f4v", ".ogv", ".ogm", ".asf", ".wmv", ".3gp", ".3g2",
    ".vob", ".mxf", ".nut", ".dv", ".divx", ".rm", ".rmvb", ".wtv", ".y4m", ".ivf", ".h264", ".264", ".h265", ".265",
    ".hevc", ".obu", ".m2v", ".mpv",
}  # fmt: skip

HEIC = {".heic", ".heif", ".hif"}
TOO_LARGE = 'needs more memory than there is: `size="tiles"` and `size="model"` need less'


class Job(NamedTuple):
    """A picture or video to translate, and where the results go."""

    source: Path
    target: Path
    attention: Path  # of the heat map over the source, if it is asked for


class Source(NamedTuple):
    """A picture that was read."""

    job: Job
    pixels: Picture  # as it was read, which takes a quarter of the memory of floats
    kind: Kind  # of the file's samples

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        if isinstance(self.pixels, Tensor):
            return tuple(self.pixels.shape)
        return len(self.pixels.getbands()), self.pixels.height, self.pixels.width

    @property
    def x(self) -> Tensor:
        """1 x channels x H x W in [-1, 1]."""
        return to_tensor(self.pixels)[None]


def is_video(file: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return (mimetypes.guess_type(file.name)[0] or "").startswith("video/") or file.suffix.lower() in OTHER_VIDEOS


def plan_jobs(inputs: list[str], out: Path, samples: int = 1, channels: tuple[int, int] = (3, 3)) -> list[Job]:
    """What to translate: files, all files of folders (their sub-folders are kept below ``out``) and globs.

    Results have their sources' names; where two would be the same, what is told apart by its suffix keeps it, as in
    ``cat.gif.png`` beside ``cat.png``, or ``cat.jpg.attention.png``.

    Args:
        inputs: paths and globs.
        out: folder of the results.
        samples: how many results each source has, NAME-1, NAME-2 and so on if more than one.
        channels: of the sources, and of the results.

    Raises:
        UserError: an input does not exist, or two results, or a result and an input, would be the same file.
    """
    found = [pair for given in inputs for pair in targets_of(given, out)]
    if samples > 1:
        numbers = range(1, samples + 1)
        found = [(s, t.with_stem(f"{t.stem}-{number}")) for number in numbers for s, t in found]
    jobs = named(list({(real(source), target): (source, target) for source, target in found}.values()), channels)
    sources = {real(job.source) for job in jobs}
    known = str.casefold if one_case(out) else str
    taken: dict[str, Path] = {}
    for job in jobs:
        if real(job.target) in sources:
            raise UserError(f"The result for {job.source} would replace the input {job.target}: give another `out`.")
        other = taken.setdefault(known(str(job.target)), job.source)
        if real(other) != real(job.source):
            raise UserError(
                f"{other} and {job.source} would both be written to {job.target}: translate them to two folders."
            )
    return jobs


def targets_of(given: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """The files of one input, and their places below ``out``; what lies there already, of an earlier start, is none.

    Raises:
        UserError: there is no such file or folder.
    """
    there = Path(given).exists()
    paths = [Path(given)] if there else matching(given)
    if not paths:
        raise UserError(f"The input {given} does not exist and matches nothing: check the path.")
    through = not there and "**" in given  # goes into all folders itself
    results = real(out)
    around = not there or (results != real(given) and results.is_relative_to(real(given)))
    before = 0
    for path in paths:
        if path.is_dir():
            files = [] if through else find_files(path)
            if not files and not through:
                say(f"  skipped: {printable(str(path))} holds no files", "yellow")
            pairs = [(file, out / file.relative_to(path)) for file in files]
        elif path.is_file():
            pairs = [(path, out / path.name)]
        elif there:
            raise UserError(f"The input {path} is not a regular file: give a picture, a video or a folder.")
        else:
            say(f"  skipped: {printable(str(path))} is not a regular file", "yellow")
            pairs = []
        new = [pair for pair in pairs if not (around and real(pair[0]).is_relative_to(results))]
        before += len(pairs) - len(new)
        yield from new
    if before:
        say(f"  left out: {counted(before, 'file')} in {out}, which is where the results go", "yellow")


def matching(given: str) -> list[Path]:
    """The files and folders that a glob matches; brackets in the names of folders that exist are no patterns."""
    root = next(folder for folder in Path(given).parents if folder.exists())
    return [root / path for path in sorted(glob.glob(os.path.relpath(given, root), root_dir=root, recursive=True))]


def named(found: list[tuple[Path, Path]], channels: tuple[int, int]) -> list[Job]:
    """Jobs of sources and targets, whose suffixes are those that can be written."""

    def written(source: Path, target: Path) -> str:
        """The suffix of the result where it is another."""
        own = target.suffix.lower()
        if is_animation(source, channels[0]) or own in WRITTEN:
            return ""
        suffix = ".mkv" if is_video(source) else suffix_of(own, channels[1])
        return "" if suffix == own else suffix

    endings = [written(source, target) for source, target in found]
    wanted = [t.with_suffix(end) if end else t for (_, t), end in zip(found, endings, strict=True)]
    often = Counter(wanted)
    targets = [
        t.with_name(t.name + end) if end and often[short] > 1 else short
        for (_, t), end, short in zip(found, endings, wanted, strict=True)
    ]
    maps = [target.with_suffix(".attention.png") for target in targets]
    often = Counter([*targets, *maps])
    maps = [
        target.with_name(f"{target.name}.attention.png") if often[short] > 1 else short
        for target, short in zip(targets, maps, strict=True)
    ]
    return [Job(source, *paths) for (source, _), *paths in zip(found, targets, maps, strict=True)]


@dataclass
class Remarks:
    """Pictures of which something is said when all are done."""

    dark: list[Path] = field(default_factory=list)
    white: list[Path] = field(default_factory=list)
    shallow: list[Path] = field(default_factory=list)
    longer: list[Path] = field(default_factory=list)  # than their first picture

    def tell(self) -> None:
        if self.dark:
            say(
                f"Nearly black as read: {counted(len(self.dark), 'picture')}, {some(self.dark)}. If they should not "
                "be, tell which samples are black and which white (--range LOW HIGH).",
                "yellow",
            )
        if self.white:
            say(
                f"Wholly white as read: {counted(len(self.white), 'picture')}, {some(self.white)}. If they should not "
                "be, save them without their transparency, or tell which samples are black and which white "
                "(--range LOW HIGH).",
                "yellow",
            )
        if self.shallow:
            say(f"{counted(len(self.shallow), 'picture')} {SHALLOW}: {some(sorted(self.shallow))}", "yellow")
        if self.longer:
            misnamed = [file for file in self.longer if file.suffix.lower() not in HEIC]
            advice = f" For all, name the files as what they are ({', '.join(sorted(ANIMATED))})." if misnamed else ""
            say(
                f"{counted(len(self.longer), 'file')} with several pictures, of which the first is translated: "
                f"{some(sorted(self.longer))}.{advice}",
                "yellow",
            )


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
        attention: also write the heat map over the source (Figure 2).

    Raises:
        UserError: the results cannot be written; what was written before stays.
    """
    encoded: deque[tuple[Job, Future]] = deque()
    skipped: list[Skipped] = []
    remarks = Remarks()
    origin, target = translator.read_as(direction), translator.written_as(direction)
    together = 1  # pictures that are translated at once, of the size of the last one that was read

    def decode(job: Job) -> Source | Skipped:
        try:
            read = read_samples(job.source, origin)
            darkest, brightest = read.extremes()
            for seen, files in (
                (read.lost, remarks.shallow),
                (has_more(job.source), remarks.longer),
                (brightest < DARK, remarks.dark),
                (darkest == 1, remarks.white),
            ):
                if seen:
                    files.append(job.source)
            return Source(job, read.pixels, read.kind)
        except FAILURES as error:
            return why_skipped(job, error)

    def decoded() -> Generator[Source]:
        nonlocal together
        with closing(ahead(pool, decode, jobs, lambda: 2 * together)) as sources:
            for source in sources:
                if isinstance(source, Skipped):
                    skipped.append(source)
                    continue
                together = at_once(source.shape, batch)
                yield source

    def finished(left: int) -> Iterator[Job]:
        """Wait until at most ``left`` results are still being written."""
        while len(encoded) > left:
            job, future = encoded.popleft()
            try:
                future.result()
                yield job
            except FAILURES as error:
                skipped.append(why_skipped(job, error))

    with ThreadPoolExecutor(2) as pool, closing(decoded()) as sources:
        for shape, alike in groupby(sources, lambda source: source.shape):
            for group in batched(alike, at_once(shape, batch)):
                for source, made in attempted(translator, group, direction, size):
                    if isinstance(made, Skipped):
                        skipped.append(made)
                    else:
                        encoded.append((source.job, pool.submit(write_result, source, made, target, attention)))
                yield from finished(2 * len(group))
        yield from finished(0)
    remarks.tell()
    yield from skipped


FAILURES = ValueError, OSError, RuntimeError, MemoryError  # that may be one picture's


def why_skipped(job: Job, error: Exception) -> Skipped:
    """Why a job's picture is skipped, by what was raised, one of `FAILURES`; what is no matter of one picture is raised
    again."""
    if isinstance(error, OSError):
        return not_written(job, error)
    return Skipped(job.source, reason_of(error, TOO_LARGE))


def reason_of(error: Exception, too_large: str) -> str:
    """Why a picture is left out, by what was raised, as a phrase: ``too_large`` where memory is short; what is no
    matter of one picture is raised again."""
    if isinstance(error, ValueError):
        return str(error)
    if not out_of_memory(error):
        raise error
    return too_large


def not_written(job: Job, error: OSError) -> Skipped:
    """Why a result could not be written, if its name alone is the matter.

    Raises:
        UserError: it is something else.
    """
    if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
        with writing(job.target):
            raise error
    wanted = Path(error.filename2 or error.filename or job.target).name
    return Skipped(job.source, f"cannot be written as {wanted} ({error.strerror})")


def attempted(
    translator: Translator, group: list[Source], direction: Direction, size: Size
) -> Iterator[tuple[Source, Translation | Skipped]]:
    """Translate pictures of one shape together, or one by one where memory is short; what is too large even so is
    skipped."""
    try:
        made = translator.translate(torch.cat([source.x for source in group]), direction, size)
    except (RuntimeError, MemoryError) as error:
        if len(group) == 1 or not out_of_memory(error):
            yield group[0], why_skipped(group[0].job, error)
            return
        for one in group:
            yield from attempted(translator, [one], direction, size)
        return
    yield from zip(group, made.each(), strict=True)


def out_of_memory(error: Exception) -> bool:
    """Whether memory is short; on CPUs PyTorch tells it in words, of each system others."""
    words = "not enough memory|can't allocate memory|DefaultCPUAllocator"
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(re.search(words, str(error)))


def write_result(source: Source, made: Translation, target: Samples, attention: bool) -> None:
    """Write one translated picture as its source was, and its attention map over the source."""
    if attention and made.heatmap is None:
        raise UserError("This model has no attention maps: leave out `attention`.")
    save_result(made.image[0], source.job.target, source.kind, target)
    if attention and made.heatmap is not None:
        save_picture(to_picture(overlay(source.x, made.heatmap)[0]), source.job.attention)
