"""Zip and tar files of pictures, which may be anybody's: what they hold, and which domain each picture is of.

Only regular files that are called like pictures are taken, and no more bytes than were claimed are written.
"""

import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from ugatit.io.errors import UserError
from ugatit.io.files import is_hidden, short_name, told_apart
from ugatit.io.terminal import counted, say, some

PICTURES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".tga",
    ".heic", ".heif", ".hif", ".npy", ".jp2", ".j2k", ".jpx", ".j2c", ".ppm", ".pgm", ".pnm", ".pbm", ".pfm", ".apng",
    ".psd", ".pcx", ".sgi", ".rgb", ".qoi", ".dds", ".ico", ".icns",
    ".jxl", ".exr", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",  # to be told as skipped
}  # fmt: skip
TESTS = "test", "val", "valid", "validation"
UNREADABLE = (  # what reading a damaged archive raises
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
SPARE = 2**30  # bytes of the disk that unpacking leaves free


class Member(NamedTuple):
    """A picture in an archive."""

    path: PurePosixPath
    size: int  # as is claimed
    open: Callable[[], Any]  # while the archive is gone through
    same: PurePosixPath | None = None  # the picture before it that it is a second name of


def members(path: Path) -> Iterator[Member]:
    """An archive's pictures in its order, second names of some last.

    Raises:
        ValueError: it is locked.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                if one.flag_bits & 1 and not one.is_dir():
                    raise ValueError("it is locked with a password")
                if not one.is_dir() and is_picture(one.filename):
                    name = PurePosixPath(one.filename.replace("\\", "/"))
                    yield Member(name, one.file_size, partial(archive.open, one))
        return
    with tarfile.open(path) as archive:
        sizes: dict[PurePosixPath, int] = {}
        links = []
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isreg() and is_picture(member.name):
                sizes[name] = member.size
                yield Member(name, member.size, partial(archive.extractfile, member))
            elif member.islnk() and is_picture(member.name):
                links.append(member)
        for link in links:
            same = PurePosixPath(link.linkname)
            if same in sizes:
                yield Member(PurePosixPath(link.name), sizes[same], partial(archive.extractfile, link), same)


def copy(file: BinaryIO, target: Path, size: int) -> None:
    """Write a picture; never more bytes than were claimed.

    Raises:
        ValueError: it cannot be read.
        OSError: it cannot be written.
    """
    with target.open("wb") as written:
        left = size
        while left:
            try:
                data = file.read(min(left, 2**20))
            except UNREADABLE as error:
                raise ValueError(str(error)) from None
            if not data:
                raise ValueError(f"{target.name} ends too early")
            left -= written.write(data)


def need_room(size: int, folder: Path, name: str) -> None:
    """Raises UserError if a disk has not room for so many bytes."""
    free = shutil.disk_usage(folder).free - SPARE
    if size > free:
        raise UserError(
            f"{name} has {size / 2**30:.1f} GiB of pictures, and the disk of {folder.parent} room for "
            f"{max(0, free) / 2**30:.1f}: free some space, or unpack it elsewhere and give the folder."
        )


def need_all(chosen: dict[PurePosixPath, Path], folder: Path, path: Path) -> None:
    """Raises ValueError if not all chosen files were there."""
    lost = next((entry for entry, place in chosen.items() if not (folder / place).is_file()), None)
    if lost:
        raise ValueError(f"{lost} is not in {path.name}")


def is_picture(name: str) -> bool:
    """Whether a file is called like a picture, and not hidden."""
    place = PurePosixPath(name.replace("\\", "/"))
    return place.suffix.lower() in PICTURES and not any(map(is_hidden, place.parts))


# Which folder is which part


def choose_folders(
    entries: list[PurePosixPath], names: tuple[str, str] | None, where: str
) -> dict[PurePosixPath, Path]:
    """Where each picture goes: below trainA, trainB, testA or testB.

    Args:
        entries: paths of the pictures.
        names: of A and B.
        where: the archive or data set, for what is said.

    Raises:
        UserError: it cannot be told.
    """
    if not entries:
        raise UserError(f"{where} has no pictures: give another.")
    parts = folders_of_parts({parent for entry in entries for parent in entry.parents}, names)
    if not {"trainA", "trainB"} <= parts.keys():
        lowest = sorted({entry.parent.as_posix() for entry in entries})
        have = ", ".join(lowest[:8]) + (f" and {len(lowest) - 8} more" if len(lowest) > 8 else "")
        a, b = names or ("trainA", "trainB")
        raise UserError(
            f"{where} has no folders {a} and {b} but {have}: tell which are A and B, as in {where}#cats,dogs."
        )
    chosen = places_in(entries, parts)
    if left := [entry for entry in entries if entry not in chosen]:
        told = ", ".join(f"{part} is {folder}" for part, folder in sorted(parts.items()))
        homes = some(sorted({entry.parent.as_posix() for entry in left}))
        say(f"left out: {counted(len(left), 'picture')} of {where}, in {homes}; {told}", "yellow")
    return chosen


def folders_of_parts(folders: set[PurePosixPath], names: tuple[str, str] | None) -> dict[str, PurePosixPath]:
    """The folder of each of testA, trainA, testB and trainB that can be told."""
    found: dict[str, PurePosixPath] = {}
    for side, name in zip("AB", names or "AB", strict=True):
        for part, whens in (("test", TESTS), ("train", ("train",))):
            spelt = {f"{when}{end}" for when in whens for end in (name, f"_{name}", f"-{name}", f"/{name}")}
            spelt |= {f"{name}/{when}" for when in whens}
            fits = [folder for folder in folders if ends_with(folder, spelt)]
            if part == "train" and names and not fits:
                fits = [folder for folder in folders - set(found.values()) if ends_with(folder, {name})]
            if fits:
                found[f"{part}{side}"] = min(fits, key=lambda folder: (len(folder.parts), str(folder)))
    return found


def places_in(entries: list[PurePosixPath], parts: dict[str, PurePosixPath]) -> dict[PurePosixPath, Path]:
    """Where the pictures go that lie in a part's folder, each under a name of its own."""
    chosen: dict[PurePosixPath, Path] = {}
    taken: set[str] = set()
    for entry in entries:
        homes = [(part, folder) for part, folder in parts.items() if folder in entry.parents]
        if not homes:
            continue
        part, folder = max(homes, key=lambda home: len(home[1].parts))
        inside = entry.relative_to(folder).parts
        if ".." in inside:
            continue
        place = Path(part, *map(file_name, inside))
        if str(place).casefold() in taken:  # some disks take two of them for one
            place = place.with_name(told_apart(place.name, str(entry)))
        taken.add(str(place).casefold())
        chosen[entry] = place
    return chosen


def file_name(word: str) -> str:
    """A part of a path as all file systems take it."""
    return short_name(re.sub(r'[\x00-\x1f<>:"|?*\\]', "_", word))


def ends_with(folder: PurePosixPath, spelt: set[str]) -> bool:
    """Whether a path's last one or two parts are spelt like one of these, in whatever case."""
    parts = [part.lower() for part in folder.parts]
    wanted = {word.lower() for word in spelt}
    return bool(parts) and (parts[-1] in wanted or "/".join(parts[-2:]) in wanted)
