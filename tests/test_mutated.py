"""Real files, mutated, through every door: a result, or the exception that is documented; nothing else.

Always the same few hundred cases. What long campaigns found is in `test_corpus.py`, their numbers in docs/files.md.
"""

import io
import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import tiny_model
from ugatit.apps.desk import Desk, ServeConfig
from ugatit.apps.guard import RefusalError
from ugatit.data.reading import UPLOADS, read_pages, read_picture, read_samples
from ugatit.io.errors import UserError
from ugatit.systems.base import Samples
from ugatit.translation.checkpoints import import_checkpoint
from ugatit.translation.folder import load_model, save_model
from ugatit.translation.translator import Translator
from ugatit.translation.video import translate_video

HEADS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF\0\0\0\0WEBP",
    b"\x93NUMPY\1\0",
)
NUMBERS = (0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1)
few = settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def mutations(draw, names):
    """A name, and what to do to the bytes of that file: places are shares of its length."""
    places = st.one_of(st.floats(0, 0.05), st.floats(0, 1, exclude_max=True))
    kinds = st.sampled_from(["flip", "cut", "number", "double", "head", "remove"])
    numbers = st.tuples(st.sampled_from("<>"), st.sampled_from("HI"), st.sampled_from(NUMBERS))
    steps = st.lists(
        st.tuples(kinds, places, st.integers(0, 255), numbers, st.sampled_from(HEADS)), min_size=1, max_size=4
    )
    return draw(st.sampled_from(names)), draw(steps)


def mutated(original: bytes, steps) -> bytes:
    """A file with some of its bytes changed, cut, doubled or put after another file's beginning."""
    data = bytearray(original)
    for kind, share, byte, (order, size, number), head in steps:
        place = int(share * len(data))
        if kind == "flip" and data:
            data[place] = byte
        elif kind == "cut":
            del data[place:]
        elif kind == "number":
            packed = struct.pack(order + size, number % 2 ** (16 if size == "H" else 32))
            data[place : place + len(packed)] = packed
        elif kind == "double":
            data[place:place] = data[place : place + 4 * byte]
        elif kind == "head":
            data[: len(head)] = head
        elif kind == "remove":
            del data[place : place + byte]
    return bytes(data)


@cache
def pictures() -> dict[str, bytes]:
    """Small files of many kinds."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).resize((40, 48))
    found, several = {}, {"save_all": True, "append_images": [colour] * 2}
    exif, packed = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, {"compression": "tiff_lzw"}
    for kind, options in (("PNG", {}), ("JPEG", exif), ("WEBP", {}), ("BMP", {}), ("TIFF", packed), ("GIF", several),
                          ("AVIF", {})):  # fmt: skip
        buffer = io.BytesIO()
        colour.save(buffer, kind, **options)
        found[kind] = buffer.getvalue()
    for name, values, options in (
        (
            "five",
            rng.integers(0, 2**16, (20, 24, 5), np.uint16),
            {"photometric": "minisblack", "planarconfig": "contig"},
        ),
        ("float", rng.random((20, 24, 3), np.float32), {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}),
        ("stack", rng.integers(0, 255, (3, 20, 24), np.uint8), {"photometric": "minisblack"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, **options)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, rng.random((20, 24)))
    return found | {"numpy": buffer.getvalue()}


@few
@given(mutations(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "five", "float", "stack", "numpy"]))
def test_pictures(case):
    name, steps = case
    data = mutated(pictures()[name], steps)
    for channels in (1, 3, 5):
        try:
            read = read_samples(io.BytesIO(data), Samples(channels, (0, 1))).pixels
            assert min(read.size if isinstance(read, Image.Image) else read.shape[1:]) >= 16
        except ValueError as error:
            assert str(error) and str(error).isprintable()
    try:
        assert read_picture(io.BytesIO(data), 3, UPLOADS).mode == "RGB"
    except ValueError as error:
        assert str(error).isprintable()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").write_bytes(data)
        try:
            assert read_pages(Path(folder) / "x", Samples(3, (0, 1))).pictures
        except ValueError as error:
            assert str(error).isprintable()


@cache
def desk() -> Desk:
    return Desk({"one": Translator(tiny_model(), "cpu")}, ServeConfig(["one"]))


@few
@given(mutations(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"]))
def test_uploads(case):
    name, steps = case
    try:
        (made,) = desk().translate(mutated(pictures()[name], steps), ["one"], "a2b")
        assert made.picture.mode == "RGB"
    except RefusalError as refusal:
        assert refusal.status in (413, 415, 422) and refusal.sentence.isprintable()


@cache
def model() -> dict[str, bytes]:
    """The files of a model folder, and a checkpoint of the CycleGAN toolkit in both of torch's formats."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(tiny_model(), Path(folder), step=0)
        found = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    state = {"model.1.weight": torch.ones(2, 3, 7, 7), "model.1.bias": torch.ones(2),
             "model.10.conv_block.1.weight": torch.ones(8, 8, 3, 3)}  # fmt: skip
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
        found[f"zipped {zipped}"] = buffer.getvalue()
    return found


@few
@given(mutations(["config.json", "translator.safetensors", "training.safetensors"]))
def test_model_folders(case):
    name, steps = case
    with tempfile.TemporaryDirectory() as folder:
        for file, data in model().items():
            (Path(folder) / file).write_bytes(mutated(data, steps) if file == name else data)
        try:
            assert load_model(Path(folder), with_training=True).directions
        except UserError as error:
            assert str(error).startswith(("The model", "The weights", folder)), error


@few
@given(mutations(["zipped True", "zipped False"]))
def test_checkpoints(case):
    name, steps = case
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "latest_net_G.pth").write_bytes(mutated(model()[name], steps))
        with pytest.raises(UserError):  # it lacks layers, whatever else is wrong with it
            import_checkpoint([Path(folder) / "latest_net_G.pth"], 64)


@cache
def film() -> bytes:
    av = pytest.importorskip("av", reason="PyAV is not installed: it reads videos")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for number in range(4):
                values = np.full((32, 48, 3), 60 * number, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(values)))
            output.mux(stream.encode())
        return path.read_bytes()


@settings(few, max_examples=100)
@given(mutations(["film"]))
def test_videos(case):
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "film.mp4", Path(folder) / "made.mp4"
        source.write_bytes(mutated(film(), case[1]))
        translator = desk().translators["one"]
        try:
            list(translate_video(translator, source, target, "a2b", "model", 4, {}))
            assert target.exists()
        except (ValueError, UserError) as error:
            assert str(error) and not target.exists()


def test_the_files_are_fine_before_they_are_mutated():
    for name, data in pictures().items():
        channels = 5 if name == "five" else 3
        assert read_samples(io.BytesIO(data), Samples(channels, (0, 1)))
    assert json.loads(model()["config.json"])["system"] == "ugatit"
