"""Train and measure every row of the paper's Table 1 on one data folder."""

from dataclasses import replace
from pathlib import Path

from tyro.conf import OmitArgPrefixes

from ugatit.commands.parsing import option, parse
from ugatit.data.places import absolute, title
from ugatit.evaluation.evaluate import protocol_text
from ugatit.experiments.ablate import AblateConfig, ablate
from ugatit.io.errors import UserError
from ugatit.io.files import printable
from ugatit.io.terminal import say
from ugatit.training.config import preset_config


def main(arguments: list[str]) -> None:
    options = parse(
        OmitArgPrefixes[AblateConfig],
        "ugatit ablate",
        arguments,
        description=f"{__doc__} It takes the options of ugatit train; --seeds replaces --seed.",
        default=AblateConfig(preset_config("ugatit", option(arguments, "--preset") or "paper")),
    )
    if options.train.system != "ugatit":
        raise UserError(f"--system {options.train.system}: Table 1 is of ugatit: leave it out, or use ugatit compare.")
    if option(arguments, "--seed") is not None:
        raise UserError(f"--seed {options.train.seed}: give --seeds, of which each row is trained with all.")
    if options.train.data is None:
        raise UserError("No pictures were named: give DATA, a folder with trainA and trainB inside.")
    out = (options.train.out or Path("runs") / f"{printable(title(absolute(options.train.data)))}-table1").resolve()
    metrics = ablate(replace(options, train=replace(options.train, data=absolute(options.train.data), out=out)))
    say(f"Protocol:\n{protocol_text(metrics)}\nWritten to {out}")
