"""What was found in a folder of pictures, remembered: at the next start only those that have changed are decoded."""

import json
import os
import time
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import PIL
from platformdirs import user_cache_path

from ugatit.data.reading import Look, examine
from ugatit.io.files import real, write_json

VERSION = 3  # of what is remembered
PACKAGES = ("tifffile", "imagecodecs", "pillow_heif")  # what can be read depends on them
KEPT = 180 * 24 * 3600  # seconds that a folder is remembered that is not used


class Memory:
    """What is known of a folder's pictures, in a file of the user's cache.

    A picture is known by its name, size and times; whatever else of it changes, one of the times does.

    Args:
        root: the folder; None remembers nothing.
        channels: that are needed of its pictures.
    """

    def __init__(self, root: Path | None, channels: int):
        self.root, self.channels, self.changed = root, channels, False
        self.saved = time.monotonic()
        self.known: dict[str, list] = {}
        self.path: Path | None = None
        if root is None:
            return
        read_by = VERSION, channels, PIL.__version__, *(find_spec(name) is not None for name in PACKAGES)
        key = sha256(repr((str(real(root)), read_by)).encode()).hexdigest()[:32]
        self.path = user_cache_path("ugatit") / "looks" / f"{key}.json"
        with suppress(OSError, ValueError):
            found = json.loads(self.path.read_text("utf-8"))
            self.known = found if isinstance(found, dict) else {}

    def recall(self, file: Path) -> Look | None:
        """What is known of a picture of the folder, if it is as it was."""
        if self.root is not None:
            with suppress(KeyError, TypeError, ValueError, OSError):
                stamp, *look = self.known[str(file.relative_to(self.root))]
                if stamp == stamp_of(file):
                    return Look(*look)
        return None

    def look_at(self, file: Path) -> Look:
        """Look at a picture, and remember what that tells.

        Raises:
            ValueError: it is no picture; the message is a phrase that says why.
        """
        stamp = None
        with suppress(OSError):  # or else looking at it tells what is wrong
            stamp = stamp_of(file)
        found = examine(file, self.channels)
        # Not what may change again within one tick of the clock.
        if self.root is not None and stamp and time.time_ns() - max(stamp[1:]) > 10**9:
            self.known[str(file.relative_to(self.root))] = [stamp, *found]
            self.changed = True
        return found

    def save(self, after: float = 0) -> None:
        """Write what is new, where the user's cache can be written, if so many seconds have passed since the last time;
        what nobody has used for long is removed."""
        if self.path is None or time.monotonic() < self.saved + after:
            return
        self.saved = time.monotonic()
        with suppress(OSError):
            if not self.changed:
                os.utime(self.path)
                return
            write_json(self.path, dict(self.known))  # other threads go on
            for file in self.path.parent.glob("*.json"):
                if time.time() - file.stat().st_mtime > KEPT:
                    file.unlink()


def stamp_of(file: Path) -> list[int]:
    """The size of a file, and the times of its last changes."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
