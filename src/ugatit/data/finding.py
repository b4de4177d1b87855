"""Finding and checking the picture files of both domains, and which of them are kept for testing."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from ugatit.data.memory import Memory
from ugatit.data.places import opened
from ugatit.data.reading import Look, needs_range
from ugatit.data.samples import UNSCALED, joint_extent
from ugatit.data.seeds import rng
from ugatit.io.ahead import ahead
from ugatit.io.errors import UserError
from ugatit.io.files import absent, is_hidden, need_outside, printable, real
from ugatit.io.terminal import counted, say, some, tracked
from ugatit.systems.base import COLOUR, Range, Samples

T = TypeVar("T")
DARK = 1 / 16  # of the way from black to white; pictures without more are nearly black
EIGHT_BITS = {".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
AHEAD = 64  # files that are looked at before what was found is asked for
MINUTE = 60  # seconds after which what was found is kept, in case the process is killed
MANY = 1000  # files, with which looking through them takes so long that it is said


class Skipped(NamedTuple):
    """A file that was left out."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{printable(str(self.path))} {self.reason}"


# Finding


def find_files(folder: Path) -> list[Path]:
    """All files below a folder in a fixed order, hidden ones left out; linked folders are looked into, each once, and
    what cannot be looked into is said."""

    def refused(error: OSError) -> None:
        say(f"  skipped: {error.filename} cannot be looked into ({error.strerror})", "yellow")

    found, seen = [], {real(folder)}
    for root, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        found += [Path(root, name) for name in names if not is_hidden(name)]
        kept = []
        for name in sorted(folders, key=lambda name: (Path(root, name).is_symlink(), name)):
            place = real(Path(root, name))
            if not is_hidden(name) and place not in seen:
                seen.add(place)
                kept.append(name)
        folders[:] = kept
    return sorted(found)


class Checked(NamedTuple):
    """What looking at files found."""

    good: dict[Path, Look]  # pictures
    skipped: list[Skipped]


def look_at(files: Iterable[Path], channels: int = 3, root: Path | None = None) -> Checked:
    """Decode every file once: those that are pictures, and those that are not with the reason.

    Args:
        files: to look at.
        channels: that are needed of them.
        root: a folder that all lie in, whose pictures are remembered and not decoded again while they stay as they are.
    """
    files = list(files)
    memory = Memory(root, channels)

    def one(file: Path) -> Look | Skipped:
        try:
            return memory.look_at(file)
        except ValueError as error:
            return Skipped(file, str(error))

    known = {file: look for file in files if (look := memory.recall(file))}
    new = [file for file in files if file not in known]
    if len(new) >= MANY:
        say(f"looking through {len(new):,} files")
    told: list[Look | Skipped] = []
    try:
        with ThreadPoolExecutor() as pool, closing(ahead(pool, one, new, lambda: AHEAD)) as looks:
            for what in tracked(looks, "looking", len(new)) if new else ():
                told.append(what)
                memory.save(after=MINUTE)
    finally:  # what an interrupt leaves counts at the next start
        memory.save()
    seen = known | dict(zip(new, told, strict=True))
    found = [(file, seen[file]) for file in files]
    return Checked(
        {file: what for file, what in found if isinstance(what, Look)},
        [what for what in told if isinstance(what, Skipped)],
    )


def tell_more(looks: dict[Path, Look]) -> None:
    """Say which files have further pictures, where only the first counts."""
    if more := [file for file, look in looks.items() if look.more]:
        say(f"{counted(len(more), 'file')} with several pictures, of which the first counts: {some(more)}", "yellow")


def check_pictures(files: Iterable[Path], samples: Samples = COLOUR) -> tuple[list[Path], list[Skipped]]:
    """The files that are pictures, and those that are not with the reason; without a range, those that need one too."""
    found, skipped = look_at(files, samples.channels)
    tell_more(found)
    lost = {file: look for file, look in found.items() if samples.range is None and not look.scaled}
    return [file for file in found if file not in lost], [*skipped, *(Skipped(file, UNSCALED) for file in lost)]


# The range of samples


def common_range(looks: Iterable[Look], every: bool = False) -> Range | None:
    """The lowest and the highest sample of pictures; None if none counts.

    Args:
        looks: at the pictures.
        every: all of them count, and not only those whose samples do not tell what is black and what is white.
    """
    return joint_extent((look.low, look.high) for look in looks if every or not look.scaled)


def unscaled(files: Iterable[Path]) -> bool:
    """Whether there are pictures whose samples need a range; files whose suffix says 8 bits are not opened."""
    return any(needs_range(file) for file in files if file.suffix.lower() not in EIGHT_BITS)


# The two domains


Inventory = dict[str, dict[str, str]]  # by "trainA", "trainB", "testA" and "testB": files' names and SHA-256


@dataclass(frozen=True)
class Pictures:
    """The picture files of a run."""

    train_a: list[Path]
    train_b: list[Path]
    test_a: list[Path]
    test_b: list[Path]
    skipped: list[Skipped]
    roots: dict[str, Path]
    """The folders of "trainA", "trainB", "testA" and "testB"."""
    looks: dict[Path, Look]
    """What is known of each."""

    def need_training(self) -> None:
        """Raises UserError if a domain has no picture to train on."""
        for part, files in (("trainA", self.train_a), ("trainB", self.train_b)):
            if not files:
                raise UserError(f"All pictures in {self.roots[part]} were held out for testing before: add others.")

    def inventory(self) -> Inventory:
        """Names, relative to their folder, and contents of the files."""
        parts = {"trainA": self.train_a, "trainB": self.train_b, "testA": self.test_a, "testB": self.test_b}
        return {
            part: dict(zip(names_in(self.roots[part], files), [self.looks[f].sha256 for f in files], strict=True))
            for part, files in parts.items()
        }


def names_in(folder: Path, files: list[Path]) -> list[str]:
    """What files are called within a folder, wherever that lies."""
    return [file.relative_to(folder).as_posix() for file in files]


def differences(before: Inventory, now: Inventory) -> dict[str, list[str]]:
    """What is not as it was: the files by "added to trainA", "removed from trainA", "altered in trainA" and so on."""
    found = {}
    for part, files in now.items():
        known = before.get(part, {})
        found[f"added to {part}"] = [name for name in files if name not in known]
        found[f"removed from {part}"] = [name for name in known if name not in files]
        found[f"altered in {part}"] = [name for name in files if files[name] != known.get(name, files[name])]
    return {what: names for what, names in found.items() if names}


def need_data(data: Path) -> None:
    """Raises UserError if there is no such folder."""
    if not data.is_dir():
        raise UserError(f"The folder {data} {absent(data)}.")


def need_training_folders(data: Path) -> None:
    """Raises UserError if a data set has not the pictures of both domains to train on."""
    data = opened(data)
    need_data(data)
    for domain in "AB":
        if not (data / f"train{domain}").is_dir():
            raise UserError(
                f"The folder {data} has no folder train{domain}: put the pictures of domain {domain} there."
            )


def find_pictures(
    data: Path | None,
    source: Path | None,
    target: Path | None,
    holdout: float,
    seed: int,
    known: Inventory | None = None,
    old: bool = False,
    channels: tuple[int, int] = (3, 3),
) -> Pictures:
    """Find and check the pictures of both domains.

    Args:
        data: a folder with ``trainA`` and ``trainB``, and perhaps ``testA`` and ``testB``; or what
            `ugatit.data.places.opened` makes one of.
        source, target: instead of ``data``, one folder a domain.
        holdout: share of a domain's pictures kept for testing where it has no test folder, in [0, 1).
        seed: which ones.
        known: what a run that goes on was trained with; what was kept for testing stays so, and what was trained on.
        old: hold out as for runs without a record of what they were trained with.
        channels: that are needed of the pictures of A, and of those of B.

    Raises:
        UserError: a folder is missing, or a domain has no usable picture.
    """
    folders = folders_of(data, source, target)
    if source and target and known is None:
        need_two(source, target, ("source", "target"))
    found: dict[str, list[Path]] = {}
    roots: dict[str, Path] = {}
    skipped: list[Skipped] = []
    looks: dict[Path, Look] = {}

    def looked(folder: Path, needed: int) -> tuple[list[Path], list[Skipped]]:
        seen, bad = look_at(find_files(folder), needed, folder)
        skipped.extend(bad)
        looks.update(seen)
        return list(seen), bad

    for (domain, (train, test)), needed in zip(folders.items(), channels, strict=True):
        need_folder(train, data, resumed=known is not None)
        good, bad = looked(train, needed)
        if not good:
            why = "it has no files"
            if bad:
                why = f"{counted(len(bad), 'unusable file')}, {bad[0].path.name} {bad[0].reason}"
            raise UserError(f"The folder {train} has no usable picture ({why}): add pictures.")
        parts = [f"{part}{domain.upper()}" for part in ("train", "test")]
        roots |= dict.fromkeys(parts, train)
        if test is not None and test.is_dir():
            roots[parts[1]] = test
            found |= {f"train_{domain}": good, f"test_{domain}": looked(test, needed)[0]}
            continue
        trained, tested = (set((known or {}).get(part, ())) for part in parts)
        names = names_in(train, good)
        choose = held_out_before if old else held_out
        tests = (choose(names, holdout, seed) | tested) - trained
        found[f"train_{domain}"] = [file for file, name in zip(good, names, strict=True) if name not in tests]
        found[f"test_{domain}"] = [file for file, name in zip(good, names, strict=True) if name in tests]
    tell_more(looks)
    return Pictures(**found, skipped=skipped, roots=roots, looks=looks)


def folders_of(data: Path | None, source: Path | None, target: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """The folders of training and of test pictures of the domains "a" and "b"; arguments are those of `find_pictures`.

    Raises:
        UserError: too much is given, or too little.
    """
    if data is not None and (source or target):
        raise UserError("`source` and `target` replace `data`: give either `data` or both of them.")
    if data is not None:
        data = opened(data)
        return {"a": (data / "trainA", data / "testA"), "b": (data / "trainB", data / "testB")}
    if source is None or target is None:
        raise UserError("No pictures were named: give `data` (with trainA and trainB inside) or `source` and `target`.")
    return {"a": (source, None), "b": (target, None)}


def need_two(a: Path, b: Path, names: tuple[str, str]) -> None:
    """Raises UserError if the folders of two domains, called by the names of arguments, are one, or one lies in the
    other: then pictures would count for both."""
    if real(a) == real(b):
        raise UserError(f"`{names[0]}` and `{names[1]}` are both {a}: give a folder for each domain.")
    for name, inner, outer in ((names[0], a, b), (names[1], b, a)):
        if real(outer) in real(inner).parents:
            raise UserError(f"`{name}` {inner} lies in {outer}, so its pictures would count for both: move it.")


def need_apart(run: Path, data: Path | None, source: Path | None, target: Path | None) -> None:
    """Raises UserError if a run would lie among its pictures; the places of these are those of `find_pictures`."""
    if data is not None and not data.is_dir():  # what is unpacked or fetched lies elsewhere
        return
    for root in chain.from_iterable(folders_of(data, source, target).values()):
        if root is not None:
            need_outside(run, root, "its sheets would count as pictures")


def need_folder(train: Path, data: Path | None, resumed: bool) -> None:
    """Raises UserError if a folder of training pictures, of ``data`` if that is given, is not there."""
    if train.is_dir():
        return
    hint = absent(train)
    if data is not None and not resumed:
        need_data(opened(data))
    if data is not None:
        hint = "does not exist: `data` needs folders trainA and trainB; or give `source` and `target`"
    if resumed:
        hint = "does not exist: if it was moved, give its new place as `data` when the run is resumed"
    raise UserError(f"The folder {train} {hint}.")


def split_of(run: Path) -> tuple[Inventory | None, bool]:
    """What a run is trained and tested with, if its folder tells; and whether it is a run without such a record.

    Raises:
        UserError: the record is damaged.
    """
    path = run / "pictures.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        if not (isinstance(found, dict) and all(isinstance(part, dict) for part in found.values())):
            raise ValueError("it is no record of pictures")
        return found, False
    except FileNotFoundError:
        return None, any((run / "checkpoints").glob("step-*"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it from a copy, or start another run.") from None


class Tests(NamedTuple):
    """The test pictures of a data set."""

    files: dict[str, list[Path]]  # by domain, "A" and "B"
    roots: dict[str, Path]  # the folder of each
    skipped: list[Skipped]  # what was left out


def find_tests(
    data: Path, holdout: float, seed: int, run: Path | None = None, channels: tuple[int, int] = (3, 3)
) -> Tests:
    """The test pictures of both domains, as training with the same settings leaves them out.

    Args:
        data, holdout, seed: as `find_pictures` takes them.
        run: the folder of the run, whose record says what it never trained on.
        channels: that are needed of the pictures of A, and of those of B.

    Raises:
        UserError: a folder is missing, or a domain has no usable picture.
    """
    data = opened(data)
    roots = {domain: data / f"test{domain}" for domain in "AB"}
    if all(root.is_dir() for root in roots.values()):
        checked = {
            domain: look_at(find_files(root), needed, root)
            for (domain, root), needed in zip(roots.items(), channels, strict=True)
        }
        for found in checked.values():
            tell_more(found.good)
        files = {domain: list(found.good) for domain, found in checked.items()}
        return Tests(files, roots, [bad for found in checked.values() for bad in found.skipped])
    need_data(data)
    if not all((data / f"train{domain}").is_dir() for domain in "AB"):
        raise UserError(f"The folder {data} has neither testA and testB nor trainA and trainB: give one that has.")
    known, old = split_of(run) if run else (None, False)
    pictures = find_pictures(data, None, None, holdout, seed, known, old, channels)
    roots = {domain: root if root.is_dir() else data / f"train{domain}" for domain, root in roots.items()}
    return Tests({"A": pictures.test_a, "B": pictures.test_b}, roots, pictures.skipped)


def held_out(names: list[str], share: float, seed: int) -> set[str]:
    """Which of a domain's files are kept for testing.

    Each is chosen by its own name and the seed, whatever the others are: so a picture that is held out stays so when
    others come and go, and about the share is. At least one is, if there are two, and at least one is not.

    Args:
        names: of the files within their folder.
        share: in [0, 1).
        seed: which ones.
    """

    def place(name: str) -> float:
        """In [0, 1)."""
        return int.from_bytes(sha256(f"{seed}/".encode() + os.fsencode(name)).digest()[:8]) / 2**64

    known = sorted(set(names), key=place)
    count = max(sum(place(name) < share for name in known), 1 if share else 0)
    return set(known[: min(count, len(known) - 1)])


def held_out_before(names: list[str], share: float, seed: int) -> set[str]:
    """What runs without a record kept for testing: a share of the files by their place among all."""
    count = min(max(round(len(names) * share), 1 if share else 0), len(names) - 1)
    order = torch.randperm(len(names), generator=rng(seed, "holdout"))
    return {names[i] for i in order[:count].tolist()}


def spread(files: list[T], count: int) -> list[T]:
    """Up to ``count`` files, evenly spaced over all, always the same."""
    count = min(count, len(files))
    return [files[i * len(files) // count] for i in range(count)]
