"""Which of the processes this is that torchrun or accelerate started together."""

import os
from typing import NamedTuple


class Process(NamedTuple):
    """One of the processes of a start."""

    rank: int = 0
    processes: int = 1


def this_process() -> Process:
    """What torchrun or accelerate told this process; the only one if none did."""
    return Process(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
