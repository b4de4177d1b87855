"""Early signs that training leads nowhere, each told once in a line with what helps."""

from collections.abc import Iterable

from torch import Tensor

SETTLED = 1000  # steps before which nothing is told
WINDOW = 500  # steps that losses are averaged over
UNCHANGED = 0.02  # mean absolute difference from the source, of a range of 2, below which a translation is none


class Signs:
    """What was seen of a run since it was started or resumed."""

    def __init__(self) -> None:
        self.means: dict[str, float] = {}
        self.steps = 0
        self.told: set[str] = set()

    def add(self, means: dict[str, float], steps: int) -> None:
        """Take in the mean losses of so many further steps."""
        self.steps += steps
        share = min(1.0, steps / min(self.steps, WINDOW))
        self.means = {name: mean + (1 - share) * (self.means.get(name, mean) - mean) for name, mean in means.items()}

    def new(self, sentences: Iterable[str]) -> list[str]:
        """Those that can be told by now and were not told yet."""
        if self.steps < SETTLED:
            return []
        fresh = [sentence for sentence in sentences if sentence not in self.told]
        self.told |= set(fresh)
        return fresh


def unchanged(columns: dict[str, Tensor]) -> list[str]:
    """What to tell of a preview sheet's columns whose translations are as good as their sources."""
    found = []
    for source, target in ("AB", "BA"):
        before, after = columns.get(f"source {source}"), columns.get(f"{source} to {target}")
        if before is None or after is None or before.shape != after.shape:
            continue
        if float((after - before).abs().mean()) < UNCHANGED:
            found.append(
                f"Translations {source} to {target} hardly differ from their sources: give the losses that ask for "
                "likeness (cycle, identity) less weight, or train longer."
            )
    return found
