"""Choose the demo's pictures from the shared emoji set: python tools/make_emoji.py ../shared/data/emoji

The faces: among them one change of style applies to all, and to those held out too. (Where people are, each emoji has
clothes and hair of its own in each style, which nothing in the source tells.) Split by base emoji: every fifth is
held out.
"""

import csv
import shutil
import sys
from pathlib import Path

STYLES = {"A": "noto", "B": "twemoji"}
TARGET = Path(__file__).parents[1] / "src" / "ugatit" / "emoji"


def chosen(row: dict[str, str]) -> bool:
    return row["subcategory"].startswith("face") and row["subcategory"] != "face-costume"


def main(source: Path) -> None:
    with (source / "index.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if chosen(row)]
    held_out = set(sorted({row["base"] for row in rows})[3::5])
    for part in ("trainA", "trainB", "testA", "testB"):
        shutil.rmtree(TARGET / part, ignore_errors=True)
        (TARGET / part).mkdir(parents=True)
    for row in rows:
        split = "test" if row["base"] in held_out else "train"
        for domain, style in STYLES.items():
            name = f"{row['codepoints']}.png"
            shutil.copyfile(source / style / name, TARGET / f"{split}{domain}" / name)
    with (TARGET / "index.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
