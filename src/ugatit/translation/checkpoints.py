"""Public checkpoints: what a file or folder is, and the system that it becomes."""

import re
import struct
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ugatit.data.archives import UNREADABLE
from ugatit.io.errors import UserError, first_problem, words_of
from ugatit.io.files import CodeError, is_full, open_regular, read_json, read_torch
from ugatit.io.terminal import say, some
from ugatit.systems.base import DIRECTIONS, Direction, System, opposite
from ugatit.translation.baselines import import_baseline
from ugatit.translation.folder import CHECKPOINTS, check_header
from ugatit.translation.released import (
    FLOATS,
    GENERATORS,
    NETWORKS,
    STATISTICS,
    from_released,
    is_generator,
    is_released,
    released_in,
)
from ugatit.translation.tensorflow import import_tensorflow, index_of, lacks_index
from ugatit.translation.toolkit import import_toolkit, is_toolkit
from ugatit.translation.unpacking import unpack
from ugatit.translation.wrapped import unwrapped

READ = (
    "a *_params_*.pt file of U-GAT-IT's authors' PyTorch code, the folder of a checkpoint of their TensorFlow code, "
    "latest_net_G*.pth of the CycleGAN toolkit, gen_*.pt of MUNIT or UNIT, a checkpoint of DRIT, or *_net_G_float.pth "
    "of CartoonGAN"
)
SUFFIXES = (*CHECKPOINTS, ".safetensors")  # of what is looked for in folders
PACKED = "a packed file"
HEADS = {  # what a file begins with, and what that is
    b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"GIF8": "a picture", b"\x89HDF": "a file of Keras (HDF5)",
    b"PAR1": "a table (Parquet)", b"\x1f\x8b": PACKED, b"Rar!": PACKED,
    b"7z\xbc\xaf": PACKED, b"\xfd7zXZ": PACKED,
    b"\x28\xb5\x2f\xfd": PACKED,
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"<": "a web page, not the file that it offers", b"{": "what a server said, not the file that it offers",
}  # fmt: skip
HEAD = 512  # bytes that are looked at
# A generator's direction in its file's name: A2B, a_to_b and the like, capitals also right after another word, as in
# genA2B; A_B; or the domain alone.
WAY = re.compile(
    r"(?<![A-Za-z])(?:(?i:a_?(?:2|to)_?b|b_?(?:2|to)_?a))(?![A-Za-z])"
    r"|(?:A_?(?:2|[Tt]o)_?B|B_?(?:2|[Tt]o)_?A)(?![A-Za-z])"
    r"|(?<![A-Za-z])(?:A[_-]?B|B[_-]?A)(?![A-Za-z0-9])"
)
END = re.compile(r"(?:^|[^A-Za-z0-9])([AB])(?![A-Za-z0-9])")
JUDGE = re.compile(r"(?i)(?:^|[^a-z])(?:net_?)?d(?:is[a-z]*)?(?:[^a-z]|$|_?[ab]$)")  # a discriminator's name
KEYS = {  # a name in a checkpoint, and whose it is
    "g_ema": "of StyleGAN", "pytorch-lightning_version": "of Lightning", "netG_A": "of a trainer",
    "model.model.0.weight": "a U-Net of the CycleGAN toolkit, whose ResNets are read",
    "model.0.weight": "a discriminator of the CycleGAN toolkit, whose generators are read",
}  # fmt: skip


def import_checkpoint(
    paths: list[Path], size: int = 256, direction: Direction | None = None, smoothing: bool = True
) -> System:
    """Turn a public checkpoint into our system; networks that it lacks stay on the meta device.

    Args:
        paths: a file of the authors' PyTorch code; the folder, prefix or index of a checkpoint of their TensorFlow
            code; one or two generators of the CycleGAN toolkit, A to B first; a checkpoint of MUNIT's, UNIT's, DRIT's
            or CartoonGAN's code; or a folder or zip file with these.
        size: side in pixels of the pictures that it was trained on, where no shape tells.
        direction: of a single generator of the toolkit; by default what its name says, else "a2b".
        smoothing: whether a checkpoint of TensorFlow was trained with the option of that name, unless its folder is
            called as one that was not.

    Raises:
        UserError: it is something else, damaged, or holds code; or there are no pictures of that size.
    """
    if not paths:
        raise UserError(f"No checkpoint was named: give {READ}.")
    if not 32 <= size <= 4096 or size % 4:
        raise UserError(f"`size={size}`: give a multiple of 4 from 32 to 4096.")
    for path in paths:
        if lacks_index(path):
            raise UserError(f"{path} is a checkpoint of TensorFlow without its .index: put that beside it.")
    packed = [path for path in paths if path.is_file() and zipfile.is_zipfile(path) and not is_torch(path)]
    if packed and len(paths) > 1:
        raise UserError(f"{packed[0]} is a zip file, and others were given with it: give it alone, or unpack it.")
    if packed:
        return import_zipped(packed[0], size, direction, smoothing)
    paths = [inside(path) for path in paths]
    if len(paths) == 1 and index_of(paths[0]) is not None:
        need_no_direction(direction)
        return usable(import_tensorflow(paths[0], size, smoothing), paths[0])
    if not smoothing:
        raise UserError("`smoothing=False` is for checkpoints of TensorFlow: leave it out.")
    files = [file for path in paths for file in (checkpoints_in(path) if path.is_dir() else [path])]
    if any(path.is_dir() for path in paths):
        say(f"Read: {', '.join(file.name for file in files)}.")
    if len(files) > 2:
        raise UserError(f"{len(files)} checkpoints were given: give one, or the two generators of one training.")
    if len(files) == 1:
        return usable(from_one(files[0], size, direction), files[0])
    need_no_direction(direction)
    founds = [read_checkpoint(file) for file in files]
    if all(is_generator(found) or is_released(found) for found in founds):
        return usable(from_released(both_generators(files, founds), files[0], size), files[0])
    states = [toolkit_state(file, found) for file, found in zip(files, founds, strict=True)]
    return usable(import_toolkit(dict(zip(ways_of(files), states, strict=True)), files[0], size), files[0])


def both_generators(files: list[Path], founds: list[Any]) -> dict[str, Any]:
    """The two generators of the authors' code in two files, by their names there or else by those of the files.

    Raises:
        UserError: both are the same one.
    """
    known = [next(name for name in GENERATORS if name in found) if is_released(found) else None for found in founds]
    if None in known:
        known = [f"gen{way.upper()}" for way in ways_of(files)]
    if known[0] == known[1]:
        raise UserError(f"{files[0]} and {files[1]} both hold {known[0]}: give one, or the two of one training.")
    return {str(name): found.get(name, found) for name, found in zip(known, founds, strict=True)}


def from_one(file: Path, size: int, direction: Direction | None) -> System:
    """The system of a single file of PyTorch; arguments and errors are those of `import_checkpoint`."""
    found = read_checkpoint(file)
    if is_generator(found):
        return from_released({f"gen{way_told(file, direction).upper()}": found}, file, size)
    if (networks := released_in(found)) is not None:
        if direction is None or [name for name in GENERATORS if name in networks] != [f"gen{direction.upper()}"]:
            need_no_direction(direction)
        return from_released(networks, file, size)
    if (system := import_baseline(found, file, size)) is not None:
        need_no_direction(direction)
        return system
    generators = generators_in(found)
    if not generators:
        return import_toolkit({way_told(file, direction): toolkit_state(file, found)}, file, size)
    if len(generators) == 2:
        need_no_direction(direction)
        ways = ways_of([Path(name) for name in generators])
    else:
        ways = [direction or way_of(Path(*generators)) or way_told(file, None)]
    states = dict(zip(ways, generators.values(), strict=True))
    if all(map(is_generator, states.values())):
        return from_released({f"gen{way.upper()}": state for way, state in states.items()}, file, size)
    return import_toolkit({way: toolkit_state(file, state) for way, state in states.items()}, file, size)


def generators_in(found: Any) -> dict[str, dict[str, Any]]:
    """The generators of the authors' code or the toolkit that are in a checkpoint beside other things, by the names
    that they have there, as dicts or before the first dot of the weights' names: one or two; none if there are more."""
    if not isinstance(found, dict) or is_toolkit(found):
        return {}
    flat: dict[str, dict[str, Any]] = {}
    for name, value in found.items():
        network, dot, weight = str(name).partition(".")
        if dot:
            flat.setdefault(network, {})[weight] = value
    parts = flat | {str(name): part for name, part in found.items() if isinstance(part, dict)}
    generators = {name: part for name, part in parts.items() if is_generator(part) or is_toolkit(part)}
    return generators if len(generators) <= 2 else {}


def usable(system: System, path: Path) -> System:
    """A system whose settings are such as its folder may tell.

    Raises:
        UserError: they are not.
    """
    try:
        TypeAdapter(type(system.config)).validate_python(asdict(system.config))
    except ValidationError as error:
        raise UserError(
            f"The checkpoint {path} does not fit {type(system).__name__} here: {first_problem(error)}."
        ) from None
    return system


def need_no_direction(direction: Direction | None) -> None:
    """Raises UserError if a direction was given for what has its own."""
    if direction is not None:
        raise UserError("`direction` is for a single generator without a name of its own: leave it out.")


def way_of(file: Path) -> Direction | None:
    """The direction that a generator's file tells by its name, such as ``latest_net_G_B`` or ``netG_A2B``."""
    stem = without_copy(file.stem)
    ways, ends = WAY.findall(stem), END.findall(stem)
    if ways:
        return "a2b" if ways[-1].lower().startswith("a") else "b2a"
    return {"A": "a2b", "B": "b2a"}[ends[-1]] if len(set(ends)) == 1 else None  # type: ignore[return-value]


def without_copy(stem: str) -> str:
    """A file's name without what a second download puts behind it."""
    return re.sub(r"\s*\(\d+\)$|[ _-]copy$", "", stem, flags=re.IGNORECASE)


def way_told(file: Path, direction: Direction | None) -> Direction:
    """The direction of a single generator: the given one, or what its file's name tells; if neither, A to B is taken,
    and that said."""
    told = direction or way_of(file)
    if told is None:
        say(f"{file.name} does not tell its direction, so it is taken for A to B's.", "yellow")
    return told or "a2b"


def ways_of(files: list[Path]) -> list[Direction]:
    """The directions of two generators: by their names, else A to B first.

    Raises:
        UserError: both tell the same.
    """
    first, second = map(way_of, files)
    if first is not None and first == second:
        raise UserError(f"{files[0]} and {files[1]} are both {first} by their names: give one, or rename the other.")
    first = first or (opposite(second) if second else "a2b")
    return [first, opposite(first)]


def is_torch(path: Path) -> bool:
    """Whether a zip file is what ``torch.save`` writes, or damaged: torch tells why it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error):
        return True


def import_zipped(path: Path, size: int, direction: Direction | None, smoothing: bool) -> System:
    """`import_checkpoint` of what is in a zip file, whose names lead nowhere else."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(path, Path(folder))
        except (*UNREADABLE, ValueError) as error:
            full = f"free some space in {tempfile.gettempdir()}, or unpack it yourself"
            advice = full if is_full(error) else "get it again, or unpack it and give what is in it"
            raise UserError(f"{path} cannot be unpacked ({error}): {advice}.") from None
        folders = holding(Path(folder))
        if not folders:
            raise UserError(f"{path} holds no checkpoint that is known: give {READ}.")
        if len(folders) > 1:
            names = some([found.relative_to(folder) for found in folders])
            raise UserError(f"{path} holds checkpoints in several folders ({names}): unpack it, and give one of them.")
        try:
            return import_checkpoint(folders, size, direction, smoothing)
        except UserError as error:  # of a folder that nobody knows, and that is gone
            raise UserError(str(error).replace(folder, str(path))) from None


def holding(folder: Path) -> list[Path]:
    """The folders with checkpoints in a folder, itself among them."""
    return sorted({file.parent for file in folder.rglob("*") if file.suffix in SUFFIXES and is_seen(file)})


def inside(path: Path) -> Path:
    """A folder itself, or the only one with checkpoints in it, as a zip file unpacks to; a file as it is."""
    if not path.is_dir() or (path / "config.json").exists():
        return path
    folders = holding(path)
    if len(folders) > 1 and path not in folders:
        raise UserError(f"{path} holds checkpoints in several folders ({some(folders)}): give one of them.")
    return folders[0] if len(folders) == 1 else path


def is_seen(file: Path) -> bool:
    """Whether a file is no hidden one, nor what a Mac puts beside files."""
    return not file.name.startswith(".") and "__MACOSX" not in file.parts


def is_ours(folder: Path) -> bool:
    """Whether a folder is a run's or a model's, by its config.json, which other programs have too."""
    with suppress(ValueError):
        return "system" in read_json(folder / "config.json")
    return False


def checkpoints_in(folder: Path) -> list[Path]:
    """The newest checkpoint of a folder: a file, or two generators.

    Raises:
        UserError: it has none.
    """
    if is_ours(folder):
        ours = folder / "model" if (folder / "model").is_dir() else folder
        raise UserError(f"{folder} is of this package: give {ours} as it is to translate or train.")
    both = [file for file in (folder / f"latest_net_G_{side}.pth" for side in "AB") if file.exists()]
    released, munit = (
        sorted(filter(is_seen, folder.glob(pattern)), key=steps_in) for pattern in ("*_params_*.pt", "gen_*.pt")
    )
    others = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and is_seen(file)]
    sets = {file.name.partition("_params_")[0] for file in released}
    if len(sets) > 1:
        raise UserError(f"{folder} holds checkpoints of several trainings ({some(sorted(sets))}): give one file.")
    both = both or pair_in(others)
    toolkit = sorted(folder.glob("latest_net_G.pth"))
    found = released[-1:] or both or toolkit or munit[-1:] or others[: len(others) == 1]
    if not found:
        several = f"{len(others)} checkpoints, none of which is known by its name: give one or two, " if others else ""
        raise UserError(f"{folder} holds {several or 'no checkpoint that is known: give '}{READ}.")
    return found


def pair_in(files: list[Path]) -> list[Path]:
    """The two generators among files, or the newest two of one step; none if their names do not tell."""
    generators = sorted((file for file in files if not JUDGE.search(file.stem)), key=steps_in)
    newest = {way_of(file): file for file in generators}
    steps = {steps_in(file)[:2] for file in newest.values()}
    known = set(newest) == set(DIRECTIONS) and (len(generators) == 2 or len(steps) == 1)
    return [newest[way] for way in DIRECTIONS] if known else []


def steps_in(file: Path) -> tuple[bool, int, str]:
    """What a checkpoint's place among those of its training goes by: latest, or its last number."""
    numbers = re.findall(r"\d+", WAY.sub("", without_copy(file.stem)))
    return "latest" in file.stem, int(numbers[-1]) if numbers else 0, file.name


def read_checkpoint(path: Path) -> Any:
    """What a file holds.

    Raises:
        UserError: it is no checkpoint of PyTorch, or holds code.
    """
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
        seems = seems_to_be(head)
        if seems == PACKED:
            raise UserError(f"The checkpoint {path} {packed_how(path)}.")
        if seems:
            raise ValueError(f"seems to be {seems}")
        found = read_safetensors(path) if head[8:10] == b'{"' else read_torch(path)
        return unwrapped(found, NETWORKS)
    except CodeError as error:
        raise UserError(
            f"The checkpoint {path} {error}, and code of others is never run here: where you trust it, load it with "
            "torch.load(FILE, weights_only=False) and write its state dicts alone with torch.save."
        ) from None
    except ValueError as error:
        otherwise = "get it again, or " if str(error).startswith("cannot be read") else ""
        raise UserError(f"The checkpoint {path} {error}: {otherwise}give {READ}.") from None


def packed_how(path: Path) -> str:
    """What is said of a packed file, as a phrase."""
    with suppress(tarfile.TarError, OSError, EOFError), tarfile.open(path) as archive:
        if {"storages", "pickle"} <= {Path(name).name for name in archive.getnames()}:
            return "is of PyTorch before 0.1.10, which is not read: load it and save it again with a newer one"
    return f"seems to be {PACKED}: unpack it, and give the folder"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors, which holds nothing else.

    Raises:
        ValueError: it is damaged; the message is a phrase that says why.
    """
    try:
        check_header(path)
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"cannot be read as a file of safetensors ({words_of(error)})") from None


def seems_to_be(head: bytes) -> str | None:
    """What a file is by its first `HEAD` bytes, if it is none that torch writes."""
    start = head.lstrip() if head[:1].isspace() else head
    if head[257:262] == b"ustar":
        return PACKED
    if head[8:10] == b'{"':  # safetensors
        return None
    if head and not head.strip(b"\0"):
        return "empty: it is all zeros"
    known = next((what for begin, what in HEADS.items() if start.startswith(begin)), None)
    words = len(start) > 3 and all(32 <= letter < 127 or letter in b"\r\n\t" for letter in start)
    return known or ("text, not the file that was wanted" if words else None)


def toolkit_state(path: Path, found: Any) -> dict[str, Tensor]:
    """The tensors of a generator of the CycleGAN toolkit.

    Raises:
        UserError: it is something else, which is named.
    """
    plain = isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and (value.dtype in FLOATS or name.endswith(STATISTICS))
        for name, value in found.items()
    )
    state = found if plain else {}
    if state and is_toolkit(state):
        if any(tensor.is_floating_point() and not tensor.isfinite().all() for tensor in state.values()):
            raise UserError(f"The checkpoint {path} is damaged (a weight is no number): get it again.")
        return state
    names = list(map(str, found)) if isinstance(found, dict) else []
    known = next((whose for key, whose in KEYS.items() if key in names), None)
    seems = known or (f"of another network ({', '.join(names[:3])})" if names else "of no network that is known")
    raise UserError(f"The checkpoint {path} seems to be {seems}: give {READ}.")
