"""What is said where something cannot be done: each sentence names the thing, the reason and the way out."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import tiny_model, write_picture
from ugatit import cli
from ugatit.io.errors import UserError
from ugatit.translation.animation import translate_animation
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator
from ugatit.translation.video import translate_video


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with all that commands are given, where they run."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), tmp_path / "model", step=0)
    save_model(tiny_model("munit"), tmp_path / "munit", step=0)
    write_picture(tmp_path / "in" / "a.png", 0)
    write_picture(tmp_path / "data" / "trainA" / "a.png", 0)
    Image.fromarray(np.full((32, 32), 3.0, np.float32)).save(tmp_path / "flat.tif")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "-dash.png").touch()
    for folder in ("flats", "mixed/trainA", "mixed/trainB"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.eye(32, dtype=np.float32)).save(tmp_path / folder / "f.tif")
    write_picture(tmp_path / "mixed" / "trainA" / "a.png", 0)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"recipe": {}, "model": {}}))
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "a2b.onnx").touch()
    return tmp_path


SENTENCES = {
    "compare data --systems": "--systems has no value: give one or more, or leave it out.",
    "compare data --seeds": "--seeds has no value: give one or more, or leave it out.",
    "ablate data --rows": "--rows has no value: give one or more, or leave it out.",
    "compare data --systems foo": "--systems foo is not known: choose of ugatit, cyclegan, unit, munit, drit, "
    "aggan, cartoongan.",
    "compare nowhere": "The folder {tmp}/nowhere does not exist: check the path.",
    "compare file": "{tmp}/file is a file, and no zip or tar file, or a damaged one (",
    "ablate data": "The folder {tmp}/data has no folder trainB: put the pictures of domain B there.",
    "train data -o data/trainA/run": "lies in {tmp}/data/trainA, where its sheets would count as pictures: give",
    "train --source in --target data/trainB -o in/run": "in/run lies in {tmp}/in, where its sheets would count as pict",
    "evaluate --real in --fake data/trainA -o in/x --features efficientnet-lite0": "in/x lies in in, where the sheet "
    "would count as a picture: give another -o.",
    "evaluate --real flats --fake in -o out --features efficientnet-lite0": "flats has floats or 32 bits: tell which "
    "samples are black and white with --range.",
    "evaluate model in": "The folder in has neither testA and testB nor trainA and trainB: give one that has.",
    "inspect model empty": "None of the pictures can be used: see the reasons above, or give others.",
    "study report in": "in is a folder: give the file that ugatit study wrote.",
    "train nowhere": "The folder {tmp}/nowhere does not exist: check the path.",
    "train file": "{tmp}/file is a file, and no zip or tar file, or a damaged one (",
    "translate model empty -o out": "There are no files in empty: check the path.",
    "translate empty in -o out": "empty is not a model folder, it has no config.json: give the folder RUN/model of a "
    "run.",
    "train mixed": "has floats or 32 bits, which do not tell what is black and what is white, and "
    "{tmp}/mixed/trainA/a.png of the same domain has not: give --range LOW HIGH for all, or convert one kind to "
    "the other.",
    "import empty.pt -o out": "The checkpoint empty.pt is empty: give a *_params_*.pt",
    "translate model in -o out --foo": "error: Unrecognized options: --foo: see ugatit translate --help.",
    "translate model '' -o out": "error: An argument is empty: give a value, or leave it out",
    "translate model in -o ''": "error: -o is empty: give a value",
    "train data --source=": "error: --source is empty: give a value",
    "translate model -dash.png -o out": "-dash.png would be an option: write ./-dash.png, or put --",
    "translate model in -o out --device gpu": "--device gpu cannot be used, as this machine has cpu",
    "import -o out": "No checkpoint was named: give a *_params_*.pt file",
    "translate model in": "error: Missing: -o PATH, --out PATH: see ugatit translate --help.",
    "translate model in -o out --range 1": "error: --range cannot be read, give --range {{FLOAT FLOAT}}|{{auto}}: see "
    "ugatit translate --help.",
    "train data --stepz 2": "error: Unrecognized options: --stepz, 2, perhaps you meant --steps INT: see ugatit train "
    "--help.",
    "ablate data --seeds a": "error: --seeds cannot be read, give --seeds [INT [INT ...]]: see ugatit ablate --help.",
    "serve model --port": "error: Missing value for argument '--port'. Expected 1 values: see ugatit serve --help.",
    "evaluate model nowhere": "The folder nowhere does not exist: check the path.",
    "evaluate model": "MODEL needs DATA, the test pictures: give MODEL and DATA, or --real DIR and --fake DIR.",
    "evaluate --real in": "--real and --fake need each other: give MODEL and DATA, or --real DIR and --fake DIR.",
    "evaluate model data --real in": "A model and folders were named: give MODEL and DATA, or --real DIR and --fake "
    "DIR alone.",
    "evaluate": "Nothing to evaluate was named: give MODEL and DATA, or --real DIR and --fake DIR.",
    "evaluate --real file --fake in --features efficientnet-lite0": "--real file is a file, where a folder is needed: "
    "give that.",
    "inspect model flat.tif": "None of the pictures can be used: see the reasons above, or give others.",
    "inspect model in --size 33": "--size = 33: Input should be a multiple of 4: choose another value.",
    "demo --steps 0": "--steps = 0: Input should be greater than or equal to 1: choose another value.",
    "import in/a.png -o out --size 30": "--size = 30: Input should be a multiple of 4: choose another value.",
    "translate run in -o out": "The run run has not saved a model yet: wait for its first checkpoint, or resume it.",
    "serve exported": "exported is what ugatit export wrote: give the model that it was made of; ugatit translate "
    "runs it as it is with --backend onnx, and Python as OnnxTranslator(folder).",
    "translate exported in -o out --backend onnx --precision bf16": "--precision is for --backend torch: leave one of "
    "them out.",
    "translate exported in -o out --backend onnx --device gpu": "exported is not a model folder",
    "translate nowhere in -o out --backend onnx": "The folder nowhere does not exist: check the path.",
    "translate model flat.tif -o out": "All samples of the inputs are 3, which makes no range: give --range LOW HIGH.",
    "study in/. data/trainA --source in --db file/x.sqlite": "file/x.sqlite cannot be written (a file is "
    "where a folder should be): give another --db.",
    "study in data/../in --source in": "Two folders are called in, and a method's name is its folder's: rename one.",
    "study file": "The folder file is a file, where a folder is needed: give that.",
    "study report file": "The file of answers file cannot be used (file is not a database): give another.",
    "ablate data --cam none": "--cam is what the rows differ in: leave it out.",
    "ablate data --decoder-norm in": "--decoder-norm is what the rows differ in: leave it out.",
    "ablate data --seed 0": "--seed 0: give --seeds, of which each row is trained with all.",
    "compare mixed --size 32": "unit cannot be compared: --size = 32: Input should be greater than or equal to 64",
    "prepare --a in --b in -o out --align": "--align is for faces: give --faces-a or --faces-b too, or leave it out.",
    "prepare --a in --b in -o out --margin 0.5": "--margin 0.5 is for faces: give --faces-a or --faces-b too, or leave",
    "export model -o out --space --also coreml": "--also is for files, of which a Space has none: leave one of",
    "export model -o out --runtime file": "--runtime is what a page carries: give --page too, or leave it out.",
    "study report file --csv ./file": "--csv file is the file of the answers: give another.",
    "translate munit in -o out --style in/a.png --samples 3": "--style in/a.png gives one translation, --samples 3",
    "inspect munit in --faces": "This model has no attention, of which --faces measures where it is: leave",
    "train --resume ''": "error: --resume is empty: give a value",
    "train data --preset quick --preset typo": "--preset typo is not known: ugatit has paper,",
    "train data --system munit --vgg file": "--vgg is used with --vgg-weight alone: give that too, or leave it out",
    "import model/translator.safetensors -o out --no-smoothing": "--no-smoothing is for checkpoints of TensorFlow",
    "serve model --examples empty": "--examples: empty has no picture: give others.",
    "evaluate --real in --fake data/trainA --holdout 0.5": "--holdout 0.5: folders are measured whole: leave it out.",
    "prepare --a file --b in -o out": "--a file is a file, where a folder is needed: give that.",
    "prepare --repeat file -o out": "--repeat file cannot be used",
}


@pytest.mark.parametrize("words", SENTENCES)
def test_commands(words, place, capsys):
    assert cli.main(shlex.split(words)) == 2
    said = capsys.readouterr().err
    print(words, "->", said)
    assert SENTENCES[words].format(tmp=place) in " ".join(said.split()), said


def refusal(call, *arguments, **options):
    with pytest.raises(UserError) as raised:
        call(*arguments, **options)
    return str(raised.value)


def test_translators(place):
    translator, picture = Translator.load("model", "cpu"), Image.open(place / "in" / "a.png")
    for wrong in ((1, 1), "auto", (0, float("nan"))):
        assert "give two numbers, of which the second is larger, or None" in refusal(
            setattr, translator, "range", wrong
        )
    translator.range = (0, 2)
    assert translator.read_as("a2b").range == (0, 2)
    assert refusal(translator, picture, "") == "This model does not translate `direction=`: use a2b or b2a."
    assert refusal(translator.set_style, "a.png").startswith("`style` is a str: give a picture")
    assert refusal(Translator.load, "").startswith("No model was named")
    assert refusal(translator.save, place / "file").endswith("where a folder shall be written: give another name.")
    before = (place / "run" / "config.json").read_text()
    assert "is the folder of a run, which would be damaged" in refusal(translator.save, place / "run")
    assert (place / "run" / "config.json").read_text() == before


def test_translated_files_of_another_kind(place):
    translator = Translator.load("model", "cpu")
    options = {"direction": "a2b", "size": "model", "batch": 1}
    source = place / "in" / "a.png"
    assert "give it the same suffix" in refusal(translate_animation, translator, source, Path("x.odd"), **options)
    film = translate_video(translator, source, Path("x.odd"), settings={}, **options)
    assert refusal(next, film) == "`target=x.odd`: videos are written as .m4v, .mkv, .mov, .mp4, give one of these."


def test_memory_too_short_for_one_film_does_not_end_the_others(place, monkeypatch, capsys):
    def short(*_):
        raise MemoryError
        yield

    monkeypatch.setattr("ugatit.commands.translate.translate_video", short)
    monkeypatch.setattr("ugatit.commands.translate.not_kept", lambda *_: [])
    (place / "in" / "film.mp4").touch()
    assert cli.main(["translate", "model", "in", "-o", "out", "--device", "cpu"]) == 0
    assert "film.mp4 needs more memory than there is: --size tiles" in " ".join(capsys.readouterr().err.split())
    assert (place / "out" / "a.png").exists()


def test_one_float_picture_leaves_the_scale_of_the_others_alone(place, capsys):
    (place / "in" / "f.tif").write_bytes((place / "flats" / "f.tif").read_bytes())
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(place / "in" / "deep.png")
    assert cli.main(["translate", "model", "in", "-o", "mixed-out", "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "The samples of floats and 32 bits go from 0 to 1" in said and "Nearly black" not in said
    assert cli.main(["translate", "model", "in/a.png", "in/deep.png", "-o", "alone", "--device", "cpu"]) == 0
    for name in ("a.png", "deep.png"):
        assert (place / "mixed-out" / name).read_bytes() == (place / "alone" / name).read_bytes()


def test_a_picture_named_twice_is_written_once(place, capsys):
    assert cli.main(["translate", "model", "in/a.png", "in", "in/a.png", "empty", "-o", "out", "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "1 picture written" in said and "empty holds no files" in said


def test_lines_of_skipped_files_are_single(place, capsys):
    (place / "in" / "bro\nken.png").write_bytes(b"no picture")
    assert cli.main(["translate", "model", "in", "-o", "out", "--device", "cpu"]) == 0
    assert "bro_ken.png is not a picture" in capsys.readouterr().err
