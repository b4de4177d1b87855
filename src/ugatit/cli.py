"""The command line: `ugatit COMMAND`, each option of which is a field of a typed dataclass."""

import signal
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from PIL import Image
from pydantic import Field
from rich.progress import track
from tyro.conf import OmitArgPrefixes, Positional, arg

import ugatit
from ugatit import guard, study, web
from ugatit.ablate import AblateConfig, ablate
from ugatit.compare import CompareConfig, compare
from ugatit.config import TrainConfig, check_range, preset_config, read_run
from ugatit.data import Skipped, check_pictures, find_files, find_tests, read_tests, spread
from ugatit.demo import demo
from ugatit.errors import UserError
from ugatit.evaluate import Judge, Protocol, evaluate_folders, evaluate_model, metrics_table, protocol_text
from ugatit.export import OnnxTranslator, export
from ugatit.files import printable, real, results
from ugatit.inspection import inspect
from ugatit.page import write_page
from ugatit.prepare import PrepareConfig, prepare, report_table
from ugatit.reading import read_picture
from ugatit.released import import_released
from ugatit.runs import bars
from ugatit.systems import REGISTRY
from ugatit.systems.base import Direction
from ugatit.systems.folder import save_model
from ugatit.train import console, say, train
from ugatit.translate import Job, Size, Translator, find_device, is_video, plan_jobs, translate_files
from ugatit.video import translate_video


def option(arguments: list[str], name: str) -> str | None:
    """The value of ``--name VALUE`` or ``--name=VALUE``, read before the real parser can know its defaults."""
    for i, word in enumerate(arguments):
        if word == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if word.startswith(name + "="):
            return word.split("=", 1)[1]
    return None


def train_command(arguments: list[str]) -> None:
    """Train a translator on two folders of pictures, or continue a run with --resume RUN."""
    resume = option(arguments, "--resume")
    if resume is None and "--resume" in arguments:
        raise UserError("--resume needs the folder of a run: give --resume RUN.")
    if resume is not None:
        place = next(i for i, word in enumerate(arguments) if word.split("=")[0] == "--resume")
        arguments = arguments[:place] + arguments[place + (1 if "=" in arguments[place] else 2) :]
        start = replace(read_run(Path(resume)), out=Path(resume))
    else:
        start = preset_config(option(arguments, "--system") or "ugatit", option(arguments, "--preset") or "paper")
    presets = {name: ", ".join(system.presets) for name, system in REGISTRY.items()}
    config = tyro.cli(
        OmitArgPrefixes[TrainConfig[REGISTRY[start.system].Config]],  # type: ignore[misc]
        prog="ugatit train",
        description="\n".join(
            [
                train_command.__doc__ or "",
                "Presets: " + "; ".join(f"{name}: {names}" for name, names in presets.items()) + ".",
                "The defaults below are those of the chosen --preset; with --resume, those of the run.",
            ]
        ),
        default=start,
        args=arguments,
    )
    if resume is not None and config.out != Path(resume):
        raise UserError("--out cannot be changed by --resume: leave it out.")
    if config.out is None:
        name = (config.data or config.target or Path("run")).resolve().name
        kind = config.preset if config.system == TrainConfig.system else f"{config.system}-{config.preset}"
        config = replace(config, out=Path("runs") / f"{name}-{kind}")
    places = {name: getattr(config, name) for name in ("data", "source", "target")}
    config = replace(config, **{name: path.resolve() for name, path in places.items() if path})  # resumed from anywhere
    train(config, resume is not None)


@dataclass(frozen=True)
class TranslateOptions:
    """Translate pictures and videos with a trained model."""

    model: Positional[str]
    """Model folder (RUN/model), or a hub id like user/name."""
    inputs: Annotated[Positional[list[str]], arg(name="input")]
    """Picture and video files, folders (with all that is below) or globs."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Folder for the results; names are kept."""
    direction: Direction = "a2b"
    """Which way."""
    size: Size = "model"
    """model: resized to what the model was trained at; keep: the picture's own size (light models); tiles: the
    picture's own size in overlapping tiles, for large pictures."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Pictures of one size that are translated at once."""
    style: str | None = None
    """For systems with styles: a picture of the target domain to take the style from, or the seed of random ones."""
    samples: Annotated[int, Field(ge=1)] = 1
    """For systems with styles: how many translations of each picture, NAME-1, NAME-2 and so on if more than one."""
    attention: bool = False
    """Also write NAME.attention.png: where the generator looks, laid over the source."""
    backend: Literal["torch", "onnx"] = "torch"
    """onnx: ONNX Runtime, with a folder that ugatit export wrote as the model."""
    device: str | None = None
    """cuda, cpu, ...; CUDA where there is one if not given."""


def translate_command(arguments: list[str]) -> None:
    """Translate pictures and videos with a trained model."""
    options = tyro.cli(TranslateOptions, prog="ugatit translate", args=arguments)
    check_range(TranslateOptions, options)
    jobs = plan_jobs(options.inputs, options.out)
    if options.backend == "onnx":
        translator: Translator = OnnxTranslator(Path(options.model), options.device)
    else:
        translator = Translator.load(options.model, options.device)
    if options.style is not None or options.samples > 1:
        translator.set_style(read_style(options.style or "0"))
    if options.samples > 1:
        numbers = range(1, options.samples + 1)
        jobs = [Job(s, t.with_stem(f"{t.stem}-{number}")) for number in numbers for s, t in jobs]
    videos = [job for job in jobs if is_video(job.source)]
    if videos and options.attention:
        raise UserError(f"--attention is for pictures, and {videos[0].source} is a video: leave one of them out.")
    pictures = [job for job in jobs if not is_video(job.source)]
    results = translate_files(translator, pictures, options.direction, options.size, options.batch, options.attention)
    done = list(track(results, "translating", total=len(pictures), console=console, disable=not console.is_terminal))
    done += [translate_one_video(translator, job, options) for job in videos]
    skipped = [result for result in done if isinstance(result, Skipped)]
    say(f"{len(done) - len(skipped)} {'files' if videos else 'pictures'} written to {options.out}")
    for file, reason in skipped:
        say(f"  skipped: {file} {reason}")
    named = {real(given) for given in options.inputs}
    failed = [file for file, _ in skipped if real(file) in named]
    if failed or len(skipped) == len(done):
        raise UserError(f"{failed[0] if failed else 'Everything'} could not be translated: see the reasons above.")


def translate_one_video(translator: Translator, job: Job, options: TranslateOptions) -> Job | Skipped:
    """Translate a video with a progress bar; what is done is kept when it is stopped."""
    model = Path(options.model)
    files = [job.source, *(sorted(model.rglob("*")) if model.is_dir() else [])]
    stamps = {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()}
    given = {name: getattr(options, name) for name in ("model", "direction", "size", "style", "backend")}
    try:
        with bars() as progress:
            task = progress.add_task(printable(job.source.name), total=None)
            for done, total in translate_video(
                translator, job.source, job.target, options.direction, options.size, options.batch, given | stamps
            ):
                progress.update(task, completed=done, total=total)
    except ValueError as error:
        return Skipped(job.source, str(error))
    return job


def read_style(given: str) -> Image.Image | int:
    """The value of --style: a seed, or the picture of that path.

    Raises:
        UserError: it is neither.
    """
    if given.isdecimal():
        return int(given)
    try:
        return read_picture(given)
    except (ValueError, OSError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(f"--style {given} {reason}: give a picture of the target domain, or a number.") from None


@dataclass(frozen=True)
class ImportOptions:
    """Turn a checkpoint of the authors' PyTorch code (*_params_*.pt) into a model folder."""

    checkpoint: Positional[Path]
    """The file."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Model folder to write."""
    size: int = 256
    """Side in pixels of the pictures that a light model was trained on; a full model's is found in the file."""


def import_command(arguments: list[str]) -> None:
    """Turn a checkpoint of the authors' PyTorch code into a model folder."""
    options = tyro.cli(ImportOptions, prog="ugatit import", args=arguments)
    system = import_released(options.checkpoint, options.size)
    with results(options.out):
        save_model(system, options.out, step=0)
    c = system.config
    kind = "light" if c.light else "full"
    say(f"{options.out}: {kind}, width {c.width}, {c.blocks} blocks, {c.channels} channels, size {c.size}")


@dataclass(frozen=True)
class ExportOptions:
    """Write a model as ONNX files, checked against PyTorch, and perhaps a web page that runs them."""

    model: Positional[str]
    """Model folder (RUN/model), or a hub id like user/name."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Folder for a2b.onnx, b2a.onnx and config.json."""
    page: bool = False
    """Also write index.html: one file that translates in the visitor's browser, without a server."""
    runtime: Path | None = None
    """The npm package onnxruntime-web that the page carries; downloaded once if not given."""


def export_command(arguments: list[str]) -> None:
    """Write a model as ONNX files, checked against PyTorch, and perhaps a web page that runs them."""
    options = tyro.cli(ExportOptions, prog="ugatit export", args=arguments)
    if options.out.is_dir() and not (options.out / "a2b.onnx").exists() and any(options.out.iterdir()):
        raise UserError(f"{options.out} holds other files: give another -o, the folder is replaced as a whole.")
    translator = Translator.load(options.model, "cpu")
    with results(options.out):
        for direction, worst in export(translator, options.out).items():
            say(f"{options.out / direction}.onnx: largest difference from PyTorch {worst:.1e} of a range of 2")
        if options.page:
            say(f"{write_page(options.out, options.runtime)}: open it in a browser, or put it on any web site")


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a model on test pictures, or one folder of pictures against another (--real DIR --fake DIR)."""

    protocol: Protocol
    model: Positional[str | None] = None
    """Model folder (RUN/model), or a hub id like user/name."""
    data: Positional[Path | None] = None
    """Folder with testA and testB inside; where they are missing, the share that training holds out is used."""
    real: Path | None = None
    """Instead of MODEL and DATA: folder of real pictures."""
    fake: Path | None = None
    """Instead of MODEL and DATA: folder of translated pictures."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("evaluation")
    """Folder for metrics.json, sheet.png and the translations."""
    paired: bool = False
    """Pictures of the same name are true counterparts: also measure the distance to them."""
    size: Annotated[int, Field(ge=32, le=4096)] = 256
    """With --real and --fake: side in pixels of the squares that pictures are made; a model's is its own."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The run's --holdout; only matters where there are no test folders. The run's --seed is then this command's."""
    device: str | None = None
    """cuda, cpu, ...; CUDA where there is one if not given."""


def evaluate_command(arguments: list[str]) -> None:
    """Measure a model, or a folder of translated pictures: KID, FID and more, with the protocol."""
    options = tyro.cli(OmitArgPrefixes[EvaluateOptions], prog="ugatit evaluate", args=arguments)
    folders = options.real is not None and options.fake is not None
    if folders == (options.model is not None) or (not folders and options.data is None):
        raise UserError("Nothing to evaluate was named: give MODEL and DATA, or --real DIR and --fake DIR.")
    check_range(EvaluateOptions, options)
    if options.real is not None and options.fake is not None:
        judge = Judge(options.protocol, find_device(options.device))
        metrics = evaluate_folders(judge, options.real, options.fake, options.size, options.paired, options.out, say)
    else:
        assert options.model is not None and options.data is not None
        translator = Translator.load(options.model, options.device)
        judge = Judge(options.protocol, translator.device)
        tests, roots, skipped = find_tests(options.data, options.holdout, options.protocol.seed)
        for file, reason in skipped:
            say(f"  skipped: {file} {reason}")
        metrics = evaluate_model(judge, translator, tests, roots if options.paired else None, options.out)
    console.print(metrics_table(metrics))
    say(f"Protocol:\n{protocol_text(metrics)}\nWritten to {options.out}")


def ablate_command(arguments: list[str]) -> None:
    """Train and measure every row of the paper's Table 1 on one data folder."""
    start = AblateConfig(preset_config("ugatit", option(arguments, "--preset") or "paper"))
    options = tyro.cli(
        OmitArgPrefixes[AblateConfig],
        prog="ugatit ablate",
        description=f"{ablate_command.__doc__} It takes the options of ugatit train; --seeds replaces --seed.",
        default=start,
        args=arguments,
    )
    check_range(AblateConfig, options)
    if options.train.data is None:
        raise UserError("No pictures were named: give DATA, a folder with trainA and trainB inside.")
    out = (options.train.out or Path("runs") / f"{options.train.data.resolve().name}-table1").resolve()
    metrics = ablate(replace(options, train=replace(options.train, data=options.train.data.resolve(), out=out)))
    say(f"Protocol:\n{protocol_text(metrics)}\nWritten to {out}")


def compare_command(arguments: list[str]) -> None:
    """Train several systems on one data folder and compare them: the paper's Table 3 and Figure 4."""
    options = tyro.cli(CompareConfig, prog="ugatit compare", args=arguments)
    check_range(CompareConfig, options)
    data = options.data.resolve()
    out = (options.out or Path("runs") / f"{data.name}-table3").resolve()
    metrics = compare(replace(options, data=data, out=out))
    say(f"Protocol:\n{protocol_text(metrics)}\nWritten to {out}")


@dataclass(frozen=True)
class InspectOptions:
    """Show what a model costs, what its rho chose and where its networks look."""

    model: Positional[str]
    """Model folder (RUN/model), or a hub id like user/name."""
    inputs: Annotated[Positional[list[str]], arg(name="input")] = field(default_factory=list)
    """Pictures to look at: files, folders or globs; or one folder with testA and testB inside."""
    direction: Direction = "a2b"
    """Which way the pictures go; both ways for a folder with testA and testB."""
    pictures: Annotated[int, Field(ge=1)] = 4
    """How many of them, evenly spread."""
    size: Annotated[int | None, Field(ge=32, le=4096, multiple_of=4)] = None
    """Side in pixels of the picture whose translation is costed; the model's own if not given."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Pictures of each domain in the training step that is costed."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("inspection")
    """Folder for inspection.json, rho.png and attention.png."""
    device: str | None = None
    """cuda, cpu, ...; CUDA where there is one if not given."""


def inspect_command(arguments: list[str]) -> None:
    """Show what a model costs, what its rho chose and where its networks look."""
    options = tyro.cli(InspectOptions, prog="ugatit inspect", args=arguments)
    for name, value, least in (
        ("size", options.size, 32),
        ("batch", options.batch, 1),
        ("pictures", options.pictures, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"--{name} {value} is too small: give {least} or more.")
    if options.size is not None and options.size % 4:
        raise UserError(f"--size {options.size}: give a multiple of 4.")
    translator = Translator.load(options.model, options.device, with_training=True)
    folders = {side: Path(options.inputs[0]) / f"test{side}" for side in "AB"} if len(options.inputs) == 1 else {}
    if folders and all(folder.is_dir() for folder in folders.values()):
        files = {side: find_files(folder) for side, folder in folders.items()}
    else:
        files = {options.direction[0].upper(): [job.source for job in plan_jobs(options.inputs, options.out)]}
    tests = {}
    for side, found in files.items():
        good, skipped = check_pictures(spread(found, options.pictures))
        for file, reason in skipped:
            say(f"  skipped: {file} {reason}")
        if good:
            tests[side] = read_tests(good, translator.side, translator.channels)
    inspect(translator, tests, options.size or translator.side, options.batch, options.out, console)
    say(f"Written to {options.out}")


@dataclass(frozen=True)
class DemoOptions:
    """Train on the emoji inside the package and show what comes out."""

    out: Annotated[Path, arg(aliases=["-o"])] = Path("ugatit-demo")
    """Folder for the run and the sheets."""
    steps: int | None = None
    """Fewer or more steps than the quick preset's."""


def demo_command(arguments: list[str]) -> None:
    """Train on the emoji inside the package and show what comes out; about ten minutes on two cores."""
    options = tyro.cli(DemoOptions, prog="ugatit demo", args=arguments)
    demo(options.out, options.steps)


def serve_command(arguments: list[str]) -> None:
    """Translate pictures on a web page, and over HTTP for programs."""
    config = tyro.cli(web.ServeConfig, prog="ugatit serve", args=arguments)
    check_range(web.ServeConfig, config)
    guard.run(web.application(config), web.rules(config), config.port, say)


def study_command(arguments: list[str]) -> None:
    """Ask people which of several translations is the best; study report DB prints what they said."""
    if arguments[:1] == ["report"]:
        report = tyro.cli(study.ReportConfig, prog="ugatit study report", args=arguments[1:])
        rows = study.shares(study.Answers(report.db))
        console.print(study.report_table(rows))
        if report.csv:
            with results(report.csv):
                study.write_csv(rows, report.csv)
        return
    config = tyro.cli(study.StudyConfig, prog="ugatit study", args=arguments)
    check_range(study.StudyConfig, config)
    guard.run(study.application(config, say), study.rules(config), config.port, say)


def prepare_command(arguments: list[str]) -> None:
    """Make a data set of raw pictures: faces cut out, bad ones dropped, small ones upscaled, split."""
    config = tyro.cli(PrepareConfig, prog="ugatit prepare", args=arguments)
    check_range(PrepareConfig, config)
    with results(config.out):
        entries = prepare(config, say, partial(track, console=console, disable=not console.is_terminal))
    console.print(report_table(entries))
    say(f"Written to {config.out}; kept.png and dropped.png show it, manifest.json says why")


COMMANDS = {
    "demo": demo_command,
    "prepare": prepare_command,
    "train": train_command,
    "translate": translate_command,
    "evaluate": evaluate_command,
    "inspect": inspect_command,
    "ablate": ablate_command,
    "compare": compare_command,
    "import": import_command,
    "export": export_command,
    "serve": serve_command,
    "study": study_command,
}


def usage() -> str:
    lines = [f"  {name:10} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: ugatit COMMAND ...", "", *lines, "", "ugatit COMMAND --help tells the options."])


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"ugatit {ugatit.__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        say(f"There is no command {arguments[0]}: choose one of {', '.join(COMMANDS)}.")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's end is a person's Ctrl-C
    try:
        COMMANDS[arguments[0]](arguments[1:])
    except UserError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("Stopped; what was written stays.")
        return 130
    return 0
