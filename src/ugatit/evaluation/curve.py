"""KID over the steps of a run that trains: measured on test pictures, drawn, and the best step known beside the last.

The best of many measurements on the same pictures is partly luck, so it is never told without the last.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ugatit.data.finding import Pictures, spread
from ugatit.evaluation.evaluate import Evaluator, enough, evaluate_model
from ugatit.evaluation.metrics import Protocol
from ugatit.evaluation.sharing import is_first
from ugatit.io.errors import UserError, package
from ugatit.io.files import write_text, writing
from ugatit.io.sheet import save_figure
from ugatit.io.terminal import counted, say, silence
from ugatit.systems.base import WAYS, Direction, System, channels_of
from ugatit.translation.folder import saved_step
from ugatit.translation.translator import Translator

PICTURES = 200  # of each domain's test pictures, evenly spread


class KidCurve:
    """KID x 100 of translated test pictures to the other domain's, in efficientnet-lite0's features, step by step.

    ``RUN/kid/`` has ``kid.jsonl``, a line for each step that was measured, with what test pictures; ``kid.png``, the
    curve; and what `evaluate_model` writes of the newest.

    Args:
        pictures: of the run.
        system: that is trained.
        run: the run's folder.
        device: that it is trained on.
        step: after which it goes on; what was measured later is forgotten.

    Raises:
        UserError: there are too few test pictures, neither grey nor in colour, or a package is missing.
    """

    def __init__(self, pictures: Pictures, system: System, run: Path, device: torch.device, step: int):
        if not {1, 3}.issuperset(channels_of(system.config)):
            raise UserError("`evaluate_every`: KID is known for grey and colour pictures only: leave it out.")
        package("efficientnet_lite_pytorch", "offline")  # which brings all else
        package("matplotlib", "offline")
        both = {"A": pictures.test_a, "B": pictures.test_b}
        self.tests = {
            domain: spread(enough(files, f"`evaluate_every`: domain {domain}'s test set"), PICTURES)
            for domain, files in both.items()
        }
        self.evaluator = Evaluator(Protocol(features="efficientnet-lite0"), device)
        self.run, self.folder, self.path = run, run / "kid", run / "kid" / "kid.jsonl"
        names = "".join(pictures.looks[file].sha256 for files in self.tests.values() for file in files)
        self.measured_on = sha256(names.encode()).hexdigest()[:12]
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        known = [point for point in map(json.loads, lines) if point["step"] <= step]
        self.others = [point for point in known if point.get("tests", self.measured_on) != self.measured_on]
        self.points = [point for point in known if point not in self.others]
        if self.others and is_first():
            say(
                f"The test pictures are others than before: {counted(len(self.others), 'measurement')} of the old ones "
                f"stay in {self.path}, and count for neither the curve nor the best.",
                "yellow",
            )

    def __call__(self, system: System, step: int) -> tuple[dict[str, float], bool]:
        """Measure a system with the weights that it translates with.

        Returns:
            KID x 100 by the name that a log gives it, and whether this step is the best so far.

        Raises:
            UserError, OSError: the folder cannot be written.
        """
        translator = Translator(system, self.evaluator.device)
        with silence():  # the training's own bar stands there
            found = evaluate_model(self.evaluator, translator, self.tests, None, self.folder)
        parts = "mean", "std"
        ways: dict[str, Any] = {way: {part: found[way][f"kid_{part}"] for part in parts} for way in system.directions}
        point = {"step": step, "tests": self.measured_on, **ways}
        self.points = [point for point in self.points if point["step"] != step] + [point]
        if is_first():
            with writing(self.folder):
                write_text(self.path, "".join(json.dumps(point) + "\n" for point in self.others + self.points))
            self.draw()
        return {f"kid/{way}": value["mean"] for way, value in ways.items()}, self.best() is self.points[-1]

    def best(self) -> dict[str, Any]:
        """The point of the lowest KID, of the mean of both directions if there are two; the first such."""
        return min(self.points, key=overall)

    def draw(self) -> None:
        """Write the curve, with the subsets' standard deviation as a band."""
        figure = package("matplotlib.figure", "evaluate").Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        steps = [point["step"] for point in self.points]
        for way in ways_of(self.points[-1]):
            mean, std = ([point[way][part] for point in self.points] for part in ("mean", "std"))
            (line,) = axes.plot(steps, mean, marker="o", markersize=3, label=WAYS[way])
            low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.axvline(self.best()["step"], color="grey", linestyle=":", label="best")
        axes.set(xlabel="step", ylabel="KID x 100 (efficientnet-lite0)", ylim=(min(0, axes.get_ylim()[0]), None))
        axes.legend()
        save_figure(figure, self.folder / "kid.png")

    def measured(self, step: int) -> list[str]:
        """What a model's card tells of a step, in lines; nothing if it was not measured."""
        count = " + ".join(str(len(files)) for files in self.tests.values())
        found = [point for point in self.points if point["step"] == step]
        return [f"KID x 100 of efficientnet-lite0's features, {count} test pictures: {told(point)}." for point in found]

    def summary(self) -> list[str]:
        """The last measurement and the best, each in a line."""
        if not self.points:
            return []
        last, best = self.points[-1], self.best()
        lines = [f"KID x 100 of {sum(map(len, self.tests.values()))} test pictures, step {last['step']}: {told(last)}"]
        if best is last:
            return [*lines, f"No earlier step of the {len(self.points)} that were measured is better."]
        where = self.run / "best"
        kept = f"kept in {where}" if saved_step(where) == best["step"] else "of which no model could be kept"
        return [
            *lines,
            f"The best of the {len(self.points)} steps that were measured is {best['step']}: {told(best)}, {kept}. "
            "Being the best on these pictures it is flattered: measure it on others.",
        ]


def ways_of(point: dict[str, Any]) -> list[Direction]:
    """The directions that a point has figures of."""
    return [way for way in WAYS if way in point]


def overall(point: dict[str, Any]) -> float:
    """The mean of a point's KIDs."""
    ways = ways_of(point)
    return sum(point[way]["mean"] for way in ways) / len(ways)


def told(point: dict[str, Any]) -> str:
    """A point's figures as a phrase."""
    return ", ".join(f"{WAYS[way]} {point[way]['mean']:.2f} ± {point[way]['std']:.2f}" for way in ways_of(point))
