"""Small files that once broke something, each through the door where it did; found by mutating real files."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from conftest import one_thread, run_ugatit, tiny_model
from ugatit.data.reading import examine, read_pages, read_picture, read_samples
from ugatit.io.files import read_torch
from ugatit.systems.base import Samples
from ugatit.translation.animation import translate_animation
from ugatit.translation.folder import save_model
from ugatit.translation.frames import opened
from ugatit.translation.translator import Translator
from ugatit.translation.video import translate_video

CORPUS = Path(__file__).with_name("corpus")
ANIMATIONS = {  # what is said of each; None where it is translated
    "frames-duration-apng.webp": "cannot be written as WEBP",
    "frames-duration.gif": "cannot be written as GIF",
    "frames-gif-still-long.gif": "cannot be written as GIF",
    "frames-loop-over-65535.gif": "cannot be written as GIF",
    "frames-pages-of-two-sizes.webp": "cannot be written as WEBP",
}
VIDEOS = {
    "video-cannot-be-converted.mov": None,
    "video-1x1.gif": "is 1 x 1 pixels, the least is 16 x 16",
    "video-1x400.gif": "is 1 x 400 pixels, the least is 16 x 16",
    "video-large.gif": "is too large (11000 x 11000 pixels)",
    "video-latin1-title.avi": None,
    "video-no-decoder.avi": "is coded in a way that FFmpeg does not read",
    "video-too-long.gif": "is 16400 x 16 pixels, more than 100 times as long as wide",
}
PICTURES = {  # what is said where grey is needed, and where five bands are; None where it is read
    "pages-later-are-large.tif": (None, "cannot be read (it is packed as CCITTFAX4, save it with LZW or Deflate)"),
    "pages-second-is-long.tif": (None, "cannot be read (it is packed as CCITTFAX4, save it with LZW or Deflate)"),
    "picture-icc-is-number.tif": (None, "has 1 band, where 5 are needed"),
    "tiff-cycle-itself.tif": (None, "has 1 band, where 5 are needed"),
    "tiff-jp2-inside.tif": ("cannot be read (it is packed as APERIO_JP2000_RGB, save it with LZW or Deflate)",) * 2,
    "tiff-long-float.tif": ("is 16 x 16000000 pixels, more than 100 times as long as wide",) * 2,
    "tiff-message-not-printable.tif": ("cannot be read (it is packed as PNG, save it with LZW or Deflate)",) * 2,
    "tiff-shape-of-tags.tif": ("cannot be read (its tags are damaged)",) * 2,
    "tiff-subifds.tif": (None, "has 1 band, where 5 are needed"),
    "tiff-tiles-1.tif": ("cannot be read (it is cut short, or its tags are damaged)",) * 2,
}
PAGES = {
    "pages-later-are-large.tif": "holds 676 million pixels in all its pictures, the most is 537",
    "pages-second-is-long.tif": "is 60000 x 1 pixels, the least is 16 x 16",
}


@pytest.fixture
def translator():
    return Translator(tiny_model(), "cpu")


def test_every_file_has_its_test():
    kinds = {"frames": ANIMATIONS, "video": VIDEOS, "picture": PICTURES}
    others = {"checkpoint-advice.pt", "pages-memory-4000x60.gif", "picture-two-line-message.heic"}
    assert {file.name for file in CORPUS.iterdir()} == others.union(*kinds.values())


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations_whose_times_or_sizes_cannot_be_written(name, translator, tmp_path):
    with pytest.raises(ValueError, match=ANIMATIONS[name]):
        translate_animation(translator, CORPUS / name, tmp_path / name, "a2b", "model", 4)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(name, translator, tmp_path):
    def translate():
        return list(translate_video(translator, CORPUS / name, tmp_path / "out.mkv", "a2b", "model", 4, {}))

    if VIDEOS[name] is None:
        assert translate() and (tmp_path / "out.mkv").exists()
        return
    with pytest.raises(ValueError) as refusal:
        translate()
    assert str(refusal.value) == VIDEOS[name]


def test_a_video_that_cannot_be_read_does_not_end_the_others(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    for name in ("video-no-decoder.avi", "video-latin1-title.avi"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes((CORPUS / name).read_bytes())
    done = run_ugatit("translate", tmp_path / "model", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "video-no-decoder.avi is coded in a way that FFmpeg does not read" in done.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["video-latin1-title.mkv"]
    with opened(CORPUS / "video-latin1-title.avi") as container:
        assert "Caf" in str(container.metadata)


def test_many_large_pages_take_no_more_memory_than_their_limit(tmp_path):
    program = (
        "import sys; from pathlib import Path; from ugatit.data.reading import read_pages;"
        "from ugatit.systems.base import COLOUR\n"
        "try: read_pages(Path(sys.argv[1]), COLOUR)\n"
        "except ValueError as error: print(error)"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))

    done = subprocess.run([sys.executable, "-c", program, CORPUS / "pages-memory-4000x60.gif"], capture_output=True,
                          text=True, env=one_thread(), preexec_fn=limit)  # fmt: skip
    assert done.stdout.startswith("holds 960 million pixels in all its pictures, the most is 537"), done.stderr


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, channels):
    """Each within a second, and without the memory that its tags ask for."""
    pytest.importorskip("tifffile", reason="tifffile is not installed: it reads TIFF of many bands")
    began, expected = time.monotonic(), PICTURES[name][channels == 5]
    if expected is None:
        assert min(read_picture(CORPUS / name, channels).size) >= 16
    else:
        with pytest.raises(ValueError) as refusal:
            read_samples(CORPUS / name, Samples(channels, (0, 1)))
        assert str(refusal.value) == expected
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", PAGES)
def test_later_pages_of_a_stack_are_held_to_the_limits_too(name):
    with pytest.raises(ValueError) as refusal:
        read_pages(CORPUS / name, Samples(1))
    assert str(refusal.value) == PAGES[name]


def test_a_pickle_that_is_no_checkpoint_gets_no_advice_to_trust_it():
    with pytest.raises(ValueError) as refusal:
        read_torch(CORPUS / "checkpoint-advice.pt")
    assert str(refusal.value) == "is no file of PyTorch"


def test_sentences_have_one_line():
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: it reads HEIC")
    with pytest.raises(ValueError) as refusal:
        examine(CORPUS / "picture-two-line-message.heic")
    assert "\n" not in str(refusal.value)


def test_large_pictures_of_sixteen_bits_take_no_more_than_a_few_copies(tmp_path):
    """Of 25 million pixels, 100 MB as floats."""
    Image.new("I;16", (5000, 5000), 300).save(tmp_path / "x.png")
    program = (
        "import resource, sys; from pathlib import Path; from ugatit.data.reading import read_samples;"
        "from ugatit.systems.base import Samples\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read_samples(Path(sys.argv[1]), Samples(1))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "x.png"], capture_output=True, text=True,
                          env=one_thread(), check=True)  # fmt: skip
    assert float(done.stdout) < 450, "MiB"
