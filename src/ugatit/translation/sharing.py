"""Files shared among processes, as torchrun and accelerate start them on one machine or many, and among several starts.

Each process takes its own files of the same list and notes beside the results which are done, so none has to hear of
another, and the next start goes on where one was killed.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ugatit.data.memory import stamp_of
from ugatit.io.errors import UserError
from ugatit.io.files import real, writing
from ugatit.io.processes import Process
from ugatit.translation.files import Job

NOTES = re.compile(r"[0-9a-f]{12}-\d+-of-\d+\.txt")  # what the files of notes are called


class Share:
    """One process's share of the jobs of a translation.

    A job is done if its results are as they were when they were noted, and its source as it was before it was read.

    Args:
        out: the folder of the results.
        settings: all that results depend on besides their sources; what was done with others does not count.
        attention: whether a job has a heat map too.
        process: whose share.
        anew: do all again, whatever an earlier start has done.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, out: Path, settings: dict[str, Any], attention: bool, process: Process, anew: bool = False):
        self.out, self.attention, self.process = out, attention, process
        text = json.dumps(settings, sort_keys=True, default=str)
        self.folder, key = out / ".translating", hashlib.sha256(text.encode()).hexdigest()[:12]
        if self.folder.is_symlink():
            raise UserError(f"{self.folder} is a link, where notes of what is done shall go: remove it.")
        with writing(out):
            self.folder.mkdir(parents=True, exist_ok=True)
            for notes in self.folder.iterdir():
                if NOTES.fullmatch(notes.name) and (anew or not notes.name.startswith(key)):
                    notes.unlink(missing_ok=True)
            self.known = self.read()
            self.notes = (self.folder / f"{key}-{process.rank}-of-{process.processes}.txt").open("a", encoding="utf-8")
        self.jobs: list[Job] = []  # of all processes
        self.sources: dict[Job, list[int] | None] = {}  # as they were before they were read
        self.before = 0  # jobs of this process that an earlier start has done

    def part(self, jobs: list[Job], together: int = 1) -> list[Job]:
        """What of some jobs is left for this process, which takes so many of them together.

        Args:
            jobs: of all processes, in the same order for each.
            together: how many.

        Raises:
            UserError: results would be among the sources of several processes.
        """
        out = real(self.out)
        if self.process.processes > 1 and any(real(job.source).is_relative_to(out) for job in jobs):
            raise UserError(
                f"{self.out} is among the inputs, where several processes see each other's results: give another `out`."
            )
        self.jobs += jobs
        mine = [job for n, job in enumerate(jobs) if n // together % self.process.processes == self.process.rank]
        self.sources |= {job: state_of(job.source) for job in mine}
        left = [job for job in mine if not self.is_done(job)]
        self.before += len(mine) - len(left)
        return left

    def state(self, job: Job) -> list[Any]:
        """What a job's source was and its results are like."""
        results = [job.target, job.attention] if self.attention else [job.target]
        return [self.sources[job], *map(state_of, results)]

    def is_done(self, job: Job) -> bool:
        """Whether a job's results are as they were noted."""
        known = self.known.get(str(job.target))
        if known is None:
            return False
        state, further = known
        return state == self.state(job) and all(state_of(Path(path)) == was for path, was in further.items())

    def done(self, job: Job, further: Iterable[Path] = ()) -> None:
        """Note that a job's results are written, ``further`` ones among them."""
        self.note(str(job.target), [self.state(job), {str(path): state_of(path) for path in further}])

    def skipped(self, source: Path) -> None:
        """Note that a file was tried in vain."""
        self.note(str(source), None)

    def note(self, path: str, state: list[Any] | None) -> None:
        """Write a line of notes: what was done or tried, and how it was."""
        with writing(self.folder):
            self.notes.write(json.dumps([path, state]) + "\n")
            self.notes.flush()

    def read(self) -> dict[str, Any]:
        """What all processes have noted until now."""
        lines = [line for notes in self.folder.glob("*.txt") for line in notes.read_text("utf-8").splitlines()]
        known = {}
        for line in lines:
            with suppress(ValueError):  # it was being written when its process was killed
                path, state = json.loads(line)
                known[path] = state
        return known

    def end(self) -> None:
        """All jobs of this process were tried; the process that sees all of all tried clears the notes away, if another
        start has none among them, which may be going on."""
        self.notes.close()
        known: dict[str, Any] = {}
        with suppress(FileNotFoundError):  # a second start of the same has cleared them away
            known = self.read()
        tried = all(str(job.target) in known or str(job.source) in known for job in self.jobs)
        if tried and known.keys() <= {str(path) for job in self.jobs for path in (job.source, job.target)}:
            shutil.rmtree(self.folder, ignore_errors=True)


def state_of(file: Path) -> list[int] | None:
    """What tells whether a file has changed; None if there is none."""
    with suppress(OSError):
        return stamp_of(file)
    return None
