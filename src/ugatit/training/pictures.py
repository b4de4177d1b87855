"""What a run learns from its pictures and says of them: how they are read, how faces were cut out, what is left out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ugatit.data.faces import faces_in
from ugatit.data.finding import DARK, Pictures, Skipped, common_range
from ugatit.data.reading import Look
from ugatit.data.samples import SHALLOW
from ugatit.io.errors import UserError
from ugatit.io.terminal import counted, some
from ugatit.systems.base import Range, faces_of

Say = Callable[..., None]  # of a line and its style


def with_ranges(model: Any, pictures: Pictures, say: Say) -> Any:
    """The settings with the ranges that pictures are read with; those that are found in a domain's pictures are said,
    and so is which of these come out nearly black.

    Raises:
        UserError: a domain has both kinds of pictures: those that tell what is black and white, and others.
    """
    if not hasattr(model, "range"):  # a method from outside, whose pictures go by their type
        return model
    chosen: dict[str, Range | str] = {}
    both = ("a", pictures.train_a + pictures.test_a), ("b", pictures.train_b + pictures.test_b)
    for domain, files in both:
        given = model.range_b if domain == "b" and model.range_b is not None else model.range
        looks = {file: pictures.looks[file] for file in files}
        found = found_range(given, looks)
        if found is not None:
            given = found
            option = "--range-b" if domain == "b" and model.range_b is not None else "--range"
            low, high = given
            say(f"The samples of domain {domain.upper()} go from {low:g} to {high:g}, its {option} from now on.")
        low, high = (0, 65535) if isinstance(given, str) else given
        tops = {file: look.high for file, look in looks.items() if look.deep and look.high is not None}
        dark = [file for file, top in tops.items() if (top - low) / (high - low) < DARK]
        if dark:
            say(
                f"Nearly black as read: {counted(len(dark), 'picture')} of domain {domain.upper()}, with samples far "
                f"below {high:g}: {some(dark)}. Give --range LOW HIGH, or --range auto.",
                "yellow",
            )
        chosen[domain] = given
    if chosen["a"] == chosen["b"]:
        return replace(model, range=chosen["a"], range_b=None)
    return replace(model, range=chosen["a"], range_b=chosen["b"])


def found_range(given: Range | str, looks: dict[Path, Look]) -> Range | None:
    """The range of a domain's pictures where it is asked for or they do not tell; None where what is given is enough.

    Raises:
        UserError: some do not tell, and others do.
    """
    lost = [file for file, look in looks.items() if not look.scaled]
    needed = given == "type" and bool(lost)
    if needed and len(lost) < len(looks):
        other = next(file for file, look in looks.items() if look.scaled)
        raise UserError(
            f"{lost[0]} has floats or 32 bits, which do not tell what is black and what is white, and {other} of "
            "the same domain has not: give `range` LOW HIGH for all, or convert one kind to the other."
        )
    if given != "auto" and not needed:
        return None
    low, high = common_range(looks.values(), every=not needed) or (0, 1)
    return low, high if low < high else low + 1


def with_faces(model: Any, pictures: Pictures, say: Say) -> Any:
    """The settings with how faces were cut out of the pictures, if that is not known yet and the data set tells it."""
    if not hasattr(model, "faces_a"):  # a method from outside
        return model
    roots = {domain: pictures.roots[f"train{domain.upper()}"] for domain in "ab"}
    try:
        found = {f"faces_{domain}": faces_of(model, domain) or faces_in(root) for domain, root in roots.items()}
    except ValueError as error:
        say(
            f"The model will not know how faces were cut out for this data set, as {error}: restore it to have that.",
            "yellow",
        )
        return model
    return replace(model, **found)


def lost_picture(batch: Any) -> str:
    """What a process says when its own batch, or that of another, has a picture that cannot be read any more."""
    if isinstance(batch, Skipped):
        return f"{batch.path} was fine when the run began and now {batch.reason}: put it back and use `resume`."
    return "Another process of this run found a picture that cannot be read any more: see what it says."


def report_pictures(pictures: Pictures, say: Say) -> None:
    """One summary of what was found and what was left out."""
    say(
        f"{len(pictures.train_a)} + {len(pictures.train_b)} training pictures, "
        f"{len(pictures.test_a)} + {len(pictures.test_b)} test pictures"
    )
    shallow = [file for file, look in pictures.looks.items() if look.lost]
    if shallow:
        say(f"{counted(len(shallow), 'picture')} {SHALLOW}: {some(shallow)}", "yellow")
    if pictures.skipped:
        say(f"skipped: {counted(len(pictures.skipped), 'file')}", "yellow")
        for one in pictures.skipped:
            say(f"  {one}")
