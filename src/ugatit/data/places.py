"""Data sets where they lie: a folder, a zip or tar file, a data set of the Hugging Face hub, one of the paper's.

What is no folder is unpacked once into the user's cache, as ``trainA``, ``trainB`` and perhaps ``testA`` and ``testB``.
``DATA#a,b`` tells what A and B are called in it, where that cannot be told: folders, or a data set's columns, splits or
labels. Archives and data sets may be anybody's: only files that are called like pictures are taken, as files, and no
more than the disk has room for.
"""

import hashlib
import json
import re
import shutil
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from platformdirs import user_cache_path

from ugatit.data.memory import stamp_of
from ugatit.io.errors import UserError, package
from ugatit.io.files import atomic_file, atomic_folder, real, writing
from ugatit.io.terminal import bars, say

HUB, PAPER = "hub:", "paper:"
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".npy", ".jp2", ".ppm"}
PARTS = "trainA", "trainB", "testA", "testB"
TESTS = "test", "val", "valid", "validation"
SPARE = 2**30  # bytes of the disk that unpacking leaves free
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
    if not is_packed(data):
        return data
    plain, names = split_names(data)
    if str(plain).startswith(HUB):
        return from_hub(str(plain).removeprefix(HUB), names)
    if str(plain).startswith(PAPER):
        return from_paper(str(plain).removeprefix(PAPER), names)
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
        entries = dict(entries_of(path))
        chosen = choose_folders(list(entries), names, path.name)
        size = sum(entries[entry] for entry in chosen)
        with writing(folder, "empty the cache"), atomic_folder(folder) as temporary:
            need_room(size, temporary, path.name)
            say(f"unpacking {len(chosen)} pictures of {path.name} into {folder}")
            with bars() as progress:
                stream = progress.track(contents(path, chosen), len(chosen), description="unpacking")
                for entry, file in stream:
                    target = temporary / chosen[entry]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    copy(file, target, entries[entry])
            need_all(chosen, temporary, path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is damaged or no zip or tar file of pictures ({error}): get it again.") from None
    return folder


def entries_of(path: Path) -> Iterator[tuple[PurePosixPath, int]]:
    """Path and size of an archive's pictures."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                if one.flag_bits & 1 and not one.is_dir():
                    raise ValueError("it is locked with a password")
                if not one.is_dir() and is_picture(one.filename):
                    yield PurePosixPath(one.filename.replace("\\", "/")), one.file_size
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isreg() and is_picture(member.name):
                yield PurePosixPath(member.name), member.size


def contents(path: Path, chosen: Iterable[PurePosixPath]) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
    """The chosen pictures of an archive, in its order."""
    wanted = set(chosen)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                place = PurePosixPath(one.filename.replace("\\", "/"))
                if place in wanted and not one.is_dir():
                    with archive.open(one) as file:
                        yield place, file  # type: ignore[misc]
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isreg() and PurePosixPath(member.name) in wanted:
                yield PurePosixPath(member.name), archive.extractfile(member)  # type: ignore[misc]


def copy(file: BinaryIO, target: Path, size: int) -> None:
    """Write a picture; never more bytes than were claimed."""
    with target.open("wb") as written:
        left = size
        while left and (data := file.read(min(left, 2**20))):
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
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in place.parts)
    return place.suffix.lower() in PICTURES and not hidden


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
    folders = {parent for entry in entries for parent in entry.parents}
    a, b = names or ("A", "B")
    found: dict[str, PurePosixPath] = {}
    for side, name in (("A", a), ("B", b)):
        for part, whens in (("test", TESTS), ("train", ("train",))):
            spelt = {f"{when}{end}" for when in whens for end in (name, f"_{name}", f"-{name}", f"/{name}")}
            spelt |= {f"{name}/{when}" for when in whens}
            fits = [folder for folder in folders if ends_with(folder, spelt)]
            if part == "train" and names and not fits:
                fits = [folder for folder in folders - set(found.values()) if ends_with(folder, {name})]
            if fits:
                found[f"{part}{side}"] = min(fits, key=lambda folder: (len(folder.parts), str(folder)))
    if not {"trainA", "trainB"} <= found.keys():
        lowest = sorted({entry.parent.as_posix() for entry in entries})
        if not entries:
            raise UserError(f"{where} has no pictures: give another.")
        have = ", ".join(lowest[:8]) + (f" and {len(lowest) - 8} more" if len(lowest) > 8 else "")
        lost = f"no folders {a} and {b}" if names else "no folders trainA and trainB"
        raise UserError(f"{where} has {lost} but {have}: tell which are A and B, as in {where}#cats,dogs.")
    chosen: dict[PurePosixPath, Path] = {}
    for entry in entries:
        homes = [(part, folder) for part, folder in found.items() if folder in entry.parents]
        if homes:
            part, folder = max(homes, key=lambda home: len(home[1].parts))
            inside = [re.sub(r'[\x00-\x1f<>:"|?*\\]', "_", word) for word in entry.relative_to(folder).parts]
            if ".." not in inside:
                chosen[entry] = Path(part, *inside)
    return chosen


def ends_with(folder: PurePosixPath, spelt: set[str]) -> bool:
    """Whether a path's last one or two parts are spelt like one of these, in whatever case."""
    parts = [part.lower() for part in folder.parts]
    wanted = {word.lower() for word in spelt}
    return bool(parts) and (parts[-1] in wanted or "/".join(parts[-2:]) in wanted)


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


def from_hub(given: str, names: tuple[str, str] | None) -> Path:
    """A data set of the hub: folders of pictures, or Parquet files with columns of pictures.

    Args:
        given: "user/name", perhaps with "@revision".
        names: of A and B: folders, columns, splits or labels.

    Raises:
        UserError: it cannot be had, or does not tell the domains.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = given.partition("@")
    wanted = [f"*{end}" for kind in PICTURES for end in (kind, kind.upper())] + ["*.parquet", "*.zip"]
    try:
        snapshot = Path(snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # the hub's library and its HTTP client have no common class
        raise UserError(
            f"The data set {name} cannot be had from the hub ({type(error).__name__}): check the name and, for a "
            "private one, run hf auth login."
        ) from None
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


class Column(NamedTuple):
    """A part of a data set in tables: a column of pictures, in one split or all, perhaps of one label only."""

    name: str
    split: str | None = None
    label: tuple[str, Any] | None = None  # a column, and its value


def write_tables(tables: list[Path], names: tuple[str, str] | None, folder: Path, where: str) -> None:
    """Write the pictures of Parquet files into a folder, by domain.

    Raises:
        UserError: they have no pictures, are damaged, or do not tell the domains.
    """
    parquet = package("pyarrow.parquet", "hub")
    try:
        schema = parquet.read_schema(tables[0])
        splits = {table: split_of(table) for table in tables}
        domains = choose_columns(schema, sorted(set(splits.values())), names, where)
        with writing(folder, "empty the cache"), atomic_folder(folder) as temporary:
            need_room(sum(table.stat().st_size for table in tables), temporary, where)
            say(f"unpacking {where} into {folder}")
            with bars() as progress:
                for table in progress.track(tables, description="unpacking"):
                    for side, column in zip("AB", domains, strict=True):
                        if column.split in (None, splits[table]):
                            part = "test" if splits[table].lower().startswith(TESTS) else "train"
                            write_column(parquet.ParquetFile(table), column, temporary / f"{part}{side}", table.stem)
            for part in ("trainA", "trainB"):
                if not (temporary / part).is_dir():
                    raise UserError(f"{where} has no pictures for {part}: tell which are A and B, as in {where}#x,y.")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{where} is damaged ({error}): get it again, or give another.") from None


def split_of(table: Path) -> str:
    """The split that a Parquet file belongs to, by its name, or its folder's."""
    name = re.sub(r"(-\d+-of-\d+.*|-?\d*)$", "", table.stem)
    return name if name and name != "data" else table.parent.name


def choose_columns(schema: Any, splits: list[str], names: tuple[str, str] | None, where: str) -> list[Column]:
    """What A and B are in tables.

    Raises:
        UserError: it cannot be told.
    """
    columns = [field.name for field in schema if is_picture_column(field)]
    labels = labels_of(schema)
    if not columns:
        raise UserError(f"{where} has no column of pictures: give another data set.")
    if names and set(names) <= set(columns):
        return [Column(name) for name in names]
    if names and set(names) <= set(splits):
        return [Column(columns[0], split=name) for name in names]
    if names and set(names) <= labels.keys():
        return [Column(columns[0], label=labels[name]) for name in names]
    if names is None and len(columns) == 2:
        return [Column(name) for name in columns]
    if names is None and {"trainA", "trainB"} <= set(splits):
        return [Column(columns[0], split="trainA"), Column(columns[0], split="trainB")]
    if names is None and len(labels) == 2:
        return [Column(columns[0], label=label) for label in labels.values()]
    have = f"columns {', '.join(columns)}; splits {', '.join(splits)}"
    have += f"; labels {', '.join(list(labels)[:8])}" if labels else ""
    raise UserError(f"{where} does not tell which pictures are A's and B's ({have}): name two, as in {where}#x,y.")


def is_picture_column(field: Any) -> bool:
    """Whether a column holds pictures as the hub's data sets keep them."""
    kind = field.type
    return str(kind).startswith("struct") and {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}


def labels_of(schema: Any) -> dict[str, tuple[str, Any]]:
    """Column and value by the name of a label, as the hub's data sets note them."""
    with suppress(KeyError, ValueError, TypeError, AttributeError):
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        for column, feature in features.items():
            if feature.get("_type") == "ClassLabel":
                return {name: (column, number) for number, name in enumerate(feature["names"])}
    return {}


def write_column(table: Any, column: Column, folder: Path, stem: str) -> None:
    """Write a column's pictures as files, called by their row."""
    wanted = [column.name] + ([column.label[0]] if column.label else [])
    number = 0
    for batch in table.iter_batches(batch_size=64, columns=wanted):
        for row in batch.to_pylist():
            number += 1
            picture = row[column.name]
            if picture is None or picture["bytes"] is None:
                continue
            if column.label and row[column.label[0]] != column.label[1]:
                continue
            suffix = PurePosixPath(picture["path"] or "x.png").suffix.lower()
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{stem}-{number:07d}{suffix if suffix in PICTURES else '.png'}"
            (folder / name).write_bytes(picture["bytes"])
