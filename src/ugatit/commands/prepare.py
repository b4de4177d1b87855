"""Make a data set of raw pictures: faces cut out, bad ones dropped, small ones upscaled, split."""

from ugatit.apps.prepare import PrepareConfig, prepare, report_table
from ugatit.commands.parsing import parse
from ugatit.io.files import writing
from ugatit.io.terminal import console, say


def main(arguments: list[str]) -> None:
    config = parse(PrepareConfig, "ugatit prepare", arguments)
    with writing(config.out):
        entries = prepare(config)
    console.print(report_table(entries))
    say(f"Written to {config.out}; kept.png and dropped.png show it, manifest.json says why")
