"""TensorFlow's checkpoints, read without TensorFlow: a tensor bundle of version 2.

``PREFIX.index`` is a table of LevelDB's format, from names to where each tensor lies in ``PREFIX.data-SHARD-of-ALL``.
Nothing in these files is run. Lengths and places are checked before anything is read, so a damaged or hostile index
takes no more memory than its files have bytes.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ugatit.io.files import open_regular

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two handles, and the magic number
LARGEST_INDEX = 2**26  # bytes
AVERAGES = ("/Adam", "/Adam_1")  # of the optimiser, two for each weight
# By TensorFlow's number of the type.
FLOATS: dict[int, np.dtype] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}


class Entry(NamedTuple):
    """Where a tensor lies."""

    kind: int  # TensorFlow's number of its type
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes


def varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place after it.

    Raises:
        ValueError: it does not end.
    """
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("a number does not end")
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if data[place - 1] < 0x80:
            return value, place


def block(data: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block of a table; keys leave out what they begin with alike."""
    offset, size = handle
    if offset + size + 1 > len(data) or size < 4:
        raise ValueError("a block lies outside")
    if data[offset + size] != 0:
        raise ValueError("it is compressed, which TensorFlow's own are not")
    part = data[offset : offset + size]
    (restarts,) = struct.unpack_from("<I", part, size - 4)
    end, place, key = size - 4 - 4 * restarts, 0, b""
    while place < end:
        shared, place = varint(part, place)
        own, place = varint(part, place)
        length, place = varint(part, place)
        if shared > len(key) or place + own + length > end:
            raise ValueError("an entry lies outside")
        key = key[:shared] + part[place : place + own]
        yield key, part[place + own : place + own + length]
        place += own + length


def handle_at(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the place after them."""
    offset, place = varint(data, place)
    size, place = varint(data, place)
    return (offset, size), place


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protobuf message's fields."""
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        kind, value = tag & 7, 0
        if kind == 0:
            value, place = varint(data, place)
            yield tag >> 3, value
            continue
        length, place = varint(data, place) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data)), place)
        if place + length > len(data):
            raise ValueError("a message ends too early")
        yield tag >> 3, data[place : place + length]
        place += length


def entry_of(message: bytes) -> Entry:
    """A BundleEntryProto."""
    numbers: dict[int, int] = {}
    shape: list[int] = []
    for number, value in fields(message):
        if isinstance(value, int):
            numbers[number] = value
        elif number == 2:  # TensorShapeProto, whose dimensions are its field 2
            for part, dimension in fields(value):
                if part == 2 and isinstance(dimension, bytes):
                    shape.append(next((int(n) for i, n in fields(dimension) if i == 1 and isinstance(n, int)), 0))
    return Entry(numbers.get(1, 0), tuple(shape), numbers.get(3, 0), numbers.get(4, 0), numbers.get(5, 0))


def read_index(path: Path) -> tuple[dict[str, Entry], int]:
    """The tensors of a checkpoint by name, and how many shards it has.

    Raises:
        ValueError: it is no such file; the message is a phrase that says why.
    """
    with open_regular(path) as file:
        data = file.read(LARGEST_INDEX + 1)
    if len(data) > LARGEST_INDEX:
        raise ValueError(f"is longer than {LARGEST_INDEX >> 20} MiB")
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ValueError("is no index of a TensorFlow checkpoint")
    try:
        _, place = handle_at(data, len(data) - FOOTER)
        top, _ = handle_at(data, place)
        found, shards = {}, 1
        for _, handle in block(data, top):
            for key, message in block(data, handle_at(handle, 0)[0]):
                if key:
                    found[key.decode()] = entry_of(message)
                else:  # BundleHeaderProto
                    shards = next((n for i, n in fields(message) if i == 1 and isinstance(n, int)), 1)
    except (ValueError, struct.error, IndexError) as error:
        raise ValueError(f"is damaged ({error})") from None
    return found, shards


def parts_of(index: Path) -> list[Path]:
    """The files with the tensors of a checkpoint."""
    return [file for file in index.parent.iterdir() if file.name.startswith(f"{index.stem}.data-") and file.is_file()]


def read_bundle(index: Path, wanted: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint in float32, whose names begin with ``wanted``; without the averages of its optimiser.

    Raises:
        ValueError: it is damaged, or its other files are missing; the message is a phrase that says why.
    """
    entries, shards = read_index(index)
    chosen = {n: entry for n, entry in entries.items() if n.startswith(wanted) and not n.endswith(AVERAGES)}
    left = sum(file.stat().st_size for file in parts_of(index))  # bytes; an index may name one place often
    found = {}
    for name, entry in chosen.items():
        kind = FLOATS.get(entry.kind)
        if kind is None or int(np.prod(entry.shape, dtype=object)) * kind.itemsize != entry.size:
            raise ValueError(f"is damaged ({name} is no tensor of floats)")
        part = index.with_name(f"{index.stem}.data-{entry.shard:05d}-of-{shards:05d}")
        try:
            with open_regular(part) as file:
                inside = entry.offset + entry.size <= os.fstat(file.fileno()).st_size
                file.seek(entry.offset if inside else 0)
                data = file.read(entry.size) if inside else b""
        except ValueError as error:
            raise ValueError(f"needs {part.name}, which {error}") from None
        if len(data) != entry.size:
            raise ValueError(f"is damaged ({part.name} ends before {name})")
        left -= entry.size
        if left < 0:
            raise ValueError("is damaged (its tensors are larger than its files)")
        values = np.frombuffer(data, kind).reshape(entry.shape).astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"is damaged ({name} holds what is no number)")
        found[name] = torch.from_numpy(values)
    return found
