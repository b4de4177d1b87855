"""Files: written so that a crash or a full disk never leaves half of one, read as if a stranger had made them."""

import errno
import hashlib
import io
import json
import os
import pickle
import pickletools
import secrets
import shutil
import stat
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from ugatit.io.errors import UserError, words_of

LONGEST_NAME = 255  # bytes that file systems take
LEFT = ".ugatit-" + "[0-9a-f]" * 16 + ".partial"  # what temporary files and folders are called
STALE = 24 * 3600  # seconds after which one is nobody's


@contextmanager
def alone_in(folder: Path, otherwise: str) -> Iterator[None]:
    """Within this block no other process is in one for this folder, where the system and the disk know locks.

    Raises:
        UserError: one is; ``otherwise`` says of the folder what that means, and what to do.
    """
    try:
        import fcntl

        file = (folder / ".lock").open("w")
    except (ImportError, OSError):  # Windows; a folder that cannot be written, which is told later
        yield
        return
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(f"{folder} {otherwise}.") from None
        except OSError:  # a disk without locks
            pass
        yield
        (folder / ".lock").unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, where the system can; some disks take no such wish for a folder."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def printable(name: str) -> str:
    """A name on one line: those of files may hold line breaks, codes for terminals, and bytes that are no text."""
    return "".join(letter if letter.isprintable() else "_" for letter in name)


def real(path: str | Path) -> Path:
    """The absolute path without links; unlike `Path.resolve` it takes links that lead in a circle."""
    return Path(os.path.realpath(path))


def one_case(folder: Path) -> bool:
    """Whether the disk of a folder, which need not be there yet, takes ``A.png`` and ``a.png`` for one file."""
    whole = real(folder)
    for there in (whole, *whole.parents):
        other = there.parent / there.name.swapcase()
        if there.exists() and other != there:
            return other.exists() and other.samefile(there)
    return False


def told_apart(name: str, whole: str) -> str:
    """A name that no file system finds too long, and another one for whatever else ``whole`` it stands for."""
    suffix = PurePosixPath(name).suffix[:8]
    return f"{name[:40]}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:16]}{suffix}"


HIDDEN = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder is called like a hidden one, or like those that systems and network disks put beside
    people's own: thumbnails, and what was thrown away."""
    return name.startswith(".") or name in HIDDEN


def short_name(name: str) -> str:
    """A name as it is, or another where file systems would find it too long."""
    return name if len(os.fsencode(name)) <= LONGEST_NAME else told_apart(name, name)


def temporary_name(folder: Path) -> Path:
    """A name in a folder that nobody can know before, short enough for every file system.

    What killed processes left there under such names a day ago or earlier is removed.
    """
    sweep(folder)
    return folder / f".ugatit-{secrets.token_hex(8)}.partial"


@lru_cache(maxsize=64)
def sweep(folder: Path) -> None:
    """Remove temporary files and folders that nobody writes any more, once in each process."""
    for left in folder.glob(LEFT):
        with suppress(OSError):
            if time.time() - max(part.lstat().st_mtime for part in [left, *left.rglob("*")]) > STALE:
                remove(left)


def remove_left(folder: Path) -> None:
    """Remove what killed processes left anywhere in a folder that nobody else writes to."""
    for left in list(folder.rglob(LEFT)):
        with suppress(OSError):
            remove(left)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it replaces ``path`` only when the block ends well.

    Of several processes that write one file at a time each writes its own, and the last one's stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path.parent)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # never through somebody's link
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole file of text, in UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, value: Any, **options: Any) -> None:
    """Write a value as a whole file; options are those of `json.dumps`."""
    write_text(path, json.dumps(value, **options) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_file` for a whole new folder, which must not exist yet or is replaced.

    Raises:
        UserError: it is a file, or the folder that the program runs in, or one above that.
    """
    path = real(path)
    if path.is_file():
        raise UserError(f"{path} is a file, where a folder shall be written: give another name.")
    with suppress(FileNotFoundError):  # the current folder may have been removed
        if Path.cwd().is_relative_to(path):
            raise UserError(
                f"{path} is the current folder or above it, and would be replaced as a whole: give another."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, before = temporary_name(path.parent), temporary_name(path.parent)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        swap(temporary, path, before)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def swap(new: Path, path: Path, before: Path) -> None:
    """Put a new folder in the place of another, which is kept as ``before``; other processes may do the same."""
    for again in range(10):
        with suppress(FileNotFoundError):
            path.rename(before)
        try:
            new.rename(path)
            return
        except OSError:
            if before.exists() and not path.exists():
                before.rename(path)
            if again == 9:
                raise
            shutil.rmtree(before, ignore_errors=True)  # another process was quicker


def absent(path: str | Path) -> str:
    """What is wrong with a path where a folder is needed, as a phrase."""
    if Path(path).is_file():
        return "is a file, where a folder is needed: give that"
    return "does not exist: check the path"


@contextmanager
def writing(path: Path, otherwise: str = "give another `out`") -> Iterator[None]:
    """Within this block results are written to ``path``; where that fails, the person is told.

    Args:
        path: of a file or folder.
        otherwise: what the person can do, as a phrase.

    Raises:
        UserError: it could not be written.
    """
    try:
        yield
    except BrokenPipeError:  # of what is printed meanwhile
        raise
    except OSError as error:
        advice = f"free some space, or {otherwise}" if error.errno is None or is_full(error) else otherwise
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is where a folder should be" if blocked else error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}): {advice}.") from None


def need_outside(path: Path, folder: Path, otherwise: str) -> None:
    """Raises UserError if results would lie in a folder, where ``otherwise``, a phrase, would come of it."""
    if real(path).is_relative_to(real(folder)):
        raise UserError(f"{path} lies in {folder}, where {otherwise}: give another `out`.")


def is_full(error: BaseException) -> bool:
    """Whether something was not written because there is no room for it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def open_regular(path: str | Path) -> io.BufferedReader:
    """A file opened to be read, if it is one: a pipe or a device might never end.

    Raises:
        ValueError: it is something else, or cannot be opened; the message is a phrase that says why.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("is not a regular file")
        return open(path, "rb")
    except FileNotFoundError:
        raise ValueError("does not exist") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from None


def read_json(path: Path, most: int = 2**20) -> dict[str, Any]:
    """The JSON object in a file that may be anybody's.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        ValueError: it is not such a file; the message is a phrase that says why.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name stands there twice")
        return found

    def number(word: str) -> float:
        raise ValueError(f"{word} is no number")

    with open_regular(path) as file:
        try:
            text = file.read(most + 1)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror or error})") from None
    if len(text) > most:
        raise ValueError(f"is longer than {most} bytes")
    try:
        found = json.loads(text.decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object")
    return found


OLD = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # the number that files from before torch 1.6 begin with, pickled
PICKLES = 5  # at the beginning of a file from before torch 1.6
CODES = {"_codecs.encode": "of NumPy's numbers, _codecs.encode"}  # what names of code stand for
GREEDY = {"__builtin__ bytearray", "builtins bytearray", "_codecs encode"}  # torch would call them with any length


class CodeError(ValueError):
    """The file holds code beside tensors, or is damaged."""


def read_torch(path: str | Path) -> Any:
    """What ``torch.save`` wrote into a file that may be anybody's: tensors and plain containers, never code.

    Raises:
        CodeError: it holds code too.
        ValueError: it is not such a file, or its tensors claim more memory than it has bytes; the message is a phrase
            that says why.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError("is empty")
        try:
            check_pickles(file, size)
            file.seek(0)
            with warnings.catch_warnings(action="ignore"):  # of what is no file of torch
                found = torch.load(file, map_location="cpu", weights_only=True)
        except CodeError:
            raise
        except Exception as error:  # torch.load raises many kinds for damaged files
            if not begins_as_saved(file):
                raise ValueError("is no file of PyTorch") from None
            if isinstance(error, pickle.UnpicklingError):  # in whose words torch advises to trust the file
                raise CodeError(f"holds more than tensors ({code_in(path)}), or is damaged") from None
            raise ValueError(f"cannot be read ({printable(words_of(error))})") from None
    tensors = tensors_in(found)
    if any(t.layout != torch.strided or t.is_quantized or t.is_meta or t.is_nested for t in tensors):
        raise ValueError("holds other tensors than plain ones")
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}  # shared ones once
    if sum(storages.values()) > size or any(t.numel() * t.itemsize > size for t in tensors):
        raise ValueError("claims larger tensors than it holds")
    return found


def begins_as_saved(file: IO[bytes]) -> bool:
    """Whether an open file begins as ``torch.save`` writes it."""
    file.seek(0)
    head = file.read(64)
    return OLD in head or head.startswith(b"PK")


def check_pickles(file: IO[bytes], size: int) -> None:
    """See that a file of torch takes no more memory than it has bytes, and is whole, before torch reads it.

    Raises:
        CodeError: it calls what makes as much memory as it likes, or is a program.
        ValueError: it is damaged, or packed.
    """
    opened = [file]
    if zipfile.is_zipfile(file):
        archive = zipfile.ZipFile(file)
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise CodeError("is a program of TorchScript")
        if sum(part.file_size for part in archive.infolist()) > size:
            raise ValueError("it is packed to far less than its size")
        if damaged := archive.testzip():  # torch does not look at the checksums
            raise ValueError(f"{damaged} does not match its checksum")
        opened = [archive.open(name) for name in archive.namelist() if name.endswith("data.pkl")]
    called: set[Any] = set()
    for part in opened:
        part.seek(0)
        with suppress(ValueError, IndexError):  # what is no pickle, or ends early, torch refuses
            for _ in range(PICKLES):
                called.update(name for code, name, _ in pickletools.genops(part) if code.name == "GLOBAL")
    if greedy := called & GREEDY:
        name = min(greedy).replace(" ", ".")
        raise CodeError(f"holds more than tensors ({CODES.get(name, name)})")


def code_in(path: str | Path) -> str:
    """The names of the code that a file of ``torch.save`` would run, which is not run to tell."""
    try:
        return printable(", ".join(get_unsafe_globals_in_checkpoint(path)[:3])) or "none that is told"
    except Exception:  # old formats do not tell, and damaged ones raise anything
        return "it does not tell what"


def tensors_in(found: Any) -> list[Tensor]:
    """All tensors in containers in any depth, also where containers hold each other or themselves."""
    left, known, tensors = [found], set[int](), []
    while left:
        part = left.pop()
        if id(part) in known:
            continue
        known.add(id(part))
        if isinstance(part, Tensor):
            tensors.append(part)
        elif isinstance(part, dict):
            left += part.values()
        elif isinstance(part, list | tuple | set):
            left += part
    return tensors


def digest(path: Path) -> str:
    """SHA-256 of a file, as hex.

    Raises:
        ValueError: it cannot be read; the message is a phrase that says why.
    """
    with open_regular(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror or error})") from None


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, not atomically.

    Raises:
        OSError: it could not be written, because the disk is full for example.
    """
    apart: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, tensor in tensors.items():  # tensors that are one in memory are written as two
        apart[name] = tensor.detach().clone() if tensor.data_ptr() in known else tensor.detach().contiguous()
        known.add(tensor.data_ptr())
    try:
        save_file(apart, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from None
