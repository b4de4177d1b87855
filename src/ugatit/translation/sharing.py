"""Files shared among processes, as torchrun and accelerate start them on one machine or many, and among several starts.

Each process takes its own files of the same list and notes beside the results which are done, so none has to hear of
another, and the next start goes on where one was killed.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from ugatit.io.errors import UserError
from ugatit.io.files import real, writing
from ugatit.translation.files import Job


class Process(NamedTuple):
    """Which of the processes of one start this is."""

    rank: int = 0
    processes: int = 1


def this_process() -> Process:
    """What torchrun or accelerate told this process; the only one if none did."""
    return Process(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


class Share:
    """One process's share of the jobs of a translation.

    Args:
        jobs: of all processes.
        out: the folder of the results.
        settings: all that results depend on besides their sources; what was done with others does not count.
        process: whose part.
        anew: do all again, whatever an earlier start has done.

    Raises:
        UserError: the folder cannot be written, or it is among the inputs of several processes.
    """

    def __init__(self, jobs: list[Job], out: Path, settings: dict[str, Any], process: Process, anew: bool):
        self.process = process
        if process.processes > 1 and any(real(job.source).is_relative_to(real(out)) for job in jobs):
            raise UserError(
                f"{out} is among the inputs, where several processes see each other's results: give another -o."
            )
        text = json.dumps(settings, sort_keys=True, default=str)
        self.folder = out / f".translating-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if anew:
            shutil.rmtree(self.folder, ignore_errors=True)
        with writing(out):
            self.folder.mkdir(parents=True, exist_ok=True)
            known = {line for notes in self.folder.glob("*.txt") for line in notes.read_text().splitlines()}
            self.notes = (self.folder / f"{process.rank}-of-{process.processes}.txt").open("a")
        self.known = known
        self.before = 0  # jobs of this process that an earlier start has done

    def part(self, jobs: list[Job], together: int = 1) -> list[Job]:
        """What of some jobs is left for this process, which takes so many of them together."""
        mine = [job for n, job in enumerate(jobs) if n // together % self.process.processes == self.process.rank]
        left = [job for job in mine if not (note_of(job) in self.known and job.target.exists())]
        self.before += len(mine) - len(left)
        return left

    def done(self, job: Job) -> None:
        """Note that a job's results are written."""
        with writing(self.folder):
            self.notes.write(note_of(job) + "\n")
            self.notes.flush()

    def end(self) -> None:
        """All jobs of this process were tried; the last process to say so clears the notes away."""
        self.notes.close()
        with writing(self.folder):
            (self.folder / f"{self.process.rank}-of-{self.process.processes}.end").touch()
        if len(list(self.folder.glob(f"*-of-{self.process.processes}.end"))) == self.process.processes:
            shutil.rmtree(self.folder, ignore_errors=True)


def note_of(job: Job) -> str:
    """A line that tells a job and the state of its source."""
    state = job.source.stat()
    return json.dumps([str(job.target), state.st_size, state.st_mtime_ns])
