"""Train a translator on two folders of pictures, or continue a run with --resume RUN."""

import atexit
from dataclasses import replace
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

from ugatit.commands.parsing import check_words, option, parse
from ugatit.data.places import absolute, title
from ugatit.io.errors import UserError
from ugatit.io.files import printable
from ugatit.systems import REGISTRY
from ugatit.training.config import TrainConfig, preset_config, read_run


def main(arguments: list[str]) -> None:
    check_words(arguments, "ugatit train")
    resume = option(arguments, "--resume")
    if resume is None and "--resume" in arguments:
        raise UserError("--resume needs the folder of a run: give --resume RUN.")
    if resume is not None:
        place = next(i for i, word in enumerate(arguments) if word.split("=")[0] == "--resume")
        arguments = arguments[:place] + arguments[place + (1 if "=" in arguments[place] else 2) :]
        start = replace(read_run(Path(resume)), out=Path(resume))
    else:
        start = preset_config(option(arguments, "--system") or "ugatit", option(arguments, "--preset") or "paper")
    presets = {name: ", ".join(system.presets) for name, system in REGISTRY.items()}
    config = parse(
        OmitArgPrefixes[TrainConfig[REGISTRY[start.system].Config]],  # type: ignore[misc]
        "ugatit train",
        arguments,
        description="\n".join(
            [
                __doc__ or "",
                "Presets: " + "; ".join(f"{name}: {names}" for name, names in presets.items()) + ".",
                "The defaults below are those of the chosen --preset; with --resume, those of the run.",
            ]
        ),
        default=start,
    )
    if resume is not None and config.out != Path(resume):
        raise UserError("--out cannot be changed by --resume: leave it out.")
    if resume is not None:  # with DATA or with two folders, whichever the run was begun with
        if config.data != start.data:
            config = replace(config, source=None, target=None)
        elif (config.source, config.target) != (start.source, start.target):
            config = replace(config, data=None)
    if config.out is None:
        name = printable(title(absolute(config.data or config.target or Path("run"))))
        kind = config.preset if config.system == TrainConfig.system else f"{config.system}-{config.preset}"
        config = replace(config, out=Path("runs") / f"{name}-{kind}")
    places = {name: getattr(config, name) for name in ("data", "source", "target")}
    if config.start and config.start.exists():  # else one of the package's or the hub's
        places["start"] = config.start
    config = replace(config, **{name: absolute(path) for name, path in places.items() if path})  # resumed from anywhere
    from accelerate import PartialState  # after the options: help does not wait for what trains

    from ugatit.training.trainer import train

    train(config, resume is not None, curve_starter() if config.evaluate_every else None)
    atexit.register(PartialState().destroy_process_group)  # which can be made once only


def curve_starter() -> Any:
    """What measures a run while it trains, imported only where it is wanted."""
    from ugatit.evaluation.curve import KidCurve

    return KidCurve
