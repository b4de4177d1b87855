"""How good translations are: KID and FID as torch-fidelity computes them, faithfulness, and distance to the truth.

Every result comes with its protocol, since figures of different protocols cannot be compared (docs/evaluation.md).
"""

import math
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

import ugatit
from ugatit.data.archives import PICTURES
from ugatit.data.finding import check_pictures, find_files, look_at, need_two, spread
from ugatit.data.samples import UNSCALED
from ugatit.data.sampling import read_tests
from ugatit.evaluation.features import load_features
from ugatit.evaluation.metrics import (
    BATCH,
    LEAST,
    Files,
    Protocol,
    attention_rank,
    check_subsets,
    extract,
    fid,
    kid,
    means,
    paired,
)
from ugatit.evaluation.sharing import is_first, shared, shared_folder
from ugatit.io.errors import UserError, package
from ugatit.io.files import absent, need_outside, short_name, write_json, writing
from ugatit.io.files import real as real_path
from ugatit.io.sheet import draw_sheet, save_picture, to_picture
from ugatit.io.terminal import counted, say, some
from ugatit.nn.precision import tf32
from ugatit.systems.base import DIRECTIONS, Direction, Range, Samples, channels_of, opposite
from ugatit.translation.columns import sheet_columns
from ugatit.translation.translator import Translator

ROWS = 8  # of the sheet
NUMBERED = re.compile(r"\d{5,}-")  # how translations of test pictures begin
TOOLKIT = re.compile(r"_(real|fake|rec|idt)(_[AB])?$")  # how names of the CycleGAN toolkit's results end
METRICS = {  # key of metrics.json, for KID with _mean and _std: what it is called on the terminal
    "kid": "KID x 100 ± std x 100",
    "kid_source": "KID to the source",
    "kid_both": "mean of the two",
    "fid": "FID",
    "cycle_l1": "cycle L1",
    "l1": "L1 to the truth",
    "ssim": "SSIM to the truth",
    "perceptual": "perceptual distance to the truth",
    "attention_rank": "attention's rank correlation with the true change",
}


def usable(folder: Path, option: str, range: Range | None = None) -> list[Path]:
    """The pictures below a folder that can be read with a range; what is not one is reported.

    Raises:
        UserError: there is no such folder, or it has too few pictures.
    """
    if not folder.is_dir():
        raise UserError(f"{option} {folder} {absent(folder)}.")
    files = find_files(folder)
    need_one_kind(files, folder)
    maps = attention_maps(files)
    if maps:
        say(f"  left out: {counted(len(maps), 'attention map')} in {folder}, no translations")
    good, skipped = check_pictures([file for file in files if file not in maps], Samples(3, range))
    for one in skipped:
        say(f"  skipped: {one}")
    if len(good) < LEAST and any(one.reason == UNSCALED for one in skipped):
        raise UserError(f"{folder} has floats or 32 bits: tell which samples are black and white with `range`.")
    return enough(good, folder)


def has_deep(files: list[Path]) -> bool:
    """Whether there are pictures of more than 8 bits."""
    return any(look.deep for look in look_at(files).good.values())


def need_one_kind(files: list[Path], folder: Path) -> None:
    """Raises UserError if a folder has what `ugatit evaluate` wrote in both directions, or the pictures of several
    kinds that the CycleGAN toolkit writes beside each other."""
    if (folder / "metrics.json").is_file() and (parts := [way for way in DIRECTIONS if (folder / way).is_dir()]):
        raise UserError(
            f"{folder} is what ugatit evaluate wrote: give {folder / parts[0]}, the translations of one way."
        )
    kinds = sorted({found[0] for file in files if (found := TOOLKIT.search(file.stem))})
    if len(kinds) > 1:
        raise UserError(
            f"{folder} has pictures of several kinds, whose names end with {', '.join(kinds)}: put those of one "
            "kind into a folder of their own, and give that."
        )


def attention_maps(files: list[Path]) -> set[Path]:
    """Those that `ugatit translate --attention` wrote beside translations."""
    known = {file.with_suffix("") for file in files} | set(files)
    ending = ".attention.png"
    return {file for file in files if file.name.endswith(ending) and Path(str(file).removesuffix(ending)) in known}


def enough(files: list[Path], where: object) -> list[Path]:
    """Raises UserError if there are too few."""
    if len(files) < LEAST:
        raise UserError(f"{where} has {counted(len(files), 'usable picture')}, at least {LEAST} are needed: add more.")
    return files


def match(fake: list[Path], fake_folder: Path, truth: list[Path], truth_folder: Path) -> list[Path]:
    """For each translation the true counterpart: the file of its name, whatever the suffix, or of its name without
    the number that `ugatit evaluate` puts before it and what the CycleGAN toolkit puts behind it.

    Raises:
        UserError: one has none, or several.
    """
    exact = {name_in(truth_folder, file): file for file in truth}
    alike: dict[Path, list[Path]] = {}
    for name, file in exact.items():
        alike.setdefault(without_suffix(name), []).append(file)

    def counterpart(name: Path) -> Path:
        plain = without_suffix(name)
        bare = plain.with_name(TOOLKIT.sub("", NUMBERED.sub("", plain.name, 1)) or plain.name)
        found = [exact[name]] if name in exact else alike.get(plain) or alike.get(bare, [])
        if not found:
            raise UserError(
                f"{truth_folder} has no picture named {plain}, the counterpart: add it, or leave `paired` out."
            )
        if len(found) > 1:
            raise UserError(f"{found[0]} and {found[1].name} are both called like {name}: rename one.")
        return found[0]

    return [counterpart(name_in(fake_folder, file)) for file in fake]


def name_in(folder: Path, file: Path) -> Path:
    """A file's name in a folder; systems write accents in two ways, which are taken for one."""
    return Path(unicodedata.normalize("NFC", str(file.relative_to(folder))))


def without_suffix(name: Path) -> Path:
    """A picture's name without its suffix; dots within names are no suffixes."""
    return name.with_suffix("") if name.suffix.lower() in PICTURES else name


class Evaluator:
    """Measures sets of pictures by one protocol, the features of a real set only once.

    Args:
        protocol: how.
        device: for the feature network.

    Raises:
        UserError: a package of the extra ``evaluate`` is missing, or the feature network cannot be had.
    """

    def __init__(self, protocol: Protocol, device: torch.device):
        self.torch_fidelity = package("torch_fidelity", "evaluate").__version__
        package("torchmetrics", "evaluate")
        self.protocol, self.device = protocol, device
        self.network = load_features(protocol.features, protocol.weights, device)
        self.known: dict[tuple[tuple[Path, ...], int, Range | None], Tensor] = {}

    def features(self, pictures: Files) -> Tensor:
        """Features of real pictures, N x C in float64; they are kept, so the files must not change."""
        key = tuple(pictures.files), pictures.side, pictures.range
        if key not in self.known:
            self.known[key] = self.extract(pictures)
        return self.known[key]

    def extract(self, pictures: Files) -> Tensor:
        """Features of pictures, N x C in float64."""
        return extract(self.network, pictures, self.device)

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, Any]:
        """KID and FID of two sets' features, with the numbers of pictures."""
        mean, std, size = kid(real, fake, self.protocol)
        return {
            "kid_mean": mean,
            "kid_std": std,
            "fid": fid(real, fake),
            "pictures": {"real": len(real), "fake": len(fake)},
            "kid_subset_size": size,
        }

    def description(self, side: int) -> dict[str, Any]:
        """The protocol in full, as it is printed with every figure."""
        return {
            "features": self.network.name,
            "feature_weights_sha256": self.network.weights,
            "resize": f"shorter side to {side}, centre crop to {side} x {side}, 8 bit; then {self.network.resize}",
            "kid_kernel": "(x.y / C + 1)^3, unbiased",
            "kid_subsets": self.protocol.subsets,
            "kid_seed": self.protocol.seed,
            "torch_fidelity": self.torch_fidelity,
            "ugatit": ugatit.__version__,
        }


def evaluate_folders(
    evaluator: Evaluator, real: Path, fake: Path, side: int, pairs: bool, out: Path, range: Range | None = None
) -> dict[str, Any]:
    """Compare two folders of pictures.

    Args:
        evaluator: by what protocol.
        real, fake: the folders.
        side: pixels that pictures are squared to.
        pairs: whether files of the same name are counterparts.
        out: folder for ``metrics.json`` and ``sheet.png``.
        range: the samples that are black and white in a folder with pictures of more than 8 bits; what their type says,
            if not given.

    Raises:
        UserError: a folder or a counterpart is missing, there are too few pictures, or the results would lie among
            them.
    """
    folders = {"real": real, "fake": fake}
    for folder in folders.values():
        need_outside(out, folder, "the sheet would count as a picture")
    if real_path(fake) != real_path(real):  # a set against itself shows what a figure's least is
        need_two(fake, real, ("fake", "real"))
    with writing(out):  # told before the work
        out.mkdir(parents=True, exist_ok=True)
    chosen = {name: usable(folder, f"`{name}`", range) for name, folder in folders.items()}
    deep = {name for name, files in chosen.items() if range and has_deep(files)}
    if range and not deep:
        raise UserError("`range` is for pictures of more than 8 bits, of which neither folder has one: leave it out.")
    sets = {name: Files(files, side, range if name in deep else None) for name, files in chosen.items()}
    check_subsets(evaluator.protocol, *(len(chosen.files) for chosen in sets.values()))
    counterparts = match(sets["fake"].files, fake, sets["real"].files, real) if pairs else []
    result = evaluator.compare(evaluator.features(sets["real"]), evaluator.extract(sets["fake"]))
    if pairs:
        truth = sets["real"]._replace(files=counterparts)
        result |= paired(evaluator.network, sets["fake"], truth, evaluator.device)
    columns = {name: read_tests(spread(one.files, ROWS), side, Samples(3, one.range)) for name, one in sets.items()}
    return write_results({"protocol": evaluator.description(side), **result}, columns, out)


@tf32(False)
def evaluate_model(
    evaluator: Evaluator, translator: Translator, tests: dict[str, list[Path]], roots: dict[str, Path] | None, out: Path
) -> dict[str, Any]:
    """Translate test pictures both ways and compare them with the other domain's.

    Args:
        evaluator: by what protocol.
        translator: the model.
        tests: test pictures of domain "A" and "B".
        roots: if pictures of the same name are counterparts: the folders of the two domains, else None.
        out: folder for ``metrics.json``, ``sheet.png`` and the translations, ``a2b/`` and ``b2a/``.

    Raises:
        UserError: a counterpart is missing, there are too few pictures, or ``out`` cannot be written.
    """
    directions = translator.system.directions
    truths = counterparts(evaluator.protocol, channels_of(translator.system.config), tests, roots, directions)
    result: dict[str, Any] = {"protocol": evaluator.description(translator.side)}
    columns: dict[str, Tensor] = {}
    need_own(out)
    with writing(out):  # figures and translations of another model go together
        (out / "metrics.json").unlink(missing_ok=True)
        for way in set(DIRECTIONS) - set(directions):
            shutil.rmtree(out / way, ignore_errors=True)
    for direction in directions:
        source, target = direction.upper().split("2")
        real, origin = (
            Files(tests[side], translator.side, translator.samples(side.lower()).range) for side in (target, source)
        )
        truth = truths[direction]
        fake, faith = write_translations(translator, origin.files, direction, truth, out / direction)
        made = evaluator.extract(fake)
        row = evaluator.compare(evaluator.features(real), made)
        mean, std, _ = kid(evaluator.features(origin), made, evaluator.protocol)
        row |= {"kid_source_mean": mean, "kid_source_std": std, **faith}
        row |= {f"kid_both_{part}": (row[f"kid_{part}"] + row[f"kid_source_{part}"]) / 2 for part in ("mean", "std")}
        if truth:
            row |= paired(evaluator.network, fake, real._replace(files=truth), evaluator.device)
        result[direction] = row
        x = read_squares(translator, spread(origin.files, ROWS), direction[0])
        y = read_squares(translator, spread(truth, ROWS), direction[-1]) if truth else None
        columns |= sheet_columns(translator.at_size, x, direction, back=len(directions) == 2, truth=y)
    return write_results(result, columns, out)


def read_squares(translator: Translator, files: list[Path], domain: str) -> Tensor:
    """Pictures of domain "a" or "b" as a translator's networks were trained on them: shorter side to that size, centre
    crop; N x channels x size x size in [-1, 1]."""
    return read_tests(files, translator.side, translator.samples(domain))


def counterparts(
    protocol: Protocol,
    channels: tuple[int, int],
    tests: dict[str, list[Path]],
    roots: dict[str, Path] | None,
    directions: tuple[Direction, ...],
) -> dict[Direction, list[Path] | None]:
    """The true counterparts of each direction's sources, None without the folders of the two domains.

    Raises:
        UserError: one is missing, or the pictures cannot be measured: they are too few, or neither grey nor colour.
    """
    if not {1, 3}.issuperset(channels):
        raise UserError(
            f"This model's pictures have {' and '.join(map(str, channels))} channels: KID and FID are known for grey "
            "and colour only."
        )
    check_subsets(protocol, *(len(enough(files, f"Domain {side}'s test set")) for side, files in tests.items()))
    truths: dict[Direction, list[Path] | None] = dict.fromkeys(directions)
    if roots is None:
        return truths
    for direction in directions:
        source, target = direction.upper().split("2")
        truths[direction] = match(tests[source], roots[source], tests[target], roots[target])
    return truths


def need_own(out: Path) -> None:
    """Raises UserError if the folders of translations in a folder of results, which are replaced as a whole, have other
    files than as many as the numbers go to that these begin with."""
    for way in DIRECTIONS:
        names = [file.name for file in (out / way).glob("*")]
        numbers = {f"{number:05d}" for number in range(len(names))}
        others = [name for name in names if not (name.partition("-")[0] in numbers and name.endswith(".png"))]
        if others:
            raise UserError(
                f"{out / way} has other files ({some(sorted(others))}), which would be lost: give another `out`."
            )


def translation_name(number: int, source: Path) -> str:
    """What the translation of the test picture with that number is called."""
    return short_name(f"{number:05d}-{source.stem}.png")


def write_translations(
    translator: Translator, files: list[Path], direction: Direction, truth: list[Path] | None, folder: Path
) -> tuple[Files, dict[str, float]]:
    """Translate squared pictures into PNG files in a folder, which is replaced as a whole; also how faithful that is.
    All processes share the work, and need the same folder.

    Returns:
        The files, in order; ``cycle_l1``, the mean absolute difference after translating there and back, 0 to 1, if the
        model goes both ways; with ``truth``, ``attention_rank`` if it has attention.
    """
    back = opposite(direction)
    names = [translation_name(number, file) for number, file in enumerate(files)]

    def part(number: int) -> dict[str, Tensor]:
        batch = slice(number * BATCH, (number + 1) * BATCH)
        x = read_squares(translator, files[batch], direction[0])
        made = translator.translate(x, direction, "model")
        for picture, name in zip(made.image, names[batch], strict=True):
            save_picture(to_picture(picture), temporary / name)
        faith = {}
        if back in translator.system.directions:
            faith["cycle_l1"] = ((translator.at_size(made.image, back).image - x).abs().mean((1, 2, 3)) / 2).cpu()
        if truth and made.heatmap is not None:
            y = read_squares(translator, truth[batch], direction[-1])
            faith["attention_rank"] = attention_rank(made.heatmap, x, y).cpu()
        return faith

    with shared_folder(folder) as temporary:
        parts = shared(part, math.ceil(len(files) / BATCH), f"translating {direction}")
    return Files([folder / name for name in names], translator.side), means(parts)


def write_results(metrics: dict[str, Any], columns: dict[str, Tensor], out: Path) -> dict[str, Any]:
    """Write ``metrics.json`` and ``sheet.png``, one process for all; returns the metrics."""
    if not is_first():
        return metrics
    with writing(out):
        write_json(out / "metrics.json", metrics, indent=2)
        draw_sheet(columns, out / "sheet.png")
    return metrics


def figure(row: dict[str, Any], key: str) -> str:
    """One figure as the paper prints it; empty if it was not measured."""
    if f"{key}_mean" in row:
        return f"{row[f'{key}_mean']:.2f} ± {row[f'{key}_std']:.2f}"
    return f"{row[key]:.4g}" if key in row else ""


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Figures of one or both directions as a table for the terminal."""
    columns: dict[str, dict[str, Any]] = {key: metrics[key] for key in DIRECTIONS if key in metrics}
    columns = columns or {"": metrics}
    table = Table("", *columns)
    for key, label in METRICS.items():
        cells = [figure(column, key) for column in columns.values()]
        if any(cells):
            table.add_row(label, *cells)
    for what in ("real", "fake"):
        table.add_row(f"{what} pictures", *[str(column["pictures"][what]) for column in columns.values()])
    table.add_row("pictures in a subset", *[str(column["kid_subset_size"]) for column in columns.values()])
    return table


def protocol_text(metrics: dict[str, Any]) -> str:
    """The protocol as lines of text."""
    return "\n".join(f"  {name.replace('_', ' ')}: {value}" for name, value in metrics["protocol"].items())
