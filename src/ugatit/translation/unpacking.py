"""Zip files of checkpoints, which may be larger than their own lists of contents can say.

A Mac packs more than 4 GiB without the format's extension for that, so sizes and places in the list are cut to 32 bits;
the zip files of the authors' TensorFlow checkpoints are such. What stands before each file, and its data, are whole.
"""

import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

MOST = 2**33  # bytes that are unpacked
PIECE = 2**20
ENTRY, LIST = b"PK\3\4", b"PK\1\2"  # what stands before a file, and before the list of contents
DEFLATED = 8
LATER = 8  # the flag of an entry whose checksum and sizes follow its data


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip file, by its list of contents or else entry after entry; names lead nowhere else.

    Raises:
        ValueError: it unpacks to more than `MOST` bytes.
        zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError: it is damaged, locked or packed in a
            way that is not known, or the disk is full.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > MOST:
            raise ValueError(f"it holds more than {MOST >> 30} GiB")
        try:
            archive.extractall(folder)
            return
        except zipfile.BadZipFile as error:
            listed = error
    try:
        unpack_in_order(path, folder)
    except (zipfile.BadZipFile, struct.error):
        raise listed from None


def unpack_in_order(path: Path, folder: Path) -> None:
    """Unpack a zip file entry after entry. Errors are those of `unpack`."""
    left = MOST
    with path.open("rb") as file:
        while (mark := file.read(4)) == ENTRY:
            _, flags, method, _, _, _, packed, _, name, extra = struct.unpack("<5H3I2H", file.read(26))
            inner = PurePosixPath(file.read(name).decode("utf-8", "replace").replace("\\", "/"))
            file.seek(extra, 1)
            place = folder.joinpath(*(part.replace(":", "_") for part in inner.parts if part not in ("/", "..")))
            place.parent.mkdir(parents=True, exist_ok=True)
            if method != DEFLATED:  # folders, and what is stored as it is
                if flags & LATER:
                    raise zipfile.BadZipFile(f"{inner} does not tell its size")
                data = file.read(min(packed, left + 1))
                left -= len(data)
                if data:
                    place.write_bytes(data)
                continue
            with place.open("wb") as written:
                checksum, size = inflate(file, written, left)
            left -= size
            if flags & LATER:
                skip_sizes(file, checksum, inner)
    if mark != LIST:
        raise zipfile.BadZipFile("there is something else between its files")


def inflate(file: BinaryIO, written: BinaryIO, most: int) -> tuple[int, int]:
    """Write what is packed from here on, and leave the file where that ends.

    Returns:
        The checksum and the number of bytes.
    """
    unpacking, checksum, size = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    rest = b""
    while not unpacking.eof:
        rest = rest or file.read(PIECE)
        if not rest:
            raise zipfile.BadZipFile("it ends too early")
        data = unpacking.decompress(rest, PIECE)
        rest = unpacking.unconsumed_tail
        checksum, size = zlib.crc32(data, checksum), size + len(data)
        if size > most:
            raise ValueError(f"it holds more than {MOST >> 30} GiB")
        written.write(data)
    file.seek(-len(unpacking.unused_data), 1)
    return checksum, size


def skip_sizes(file: BinaryIO, checksum: int, inner: PurePosixPath) -> None:
    """Go past the checksum and the sizes, of 4 or 8 bytes each, that follow an entry's data.

    Raises:
        zipfile.BadZipFile: the checksum is another.
    """
    start = file.tell()
    following = file.read(28)
    told = struct.pack("<I", checksum)
    for mark in (b"PK\7\x08" + told, told):
        for end in (len(mark) + 8, len(mark) + 16):
            if following.startswith(mark) and following[end : end + 4] in (ENTRY, LIST):
                file.seek(start + end)
                return
    raise zipfile.BadZipFile(f"{inner} does not match its checksum")
