"""Data sets in Parquet files, as the Hugging Face hub keeps them: columns of pictures, splits and labels."""

import json
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ugatit.data.archives import PICTURES, TESTS, need_room
from ugatit.io.errors import UserError, package
from ugatit.io.files import atomic_folder, writing
from ugatit.io.terminal import counted, say, tracked

PACKED, SMALL = 50, 2**30  # times a file's bytes that its pictures may have, and bytes that they always may


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
        if len({(split_of(table), table.name) for table in tables}) < len(tables):
            several = ", ".join(sorted({table.parent.name for table in tables}))
            raise UserError(f"{where} has several configurations ({several}): download one, and give its folder.")
        schema = parquet.read_schema(tables[0])
        splits = {table: split_of(table) for table in tables}
        domains = choose_columns(schema, sorted(set(splits.values())), names, where)
        with writing(folder, "empty the cache"), atomic_folder(folder) as temporary:
            need_room(sum(table.stat().st_size for table in tables), temporary, where)
            say(f"unpacking {where} into {folder}")
            absent = 0
            for table in tracked(tables, "unpacking", len(tables)):
                stem = table.stem if table.stem.startswith(splits[table]) else f"{splits[table]}-{table.stem}"
                for side, column in zip("AB", domains, strict=True):
                    if part := part_of(column, splits[table]):
                        place = temporary / f"{part}{side}"
                        size = table.stat().st_size
                        absent += write_column(parquet.ParquetFile(table), column, place, stem, size)
            if absent:
                say(
                    f"left out: {counted(absent, 'picture')} of {where}, which names files that it does not hold",
                    "yellow",
                )
            for part in ("trainA", "trainB"):
                if not (temporary / part).is_dir():
                    raise UserError(f"{where} has no pictures for {part}: tell which are A and B, as in {where}#x,y.")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{where} is damaged ({error}): get it again, or give another.") from None


def split_of(table: Path) -> str:
    """The split that a Parquet file belongs to, by its name, or its folder's."""
    name = re.sub(r"(-\d+-of-\d+.*|-?\d*)$", "", table.stem)
    return name if name and name != "data" else table.parent.name


def part_of(column: Column, split: str) -> str | None:
    """Whether a column's pictures of a split are "train" or "test"; None if they are not wanted."""
    if column.split is not None and split == column.split.replace("train", "test"):
        return "train" if split == column.split else "test"
    if column.split not in (None, split):
        return None
    return "test" if split.lower().startswith(TESTS) else "train"


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


def write_column(table: Any, column: Column, folder: Path, stem: str, size: int) -> int:
    """Write a column's pictures as files, called by their row; returns how many are named, and not there.

    Raises:
        ValueError: they are far larger than the file, in which equal ones stand once.
    """
    left = max(SMALL, PACKED * size)
    wanted = [column.name] + ([column.label[0]] if column.label else [])
    number = absent = 0
    for batch in table.iter_batches(batch_size=4, columns=wanted):
        for row in batch.to_pylist():
            number += 1
            picture = row[column.name]
            if picture is None or (column.label and row[column.label[0]] != column.label[1]):
                continue
            if picture["bytes"] is None:
                absent += 1
                continue
            suffix = PurePosixPath(picture["path"] or "x.png").suffix.lower()
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{stem}-{number:07d}{suffix if suffix in PICTURES else '.png'}"
            left -= len(picture["bytes"])
            if left < 0:
                raise ValueError(f"{stem} unpacks to far more than its size")
            (folder / name).write_bytes(picture["bytes"])
    return absent
