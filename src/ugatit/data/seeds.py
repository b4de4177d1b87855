"""Everything random is a function of (seed, what for, which one): so a run can go on at any sample, with any number of
workers and processes, exactly where it left off, and the step number is all the state there is."""

import numpy as np
import torch


def seed_of(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit seed for one purpose."""
    entropy = (seed, *purpose.encode(), *index)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def rng(seed: int, purpose: str, *index: int) -> torch.Generator:
    """A CPU generator seeded by `seed_of`."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, *index))
