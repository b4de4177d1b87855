"""Ask people which of several translations is the best; study report DB prints what they said."""

from ugatit.apps import guard, study
from ugatit.commands.parsing import parse
from ugatit.io.errors import UserError
from ugatit.io.files import real, writing
from ugatit.io.terminal import console


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["report"]:
        report = parse(study.ReportConfig, "ugatit study report", arguments[1:])
        if report.csv and real(report.csv) == real(report.db):
            raise UserError(f"--csv {report.csv} is the file of the answers: give another.")
        rows = study.shares(study.Answers(report.db))
        console.print(study.report_table(rows), study.paper_table())
        if report.csv:
            with writing(report.csv, "give another --csv"):
                study.write_csv(rows, report.csv)
        return
    config = parse(study.StudyConfig, "ugatit study", arguments)
    guard.run(study.application(config), study.rules(config), config.port)
