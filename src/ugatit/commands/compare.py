"""Train several systems on one data folder and compare them: the paper's Table 3 and Figure 4."""

from dataclasses import replace
from pathlib import Path

from tyro.conf import OmitArgPrefixes

from ugatit.commands.parsing import parse
from ugatit.data.places import absolute, title
from ugatit.evaluation.evaluate import protocol_text
from ugatit.experiments.compare import CompareConfig, compare
from ugatit.io.files import printable
from ugatit.io.terminal import say


def main(arguments: list[str]) -> None:
    options = parse(OmitArgPrefixes[CompareConfig], "ugatit compare", arguments)
    data = absolute(options.data)
    out = (options.out or Path("runs") / f"{printable(title(data))}-table3").resolve()
    metrics = compare(replace(options, data=data, out=out))
    say(f"Protocol:\n{protocol_text(metrics)}\nWritten to {out}")
