"""Pictures at the size that training needs, kept in a folder that all processes of a run share and find again."""

import multiprocessing
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from ugatit.data.memory import VERSION, stamp_of
from ugatit.io.files import remove, temporary_name

Picture = Image.Image | Tensor


def folder_for(cache: Path, how: object) -> Path:
    """The folder in a cache for pictures that are read in a way, which gets all the room: those of other ways, as
    training had them before, are removed."""
    own = cache / sha256(repr((VERSION, PIL.__version__, how)).encode()).hexdigest()[:16]
    for other in cache.glob("*"):
        if other != own:
            with suppress(OSError):
                remove(other)
    return own


class Kept:
    """The pictures that are kept; those that come first stay, as every epoch needs every picture.

    The system keeps what is read again and again in memory, once for all processes.

    Args:
        folder: made when it is needed.
        room: bytes that all may fill.
        processes: that train; each and the workers it starts have their part of what is left.
    """

    def __init__(self, folder: Path, room: int, processes: int = 1):
        self.folder = folder
        used = sum(file.stat().st_size for file in folder.glob("*.npy"))
        self.room = multiprocessing.Value("q", (room - used) // processes)

    def path_of(self, file: Path, how: object) -> Path:
        """Where the picture of a file is kept, as the file is now and is read.

        Args:
            file: the picture's.
            how: all that the picture depends on besides.

        Raises:
            OSError: there is no such file.
        """
        key = repr((str(file.absolute()), stamp_of(file), how))
        return self.folder / f"{sha256(key.encode()).hexdigest()[:32]}.npy"

    def get(self, file: Path, how: object) -> Picture | None:
        """The picture of a file that is read in a way; None if it is not kept."""
        with suppress(OSError, ValueError, EOFError):  # after a power cut it may be half there
            values = np.load(self.path_of(file, how))
            return Image.fromarray(values) if values.dtype == np.uint8 else torch.from_numpy(values)
        return None

    def put(self, file: Path, how: object, picture: Picture) -> None:
        """Keep the picture of a file if there is room on the disk and in what was given."""
        values = picture.numpy() if isinstance(picture, Tensor) else np.asarray(picture)
        with self.room.get_lock():
            if values.nbytes > self.room.value:
                return
            self.room.value -= values.nbytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            mine = temporary_name(self.folder)  # other machines' processes may have the same number
            try:
                with mine.open("wb") as opened:
                    np.save(opened, values)
                mine.replace(self.path_of(file, how))
            finally:
                mine.unlink(missing_ok=True)
        except OSError:  # the disk was full
            with self.room.get_lock():
                self.room.value += values.nbytes
