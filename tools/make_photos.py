"""Cut the demo's photographs, src/ugatit/photos, out of those that scikit-image and Matplotlib bring:
python tools/make_photos.py
"""

from pathlib import Path

import matplotlib
import skimage
from PIL import Image

from ugatit.data.faces import cut_out
from ugatit.data.reading import read_picture
from ugatit.data.samples import to_tensor
from ugatit.io.sheet import save_picture, to_picture
from ugatit.translation.faces import face_finder
from ugatit.translation.translator import Translator

SKIMAGE = Path(skimage.__file__).parent / "data"
SAMPLES = Path(matplotlib.get_data_path()) / "sample_data"
PEOPLE = SKIMAGE / "astronaut.png", SAMPLES / "grace_hopper.jpg"
CAT = SKIMAGE / "chelsea.png"
TARGET = Path(__file__).parents[1] / "src" / "ugatit" / "photos"
SIDE = 192  # pixels


def main() -> None:
    finder = face_finder(Translator.load("face2anime", "cpu"), "a2b")
    for path in PEOPLE:
        x = to_tensor(read_picture(path))
        (cut,) = finder.cuts(x)
        small = to_picture(cut_out(x, cut)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        save_picture(small, TARGET / "face2anime" / f"{path.stem}.jpg")
    cat = read_picture(CAT)
    left = (cat.width - cat.height) // 2 - 10
    square = cat.crop((left, 0, left + cat.height, cat.height))
    save_picture(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS), TARGET / "cat2dog" / "chelsea.jpg")


if __name__ == "__main__":
    main()
