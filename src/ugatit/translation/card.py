"""The card of a model, ``README.md`` in its folder, which the Hugging Face hub shows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ugatit.io.files import printable, write_text
from ugatit.systems.base import WAYS, System, channels_of

CARD_FILES = ["README.md", "sheet.png"]
OURS = "<!-- ugatit writes this card anew while this line is in it. Take the line out to keep what you write. -->"
NOT_MEASURED = "Not measured yet: `ugatit evaluate MODEL DATA` does."
FIGURES = re.compile(r"(?<=^## Figures\n\n).*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Training:
    """What a card tells of how a model was trained."""

    data: str
    """The name of the data set, without its place on this machine."""
    pictures: tuple[int, int]
    """How many pictures of A and of B it was trained on."""
    steps: int
    """How many steps are done."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings of the run, by the names of their options."""


def card_text(
    system: System, name: str, training: Training | None = None, sheet: bool = False, figures: Sequence[str] = ()
) -> str:
    """A model's card.

    Args:
        system: the model.
        name: what it is called.
        training: how it was trained, if that is known.
        sheet: whether ``sheet.png`` lies beside the card.
        figures: what was measured, in lines.
    """
    name = printable(name)  # of a folder, which may hold line breaks and bytes that are no text
    config, (a, b) = system.config, channels_of(system.config)
    kind = type(system).__name__.replace("UGATIT", "U-GAT-IT")
    tags = ["image-to-image-translation", "unpaired", type(system).__name__.lower()]
    datasets = [re.sub(r"[^\w./-]+", "-", training.data)] if training else None
    meta = ModelCardData(
        library_name="ugatit", pipeline_tag="image-to-image", license="unknown", datasets=datasets, tags=tags
    )
    channels = {(3, 3): "colour", (1, 1): "grey"}.get((a, b), f"{a} and {b} channels")
    light = " light" if getattr(config, "light", False) else ""
    ways = " and ".join(WAYS[way] for way in system.directions)
    made = "trained with `ugatit` at" if training else "for pictures of"
    lines = [
        "---",
        meta.to_yaml(),
        "---",
        "",
        OURS,
        "",
        f"# {name}",
        "",
        f"A {kind}{light} translator, {ways}, {made} {config.size} px in {channels}.",
        "",
        *(["![Sources, where the networks look, and their translations](sheet.png)", ""] if sheet else []),
        "## Use",
        "",
        "    from PIL import Image",
        "    from ugatit import Translator",
        f'    Translator.load("USER/{printable_id(name)}")(Image.open("picture.jpg"), "{system.directions[0]}").save("'
        'translated.png")',
        "",
        "The name is the model's folder or its id on the hub. On the command line:",
        "",
        f"    ugatit translate USER/{printable_id(name)} PICTURES... -o translated --direction {system.directions[0]}",
        "",
        "## Figures",
        "",
        *(figures or [NOT_MEASURED]),
        "",
        "## Training",
        "",
        *(training_lines(training) if training else ["How it was trained is not known here."]),
        "",
        "## Licence",
        "",
        "None was stated. What may be done with the weights depends on the rights in the training pictures: put the "
        "licence in the first lines of this card, where it says unknown.",
        "",
    ]
    return "\n".join(lines)


def printable_id(name: str) -> str:
    """A name as the hub allows one."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def training_lines(training: Training) -> list[str]:
    """What a card says of the training, in lines."""
    settings = [f"| {name} | {shown(value)} |" for name, value in training.settings.items()]
    a, b = training.pictures
    return [
        f"{training.steps:,} steps on {printable(training.data)}: {a:,} + {b:,} pictures.",
        "",
        *(["| setting | |", "| --- | --- |", *settings] if settings else []),
    ]


def shown(value: Any) -> str:
    """A setting in a table's cell."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|") or "none"


def write_card(folder: Path, text: str) -> None:
    """Write a model's card, unless its owner has taken it over.

    Raises:
        OSError: it could not be written.
    """
    path = folder / "README.md"
    if path.exists() and OURS not in path.read_text("utf-8", "replace"):
        return
    write_text(path, text)


def add_figures(folder: Path, metrics: Mapping[str, Any]) -> bool:
    """Put what `ugatit.evaluation.evaluate.evaluate_model` found into a model's card.

    Returns:
        Whether there is a card that takes it.

    Raises:
        OSError: it could not be written.
    """
    path = folder / "README.md"
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    if OURS not in text or not FIGURES.search(text):
        return False
    protocol = metrics["protocol"]
    rows = []
    for way, name in WAYS.items():
        if found := metrics.get(way):
            kid = f"{found['kid_mean']:.2f} ± {found['kid_std']:.2f}"
            rows.append(f"| {name} | {kid} | {found['fid']:.1f} | {found['pictures']['real']} |")
    table = ["| | KID x 100 | FID | test pictures |", "| --- | --- | --- | --- |", *rows]
    how = f"Features of {protocol['features']}; {protocol['resize']}; ugatit {protocol['ugatit']}."
    figures = "\n".join([*table, "", f"{how} Figures of other protocols cannot be compared.", "", ""])
    write_card(folder, FIGURES.sub(lambda _: figures, text, count=1))
    return True


def shared_card(text: str, repo_id: str) -> str:
    """A card as it is on the hub: with the model's id in its examples, and nobody who writes it anew."""
    if OURS not in text:
        return text
    return re.sub(r"USER/[\w.-]+", lambda _: repo_id, text.replace(f"{OURS}\n\n", ""))
