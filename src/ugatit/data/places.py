"""Data sets where they lie: a folder, a zip or tar file, a data set of the Hugging Face hub, one of the paper's.

What is no folder is unpacked once into the user's cache, as ``trainA``, ``trainB`` and perhaps ``testA`` and ``testB``.
``DATA#a,b`` tells what A and B are called in it, where that cannot be told: folders, or a data set's columns, splits or
labels. Archives and data sets may be anybody's: only files that are called like pictures are taken, as files, and no
more than the disk has room for.
"""

import hashlib
import re
import shutil
import urllib.request
from collections import Counter
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from platformdirs import user_cache_path

from ugatit.data.archives import (
    PICTURES,
    UNREADABLE,
    choose_folders,
    copy,
    is_picture,
    members,
    need_all,
    need_room,
)
from ugatit.data.memory import stamp_of
from ugatit.data.tables import write_tables
from ugatit.io.errors import UserError, words_of
from ugatit.io.files import atomic_file, atomic_folder, real, writing
from ugatit.io.hub import fetched
from ugatit.io.terminal import bars, counted, say, tracked

HUB, PAPER = "hub:", "paper:"
DRIT = "http://vllab.ucmerced.edu/hylee/DRIT/datasets/"
CYCLEGAN = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/"


class Place(NamedTuple):
    """Where one of the paper's data sets can be had (appendix C)."""

    address: str | None  # of an archive that a program can read
    names: tuple[str, str] | None = None  # of A and B in it, if not these
    by_hand: str = ""  # where a person gets it


PAPER_SETS = {
    "selfie2anime": Place(None, by_hand="a Google Drive that taki0112/UGATIT links to, for persons only"),
    "horse2zebra": Place(f"{CYCLEGAN}horse2zebra.zip"),
    "photo2vangogh": Place(f"{CYCLEGAN}vangogh2photo.zip", ("B", "A")),
    "cat2dog": Place(f"{DRIT}cat2dog.zip"),
    "photo2portrait": Place(f"{DRIT}portrait.zip"),
}


def is_packed(data: Path) -> bool:
    """Whether this names something else than a folder."""
    return str(data).startswith((HUB, PAPER)) or (split_names(data)[0].is_file() and not data.is_dir())


def absolute(data: Path) -> Path:
    """The same from whatever folder a run is resumed in."""
    return data if str(data).startswith((HUB, PAPER)) else data.resolve()


def title(data: Path) -> str:
    """What a data set is called: the last part of its name."""
    plain, _ = split_names(data)
    name = plain.name.split(":")[-1].split("@")[0]
    return re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", name)


def split_names(data: Path) -> tuple[Path, tuple[str, str] | None]:
    """``DATA#a,b`` as DATA and the names, of which there may be none.

    Raises:
        UserError: there are not two.
    """
    before, sign, after = str(data).rpartition("#")
    if not sign or data.exists():
        return data, None
    names = [name.strip() for name in after.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise UserError(f"{data}: after # two names are needed, of A and of B, as in {before}#cats,dogs.")
    return Path(before), (names[0], names[1])


def opened(data: Path) -> Path:
    """The folder of a data set, unpacked if it is packed.

    Raises:
        UserError: it cannot be had, is damaged, or does not tell which pictures are A's and which B's.
    """
    plain, names = split_names(data)
    if names and plain.is_dir():
        raise UserError(
            f"{data}: names after # are for what is no folder: give `source={plain / names[0]}` and "
            f"`target={plain / names[1]}` instead."
        )
    if not is_packed(data):
        return data
    if str(plain).startswith(HUB):
        return from_hub(plain.as_posix().removeprefix(HUB), names)
    if str(plain).startswith(PAPER):
        return from_paper(plain.as_posix().removeprefix(PAPER), names)
    return from_archive(real(plain), names, title(plain))


def kept_at(key: object, name: str) -> Path:
    """The folder of the user's cache for what was unpacked, called like its data set."""
    return user_cache_path("ugatit") / "data" / hashlib.sha256(repr(key).encode()).hexdigest()[:24] / name


# Archives


def from_archive(path: Path, names: tuple[str, str] | None, name: str) -> Path:
    """A zip or tar file's pictures in a folder.

    Raises:
        UserError: it is none, damaged, too large, or does not tell the domains.
    """
    folder = kept_at((str(path), stamp_of(path), names), name)
    if folder.is_dir():
        return folder
    try:
        entries = Counter[PurePosixPath]()
        for member in members(path):
            entries[member.path] += member.size  # a name may stand there several times
    except (*UNREADABLE, ValueError) as error:
        raise UserError(
            f"{path} is a file, and no zip or tar file, or a damaged one ({words_of(error)}): give a folder (unpack "
            "what is packed otherwise), or get it again."
        ) from None
    try:
        chosen = choose_folders(list(entries), names, path.name)
        size = sum(entries[entry] for entry in chosen)
        with writing(folder, "empty the cache"), atomic_folder(folder) as temporary:
            need_room(size, temporary, path.name)
            say(f"unpacking {counted(len(chosen), 'picture')} of {path.name} into {folder}")
            wanted = (member for member in members(path) if member.path in chosen)
            for member in tracked(wanted, "unpacking", len(chosen)):
                target = temporary / chosen[member.path]
                target.parent.mkdir(parents=True, exist_ok=True)
                there = temporary / chosen[member.same] if member.same in chosen else None
                with there.open("rb") if there else member.open() as file:
                    copy(file, target, member.size)
            need_all(chosen, temporary, path)
    except (*UNREADABLE, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): get it again.") from None
    return folder


# The paper's


def from_paper(name: str, names: tuple[str, str] | None) -> Path:
    """One of the paper's data sets, downloaded once.

    Raises:
        UserError: there is none of that name, or it cannot be had.
    """
    place = PAPER_SETS.get(name)
    if place is None:
        raise UserError(f"The paper has no data set {name}: choose of {', '.join(PAPER_SETS)}.")
    if place.address is None:
        raise UserError(f"{name} cannot be read by a program, it lies at {place.by_hand}: get it, and give its file.")
    archive = user_cache_path("ugatit") / "data" / place.address.rsplit("/", 1)[-1]
    if not archive.is_file():
        try:
            download(place.address, archive)
        except OSError as error:
            raise UserError(
                f"{name} cannot be downloaded from {place.address} ({error}): get that file otherwise, and give it."
            ) from None
    return from_archive(archive, names or place.names, name)


def download(address: str, path: Path) -> None:
    """Download a file, atomically.

    Raises:
        OSError: it cannot be had.
    """
    with urllib.request.urlopen(address, timeout=60) as answer, atomic_file(path) as temporary, bars() as progress:
        size = int(answer.headers.get("Content-Length", 0))
        say(f"downloading {address}, {size / 2**20:.0f} MiB, to {path}")
        task = progress.add_task("downloading", total=size or None)
        with temporary.open("wb") as file:
            while data := answer.read(2**20):
                progress.advance(task, file.write(data))
        if size and temporary.stat().st_size != size:
            raise OSError("it ended too early")


# The hub's


@lru_cache  # a command opens its data set several times, and the hub need be asked once
def from_hub(given: str, names: tuple[str, str] | None) -> Path:
    """A data set of the hub: folders of pictures, or Parquet files with columns of pictures.

    Args:
        given: "user/name", perhaps with "@revision".
        names: of A and B: folders, columns, splits or labels.

    Raises:
        UserError: it cannot be had, or does not tell the domains.
    """
    name, _, revision = given.partition("@")
    wanted = [f"*{end}" for kind in PICTURES for end in (kind, kind.upper())] + ["*.parquet", "*.zip"]
    snapshot = fetched(name, "data set", wanted, revision or None)
    folder = kept_at((str(snapshot), names), name.split("/")[-1])
    if folder.is_dir():
        return folder
    tables = sorted(snapshot.rglob("*.parquet"))
    archives = sorted(snapshot.rglob("*.zip"))
    where = f"{HUB}{given}"
    if tables:
        write_tables(tables, names, folder, where)
        return folder
    if len(archives) == 1 and not any(is_picture(file.name) for file in snapshot.rglob("*")):
        return from_archive(archives[0], names, folder.name)
    entries = {PurePosixPath(f.relative_to(snapshot).as_posix()): f for f in snapshot.rglob("*") if is_picture(f.name)}
    chosen = choose_folders(list(entries), names, where)
    with writing(folder, "empty the cache"), atomic_folder(folder) as temporary:
        need_room(sum(entries[entry].stat().st_size for entry in chosen), temporary, where)
        for entry, place in chosen.items():
            (temporary / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(entries[entry], temporary / place)
    return folder
