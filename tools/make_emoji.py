"""Choose the demo's pictures from the shared emoji set: python tools/make_emoji.py ../shared/data/emoji

All heads and gestures (subcategories person and person-gesture), both styles, split by base emoji: every sixth base,
with all its skin tones, is held out.
"""

import csv
import shutil
import sys
from pathlib import Path

SUBCATEGORIES = ("person", "person-gesture")
STYLES = {"A": "noto", "B": "twemoji"}
TARGET = Path(__file__).parents[1] / "src" / "ugatit" / "emoji"


def main(source: Path) -> None:
    with (source / "index.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["subcategory"] in SUBCATEGORIES]
    held_out = set(sorted({row["base"] for row in rows})[3::6])
    for row in rows:
        split = "test" if row["base"] in held_out else "train"
        for domain, style in STYLES.items():
            folder = TARGET / f"{split}{domain}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / style / f"{row['codepoints']}.png", folder / f"{row['codepoints']}.png")
    with (TARGET / "index.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
