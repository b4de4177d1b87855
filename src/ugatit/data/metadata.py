"""A picture file without the metadata that Pillow would unpack, and the orientation that was found in there.

A file's metadata is as long and as odd as its writer likes, so it is taken out before Pillow sees it. Orientations are
EXIF's: 1 is upright, and 0 stands for "not told".
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

from PIL import Image
from PIL.TiffImagePlugin import PREFIXES

LONGEST = 2**30  # bytes of a file that has to be read as a whole
SCANS = 256  # of a JPEG file; each goes over the whole picture
USUAL_SCANS, MOST_PASSES = 12, 2**29  # of progressive files; of more, the pixels that all go over
SEGMENTS = 2**13  # of a JPEG file; a profile in colour has a few hundred
METADATA = 2**16  # bytes of Exif or XMP that are looked at
MOST_TAGS = 2**20  # of a TIFF file; its pages have about 15 each
MOST_PICTURES = 2**16  # of a TIFF file
CHUNK = 2**8  # bytes that a PNG file's parts have on average, at least, where they are many

MARKER = re.compile(rb"\xff+[^\x00\xff]")
IN_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # restarts belong to the scan
SOS, EOI, APP1, APP2 = 0xDA, 0xD9, 0xE1, 0xE2
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of what tells a JPEG file's size
PNG = b"\x89PNG\r\n\x1a\n"
# The kinds of files like MP4 that are pictures; films are long, and not read for nothing.
STILL = {b"avif", b"avis", b"mif1", b"msf1", *(b"he" + kind for kind in (b"ic", b"ix", b"im", b"is"))}
STILL |= {b"hev" + kind for kind in (b"c", b"x", b"m", b"s")}
EXIF_ITEM = re.compile(rb"infe[\x02\x03].{3}(?:..|.{4})..Exif", re.DOTALL)  # of AVIF's list of its parts
ALONE = {0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}  # markers without a length, for Pillow
ORIENTATION = 0x0112
SUBFILE, SUB_DIRECTORIES, DNG = 254, 330, 50706  # of cameras' raw files
# The tags of TIFF that say where the pixels lie and what they mean; all others are passed over.
PIXEL_TAGS = {
    254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 321, 322, 323, 324, 325, 332, 338,
    339, 347, 512, 513, 514, 530, 531, 532, 34675,
}  # fmt: skip


def without_metadata(file: io.BytesIO | io.BufferedReader) -> tuple[io.BytesIO | io.BufferedReader, int]:
    """The file without the metadata that Pillow would unpack while it opens it, and the orientation found in there.

    Raises:
        ValueError: the file is built to take long.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    if head.startswith(PNG):
        check_chunks(file, size)
    strip = stripper(head)
    if strip is None:
        return file, 0
    if size > LONGEST:
        raise ValueError(f"it is longer than {LONGEST >> 20} MiB")
    data = bytearray(file.read())
    turn = strip(data)
    return io.BytesIO(data), turn


def stripper(head: bytes) -> Callable[[bytearray], int] | None:
    """What takes metadata out of a file that begins like that, in place, and returns its orientation."""
    if head.startswith(b"\xff\xd8\xff"):
        return strip_segments
    if head.startswith(tuple(PREFIXES)):
        return strip_tags
    if head.startswith(b"GIF8"):
        return check_extensions
    return hide_exif if head[4:8] == b"ftyp" and head[8:12] in STILL else None


def strip_segments(data: bytearray) -> int:
    """Blank Exif, XMP and the list of further pictures in a JPEG file, in place; its orientation.

    Goes from marker to marker as Pillow does, over what is none.

    Raises:
        ValueError: the file has too many scans or segments, or too much between them.
    """
    exif = xmp = scans = junk = pixels = 0
    place = 2
    for number in count():
        found = (IN_SCAN if scans else MARKER).search(data, place)
        if found is None or (scans and data[found.end() - 1] == EOI):
            break
        if number == SEGMENTS:
            raise ValueError(f"it has more than {SEGMENTS} segments")
        junk += 0 if scans else found.end() - place - 2
        if junk > METADATA:
            raise ValueError("there is too much between its segments")
        place, kind = found.end(), data[found.end() - 1]
        if kind in ALONE:
            continue
        end = place + max(2, int.from_bytes(data[place : place + 2], "big"))
        if kind == SOS:
            scans += 1
            if scans > SCANS or (scans > USUAL_SCANS and scans * pixels > MOST_PASSES):
                raise ValueError(f"it has {scans} scans or more, which take long")
        elif kind in FRAMES:
            height, width = (int.from_bytes(data[place + i : place + i + 2], "big") for i in (3, 5))
            pixels = height * width
        elif kind in (APP1, APP2) and not data.startswith(b"ICC_PROFILE", place + 2):
            body = bytes(data[place + 2 : end])
            if kind == APP1:
                exif = exif or (orientation(body[6:]) if body.startswith(b"Exif\0\0") else 0)
                xmp = xmp or xmp_orientation(body)
            data[place + 2 : end] = bytes(len(body))
        place = end
    return exif or xmp or 1


def orientation_of(opened: Image.Image) -> int:
    """The orientation that the metadata of a picture tells, not decoded yet or decoded."""
    exif = opened.info.get("exif")
    if isinstance(exif, bytes) and (found := orientation(exif[:METADATA].removeprefix(b"Exif\0\0"))):
        return found
    profile = opened.info.get("Raw profile type exif")  # ImageMagick's way in PNG
    if isinstance(profile, str):
        digits = re.match(r"([0-9a-f]{2})*", "".join(profile[:METADATA].split("\n")[3:]))
        if digits and (found := orientation(bytes.fromhex(digits[0]).removeprefix(b"Exif\0\0"))):
            return found
    xmp = opened.info.get("xmp") or opened.info.get("XML:com.adobe.xmp") or b""
    return xmp_orientation(xmp.encode() if isinstance(xmp, str) else xmp)


def xmp_orientation(xmp: bytes) -> int:
    """The orientation in an XMP packet."""
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp[:METADATA])
    return int(found[1]) if found else 0


def orientation(exif: bytes) -> int:
    """The orientation in an Exif block, which begins like a TIFF file."""
    try:
        return next((value for _, tag, _, value in entries(memoryview(exif)) if tag == ORIENTATION), 0)
    except (struct.error, OverflowError, ValueError):
        return 0


def strip_tags(data: bytearray) -> int:
    """Make the tags of a TIFF file that say nothing of its pixels unreadable, in place, in all its directories; the
    orientation of its first picture. Those of further ones stay, as each has its own.

    Raises:
        ValueError: the tags that are left are longer than the file: they lie over each other.
    """
    turn = left = 0
    for number, place, tag, size, value in all_entries(memoryview(data)):
        if tag == ORIENTATION and number == 0:
            turn = value
        if tag in PIXEL_TAGS or (tag == ORIENTATION and number):
            left += size
        else:
            data[place + 2 : place + 4] = bytes(2)  # a type that does not exist
    if left > len(data):
        raise ValueError("its tags are longer than the file")
    return turn or 1


def is_raw(data: memoryview) -> bool:
    """Whether a TIFF file is a camera's raw one: its first picture is a small preview, and what it was taken of lies
    where Pillow does not look."""
    if data[8:10] == b"CR":  # Canon's
        return True
    with suppress(struct.error, OverflowError, ValueError):
        order, big, _ = layout(data)
        places = {tag: place for place, tag, _, _ in entries(data)}
        if SUBFILE in places and not places.keys().isdisjoint((SUB_DIRECTORIES, DNG)):
            return bool(struct.unpack_from(order + "H", data, places[SUBFILE] + (12 if big else 8))[0] & 1)
    return False


def hide_exif(data: bytearray) -> int:
    """Rename the Exif of an AVIF file, in place; how such pictures are turned stands in properties of their own."""
    for match in EXIF_ITEM.finditer(data):
        data[match.end() - 4 : match.end()] = b"free"
    return 0


def check_chunks(file: io.BytesIO | io.BufferedReader, size: int) -> None:
    """Raises ValueError if a PNG file has so many parts that going through them takes long, or two colour profiles,
    each of which is unpacked; leaves the file at its beginning."""
    place, others, profiles = len(PNG), 0, 0
    for number in count():
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        profiles += kind == b"iCCP"
        others += (kind[:1].islower() and kind not in (b"fcTL", b"fdAT")) or not length
        if profiles > 1 or others > SEGMENTS or number > SEGMENTS + size // CHUNK:
            raise ValueError("it has more parts than a picture needs")
        place += 12 + length
    file.seek(0)


def check_extensions(data: bytearray) -> int:
    """Raises ValueError if the comments before a GIF file's first picture are so many that joining them takes long."""
    place = 13 + (3 * 2 ** ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    parts = 0
    while data[place : place + 1] == b"!":
        place += 2
        while place < len(data) and data[place]:
            place, parts = place + 1 + data[place], parts + 1
            if parts > SEGMENTS:
                raise ValueError("its comments are too long")
        place += 1
    return 1


WHOLE = {1: "B", 3: "H", 4: "I"}  # TIFF's types of whole numbers
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes of a value, by TIFF's number of its type


def layout(data: memoryview) -> tuple[str, bool, int]:
    """How a TIFF file is written: its bytes' order for `struct`, whether it is a BigTIFF, where its first directory is.

    Raises:
        struct.error: the file is too short.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    return order, big, start


def entries(data: memoryview, start: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """A directory of a TIFF file: place, tag, bytes of the value, and the value if it is an orientation.

    Args:
        data: the file.
        start: where the directory is; the first one if not given.

    Raises:
        struct.error, OverflowError: the file is too short.
        ValueError: it has more tags than any honest one.
    """
    order, big, first = layout(data)
    start = first if start is None else start
    (tags,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if tags >= 2**16:
        raise ValueError("it has too many tags")
    step, head, inside = (20, 8, 12) if big else (12, 2, 8)
    for place in range(start + head, min(start + head + tags * step, len(data) - step + 1), step):
        tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place)
        value = 0
        if tag == ORIENTATION and kind in WHOLE:
            (value,) = struct.unpack_from(order + WHOLE[kind], data, place + inside)
        yield place, tag, (SIZES[kind] if kind < len(SIZES) else 0) * number, value if 1 <= value <= 8 else 0


def all_entries(data: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """The directories of a TIFF file one after the other, as far as they can be read: number of the directory, and what
    `entries` tells.

    Raises:
        struct.error, OverflowError: the file is too short for one directory.
        ValueError: it has more tags than any honest one.
    """
    start, seen, total = layout(data)[2], set[int](), 0
    while start not in seen:
        if len(seen) >= MOST_PICTURES:
            raise ValueError(f"it has more than {MOST_PICTURES} pictures")
        for entry in entries(data, start):
            total += 1
            if total > MOST_TAGS:
                raise ValueError("it has too many tags")
            yield len(seen), *entry
        seen.add(start)
        start = following(data, start)


def following(data: memoryview, start: int) -> int:
    """Where the directory after that at ``start`` is; the same if there is none that can be read."""
    order, big, _ = layout(data)
    short, long, step, head = ("Q", "Q", 20, 8) if big else ("H", "I", 12, 2)
    with suppress(struct.error, OverflowError):
        (tags,) = struct.unpack_from(order + short, data, start)
        (after,) = struct.unpack_from(order + long, data, start + head + tags * step)
        struct.unpack_from(order + short, data, after)
        return after or start
    return start
