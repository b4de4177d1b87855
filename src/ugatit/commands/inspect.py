"""Show what a model costs, what its rho chose and where its networks look."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from tyro.conf import Positional, arg

from ugatit.commands.parsing import parse
from ugatit.data.finding import check_pictures, find_files, spread
from ugatit.evaluation.attention import attention_on_faces, attention_table
from ugatit.evaluation.evaluate import read_squares
from ugatit.evaluation.inspection import inspect
from ugatit.io.errors import UserError
from ugatit.io.terminal import console, counted, say
from ugatit.systems.base import Direction
from ugatit.translation.faces import face_finder
from ugatit.translation.files import plan_jobs
from ugatit.translation.translator import Translator


@dataclass(frozen=True)
class InspectConfig:
    """Show what a model costs, what its rho chose and where its networks look."""

    model: Positional[str]
    """The model: its folder (RUN/model), the name of one in the package, such as cat2dog, or its id on the Hugging Face
    hub, like user/name."""
    inputs: Annotated[Positional[list[str]], arg(name="input")] = field(default_factory=list)
    """The pictures to look at: files, folders or globs, or one folder with testA and testB inside."""
    direction: Direction = "a2b"
    """The direction that the pictures are translated in. A folder with testA and testB is translated both ways."""
    pictures: Annotated[int, Field(ge=1)] = 4
    """How many of the pictures are looked at, evenly spread."""
    faces: bool = False
    """In pictures of faces, also measure how much of the attention is on eyes and mouth; in all of them."""
    size: Annotated[int | None, Field(ge=32, le=4096, multiple_of=4)] = None
    """The side in pixels of the picture whose translation is costed. If it is not given, the model's own."""
    batch: Annotated[int, Field(ge=1)] = 1
    """How many pictures of each domain the costed training step has."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("inspection")
    """The folder for inspection.json, rho.png and attention.png."""
    json: bool = False
    """Print what inspection.json gets to the standard output, for programs; all else goes to the error output."""
    device: str | None = None
    """The device to compute on, such as cuda or cpu. If it is not given, the accelerator is used where there is one."""


def has_attention(translator: Translator, direction: Direction) -> bool:
    """Whether any network of a model has maps that tell where it looks."""
    channels = translator.samples(direction[0]).channels
    x = torch.zeros(1, channels, translator.side, translator.side, device=translator.device)
    with torch.inference_mode():
        return bool(translator.system.attention(x, direction))


def main(arguments: list[str]) -> None:
    options = parse(InspectConfig, "ugatit inspect", arguments)
    translator = Translator.load(options.model, options.device, with_training=True)
    translator.check_direction(options.direction)
    folders = {side: Path(options.inputs[0]) / f"test{side}" for side in "AB"} if len(options.inputs) == 1 else {}
    if folders and all(folder.is_dir() for folder in folders.values()):
        files = {side: find_files(folder) for side, folder in folders.items()}
    else:
        files = {options.direction[0].upper(): [job.source for job in plan_jobs(options.inputs, options.out)]}
    if options.faces and not options.inputs:
        raise UserError("--faces needs pictures of faces: give files, folders or globs after MODEL.")
    if options.faces and not has_attention(translator, options.direction):
        raise UserError("This model has no attention, of which --faces measures where it is: leave --faces out.")
    tests, measured = {}, []
    for side, found in files.items():
        wanted = found if options.faces else spread(found, options.pictures)
        good, skipped = check_pictures(wanted, translator.samples(side.lower()))
        for one in skipped:
            say(f"  skipped: {one}")
        if not good:
            continue
        tests[side] = read_squares(translator, spread(good, options.pictures), side.lower())
        way: Direction = "a2b" if side == "A" else "b2a"
        if options.faces and way in translator.system.directions:
            squares = (read_squares(translator, [file], way[0])[0] for file in good)
            rows = attention_on_faces(translator, squares, way, face_finder(translator, way).detect)
            count = max((row["pictures"] for row in rows), default=0)
            if count < len(good):
                say(
                    f"Not counted: {counted(len(good) - count, 'picture')} of {len(good)}, with no face, or several, "
                    f"at the model's {translator.side} pixels."
                )
            measured += rows
    if options.inputs and not tests:
        raise UserError("None of the pictures can be used: see the reasons above, or give others.")
    numbers = inspect(
        translator, tests, options.size or translator.side, options.batch, options.out, console, {"faces": measured}
    )
    if measured:
        console.print(attention_table(measured))
    if options.json:
        print(json.dumps(numbers, indent=2))
    say(f"Written to {options.out}")
