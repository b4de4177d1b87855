"""Translate pictures and videos with a trained model."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from tyro.conf import Positional, arg

from ugatit.commands.parsing import parse
from ugatit.data.finding import Skipped, common_range, look_at, unscaled
from ugatit.data.reading import Look, extent_of_pages
from ugatit.data.samples import SHALLOW
from ugatit.io.errors import UserError, with_options
from ugatit.io.files import printable, real
from ugatit.io.processes import this_process
from ugatit.io.terminal import bars, counted, say, some, tracked
from ugatit.systems.base import Direction, Range, faces_of
from ugatit.translation.animation import is_animation, translate_animation
from ugatit.translation.export import OnnxTranslator
from ugatit.translation.faces import USUAL, Finder, How, face_finder, translate_face_file
from ugatit.translation.files import FAILURES, Job, is_video, plan_jobs, translate_files, why_skipped
from ugatit.translation.joining import not_kept
from ugatit.translation.sharing import Share, state_of
from ugatit.translation.translator import Precision, Size, Translator
from ugatit.translation.video import translate_video

MOVING = "moves, and faces are looked for in single pictures only"


@dataclass(frozen=True)
class TranslateConfig:
    """Translate pictures and videos with a trained model."""

    model: Positional[str]
    """The model: its folder (RUN/model), the name of one in the package, such as cat2dog, or its id on the Hugging Face
    hub, like user/name."""
    inputs: Annotated[Positional[list[str]], arg(name="input")]
    """Picture and video files, folders (with all that is below them), or globs."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """The folder for the results, which keep their names."""
    direction: Direction = "a2b"
    """The direction to translate in, from domain A to B or back."""
    size: Size = "model"
    """The size to translate at. model: pictures are resized to what the model was trained at. keep: each at its own
    size, which all but full models of U-GAT-IT can. tiles: each at its own size in overlapping tiles, for large
    pictures."""
    batch: Annotated[int, Field(ge=1)] = 8
    """How many pictures of one size are translated at once; of very large ones fewer."""
    style: str | None = None
    """For systems with styles: a picture of the target domain whose style is taken, or the seed of random styles."""
    samples: Annotated[int, Field(ge=1)] = 1
    """For systems with styles: how many translations of each picture are made, called NAME-1, NAME-2 and so on."""
    range: Range | Literal["auto"] | None = None
    """The sources' samples that become black and white: LOW HIGH, or auto for the lowest and the highest of all inputs,
    which is taken for floats and 32 bits anyway. If it is not given, it is the model's, or else what the files' type
    says."""
    faces: How | None = None
    """Faces are translated instead of whole pictures, turned and cut out as those of the training pictures were. crop:
    each is written, further ones of a picture as NAME.face2, NAME.face3 and so on. back: they are laid back into the
    picture with a soft edge."""
    detector: str | None = None
    """What finds the faces, as in ugatit prepare: photo, drawn, or a file. If it is not given, what found those of the
    training pictures; photo, if the model does not tell."""
    margin: Annotated[float, Field(ge=0, le=2)] | None = None
    """How much is added to a face's square at every side, as a share of it. If it is not given, as much as in the
    training pictures."""
    attention: bool = False
    """Also write NAME.attention.png, which shows where the generator looks, laid over the source."""
    backend: Literal["torch", "onnx"] = "torch"
    """What computes. torch: PyTorch. onnx: ONNX Runtime, for which MODEL is a folder that ugatit export wrote."""
    precision: Precision = "no"
    """Half precision, bf16 or fp16, which is faster on cards; no computes in float32 throughout."""
    device: str | None = None
    """The device to compute on, such as cuda or cpu. If it is not given, the accelerator is used where there is one."""


def main(arguments: list[str]) -> None:
    options = parse(TranslateConfig, "ugatit translate", arguments)
    if not options.inputs:
        raise UserError("No picture was named: give files, folders or globs after MODEL.")
    translator = loaded(options)
    translator.check_direction(options.direction)
    origin, target = (translator.samples(domain) for domain in options.direction.split("2"))
    jobs = plan_jobs(options.inputs, options.out, options.samples, (origin.channels, target.channels))
    if not jobs:
        raise UserError(f"There are no files in {some(options.inputs)}: check the path.")
    set_range(options, translator, [job.source for job in jobs if not is_video(job.source)])
    if options.style is not None or options.samples > 1:
        style = read_style(options.style or "0", translator, options.direction)
        if options.samples > 1 and not isinstance(style, int):
            raise UserError(
                f"--style {options.style} gives one translation, --samples {options.samples}: leave one out."
            )
        translator.set_style(style)
    process = this_process()
    if process.processes > 1 and translator.random:
        raise UserError("Several processes do not share random styles: give --style PICTURE, or start one process.")
    settings = all_settings(options, translator)
    finder = finder_of(options, translator)
    share = Share(options.out, settings, options.attention, process, anew=translator.random)
    videos = [job for job in jobs if is_video(job.source)]
    animations = [job for job in jobs if is_animation(job.source, origin.channels)]
    if options.attention and (moving := [job.source for job in videos + animations]):
        say(f"Attention maps are made of single pictures, so not of {some(moving)}.", "yellow")
    moving_jobs = {*videos, *animations}
    pictures = [job for job in jobs if job not in moving_jobs]
    left_out = [Skipped(job.source, MOVING) for job in videos + animations] if finder else []
    if finder:
        videos, animations = [], []
    # As many together as are translated together, so that what shares a batch is the same with any number of processes.
    pictures, animations, videos = share.part(pictures, options.batch), share.part(animations), share.part(videos)
    there = [job.target for job in (*pictures, *animations, *videos) if job.target.exists()]
    if there:
        say(f"Replaced: {counted(len(there), 'file')} that {options.out} has already: {some(there)}.", "yellow")
    further: dict[Job, list[Path]] = {}  # results
    if finder:
        taken = {real(path) for job in jobs for path in job}
        results = translated_faces(translator, pictures, options, finder, taken, further)
    else:
        way, size, batch = options.direction, options.size, options.batch
        results = translate_files(translator, pictures, way, size, batch, options.attention)
    done: list[Job | Skipped] = [*left_out]
    for result in chain(
        tracked(results, "translating", len(pictures)),
        (attempt(job, partial(translate_one_animation, translator, job, options)) for job in animations),
        (attempt(job, partial(translate_one_video, translator, job, options, settings)) for job in videos),
    ):
        done.append(result)
        if isinstance(result, Job):
            share.done(result, further.get(result, []))
        else:
            share.skipped(result.path)
    share.end()
    report(done, "file" if videos else "picture", options, share)


def loaded(options: TranslateConfig) -> Translator:
    """The model with what computes it.

    Raises:
        UserError: it cannot be loaded, or computes at one precision only.
    """
    if options.backend == "torch":
        return Translator.load(options.model, options.device, precision=options.precision)
    if options.precision != "no":
        raise UserError("--precision is for --backend torch: leave one of them out.")
    return OnnxTranslator(options.model, options.device)


def report(done: list[Job | Skipped], what: str, options: TranslateConfig, share: Share) -> None:
    """Say what was written and what was skipped.

    Raises:
        UserError: an input that was named itself, or everything, was skipped.
    """
    skipped = [result for result in done if isinstance(result, Skipped)]
    say(written(len(done) - len(skipped), what, options.out, share))
    for one in skipped:
        say(f"  skipped: {with_options(str(one))}")
    named = {real(given) for given in options.inputs}
    failed = [file for file, _ in skipped if real(file) in named]
    if failed or (done and len(skipped) == len(done) and not share.before):
        raise UserError(f"{failed[0] if failed else 'Everything'} could not be translated: see the reasons above.")


def finder_of(options: TranslateConfig, translator: Translator) -> Finder | None:
    """What finds the faces to translate; None if whole pictures are.

    Raises:
        UserError: an option is for faces alone, or there is no such detector.
    """
    if options.faces is None:
        for name in ("detector", "margin"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for faces: give --faces crop or --faces back too, or leave it out.")
        return None
    domain = options.direction[0]
    if faces_of(translator.system.config, domain) is None:
        say(
            "The model does not tell how its training pictures were cut: faces are turned upright, "
            f"with --margin {USUAL.margin if options.margin is None else options.margin:g}.",
            "yellow",
        )
    return face_finder(translator, options.direction, options.detector, options.margin)


def translated_faces(
    translator: Translator,
    jobs: list[Job],
    options: TranslateConfig,
    finder: Finder,
    taken: set[Path],
    further: dict[Job, list[Path]],
) -> Iterator[Job | Skipped]:
    """Translate and write the faces in pictures; each job when it is done, or why it was skipped. No file is written
    that is ``taken``, and results besides the jobs' own are put into ``further``."""
    assert options.faces is not None
    how, way, size, attention = options.faces, options.direction, options.size, options.attention

    def work(job: Job) -> None:
        further[job] = translate_face_file(translator, job, way, size, finder, how, attention, taken)

    for job in jobs:
        yield attempt(job, partial(work, job))


def written(count: int, what: str, out: Path, share: Share) -> str:
    """What was done, as a line."""
    before = f"; {share.before} were there from an earlier start" if share.before else ""
    which = f" by process {share.process.rank + 1} of {share.process.processes}" if share.process.processes > 1 else ""
    return f"{counted(count, what)} written to {out}{which}{before}"


def all_settings(options: TranslateConfig, translator: Translator) -> dict[str, Any]:
    """All that results depend on besides their sources."""
    files = sorted((translator.folder or Path(options.model)).rglob("*"))  # an exported model has no other
    files += [Path(options.style or ""), Path(options.detector or "")]
    stamps = {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()}
    given = asdict(options) | stamps | {"ranges": (translator.range, translator.floats)}
    return {name: value for name, value in given.items() if name not in ("inputs", "out", "batch", "device")}


def attempt(job: Job, work: Callable[[], None]) -> Job | Skipped:
    """Do a job, or say why it was skipped."""
    try:
        work()
    except FAILURES as error:
        return why_skipped(job, error)
    return job


def translate_one_animation(translator: Translator, job: Job, options: TranslateConfig) -> None:
    """Translate all pictures of one file."""
    way, size = options.direction, options.size
    if translate_animation(translator, job.source, job.target, way, size, options.batch):
        say(f"{job.source}: pictures {SHALLOW}", "yellow")


def translate_one_video(translator: Translator, job: Job, options: TranslateConfig, settings: dict[str, Any]) -> None:
    """Translate a video with a progress bar; what is done is kept when it is stopped."""
    if lost := not_kept(job.source, job.target):
        say(f"{job.source}: not kept: {'; '.join(lost)}.", "yellow")
    state = settings | {"source": state_of(job.source)}
    with bars() as progress:
        task = progress.add_task(printable(job.source.name), total=None)
        for done, total in translate_video(
            translator, job.source, job.target, options.direction, options.size, options.batch, state
        ):
            progress.update(task, completed=done, total=total)


def set_range(options: TranslateConfig, translator: Translator, files: list[Path]) -> None:
    """Set the range of what is translated: the given one; that of all files with auto; and where the model has none,
    one for all files that need one."""
    own = translator.samples(options.direction[0])
    if isinstance(options.range, tuple):
        translator.range = options.range
        return
    if options.range == "auto" and not files:
        raise UserError("--range auto is found in pictures, and only videos were given: leave it out.")
    needed = options.range is None and own.range is None and unscaled(files)
    if not needed and options.range is None:
        return
    looks = look_at(files, own.channels).good
    found = common_range((of_all_pages(*look, own.channels) for look in looks.items()), every=not needed)
    if found is None:
        return
    if found[0] == found[1]:
        raise UserError(f"All samples of the inputs are {found[0]:g}, which makes no range: give --range LOW HIGH.")
    which = "floats and 32 bits" if needed else "all inputs"
    say(f"The samples of {which} go from {found[0]:g} to {found[1]:g}: these become black and white.")
    if needed:
        translator.floats = found
    else:
        translator.range = found


def of_all_pages(file: Path, look: Look, channels: int) -> Look:
    """What is known of a file, of which all pictures count; a damaged one is skipped later."""
    if is_animation(file, channels):
        with suppress(ValueError):
            low, high = extent_of_pages(file, channels)
            return look._replace(low=low, high=high)
    return look


def read_style(given: str, translator: Translator, direction: Direction) -> Tensor | int:
    """The value of --style: a seed, or the picture of that path.

    Raises:
        UserError: it is neither.
    """
    if given.isdecimal():
        if int(given) >= 2**63:
            raise UserError(f"--style {given} is too large: give a number below {2**63}.")
        return int(given)
    if given.startswith("-") and given[1:].isdecimal():
        raise UserError(f"--style {given} is negative: give a number from 0 up, or a picture of the target domain.")
    try:
        return translator.read_example(Path(given), direction)
    except ValueError as error:
        raise UserError(f"--style {given} {error}: give a picture of the target domain, or a number.") from None
