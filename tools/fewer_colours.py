"""Make PNG files less than half as large, by 64 colours each: python tools/fewer_colours.py FOLDER"""

import sys
from pathlib import Path

from PIL import Image

if __name__ == "__main__":
    for file in sorted(Path(sys.argv[1]).rglob("*.png")):
        with Image.open(file) as picture:
            fewer = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
        fewer.save(file, optimize=True)
