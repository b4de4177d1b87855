"""Choose the demo's pictures from the shared emoji set: python tools/make_emoji.py ../shared/data/emoji

Gestures, and roles told by clothes rather than by things around the head: busts in both styles. Split by base emoji:
every seventh base, with all its skin tones, is held out.
"""

import csv
import shutil
import sys
from pathlib import Path

ROLES = ["cook", "construction", "crown", "detective", "doctor", "factory", "farmer", "firefighter", "gua_pi_mao"]
ROLES += ["guard", "headscarf", "health", "judge", "mechanic", "police", "prince", "princess", "sleuth", "tuxedo"]
ROLES += ["turban", "veil"]
STYLES = {"A": "noto", "B": "twemoji"}
TARGET = Path(__file__).parents[1] / "src" / "ugatit" / "emoji"


def chosen(row: dict[str, str]) -> bool:
    if row["subcategory"] == "person-role":
        return any(role in row["name"] for role in ROLES)
    return row["subcategory"] == "person-gesture"


def main(source: Path) -> None:
    with (source / "index.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if chosen(row)]
    held_out = set(sorted({row["base"] for row in rows})[3::7])
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
