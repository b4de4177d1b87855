"""Reading pictures of every kind, finding the domains, sampling."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from conftest import TINY, run_here, tiny_model, write_picture
from ugatit.data.finding import (
    check_pictures,
    common_range,
    differences,
    find_files,
    find_pictures,
    find_tests,
    held_out,
    look_at,
    spread,
)
from ugatit.data.kept import Kept, folder_for
from ugatit.data.memory import Memory
from ugatit.data.reading import read_picture, read_samples
from ugatit.data.samples import UNSCALED, UnscaledError, to_tensor
from ugatit.data.sampling import Slices, Unpaired, collate, loader, read_tests, shuffled, train_transform
from ugatit.data.seeds import seed_of
from ugatit.io.errors import UserError
from ugatit.io.sheet import to_picture
from ugatit.systems.base import COLOUR, Samples
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator

BOTH = {"a": COLOUR, "b": COLOUR}


@pytest.mark.parametrize("bands", [1, 3])
def test_tensors_and_pictures_are_torchvision_s(bands, tmp_path):
    """To the bit, and as they lie in memory, which decides how convolutions round."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(bands, 2)
    picture = Image.fromarray(values if bands == 3 else values[:, :, 0])
    floats = v2.functional.to_dtype(v2.functional.to_image(picture), torch.float32, scale=True)
    theirs, ours = v2.functional.normalize(floats, [0.5], [0.5]), to_tensor(picture)
    assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()
    assert torch.equal(to_tensor(floats), theirs) and torch.equal(
        to_tensor(v2.functional.pil_to_tensor(picture)), theirs
    )
    picture.save(tmp_path / "1.png")
    assert torch.equal(read_tests([tmp_path / "1.png"], 16, Samples(bands))[0], theirs), "test pictures too"
    assert to_picture(ours) == picture == v2.functional.to_pil_image(v2.functional.pil_to_tensor(picture))


def grey_levels(path, channels=3) -> set:
    return set(np.unique(np.asarray(read_picture(path, channels))).tolist())


def test_transparency_is_laid_on_white(tmp_path):
    for mode, clear in (("RGBA", (9, 9, 9, 0)), ("LA", (9, 0))):
        Image.new(mode, (20, 20), clear).save(tmp_path / "x.png")
        assert grey_levels(tmp_path / "x.png") == {255}
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png").getpixel((0, 0)) == (200, 0, 0)
    palette.save(tmp_path / "t.png", transparency=1)
    assert grey_levels(tmp_path / "t.png") == {255}


def save_samples(path, values, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, kind)).save(path)
    return path


def test_samples_are_scaled_by_their_type_or_a_range_and_never_by_the_picture(tmp_path):
    for level in (100, 200):  # whatever else the picture holds
        for name in ("x.png", "x.tif", "x.pgm"):
            save_samples(tmp_path / name, np.full((20, 20), 257 * level), np.uint16)
            assert grey_levels(tmp_path / name) == {level}
    ramp = np.linspace(-20, 260, 400).reshape(20, 20)
    for kind in (np.float32, np.int32):
        file = save_samples(tmp_path / "r.tif", ramp, kind)
        with pytest.raises(UnscaledError, match="samples, which do not tell what is black and what is white"):
            read_picture(file)
        for low, high in ((-20, 260), (0, 100), (-1000, 3000)):
            expected = ((ramp.astype(kind).astype(np.float64) - low) * (255 / (high - low))).clip(0, 255)
            assert np.abs(np.asarray(read_picture(file, 1, range=(low, high))) - expected).max() <= 0.5 + 1e-9
    holes = ramp.copy()
    holes[0, :3] = np.nan, np.inf, -np.inf
    made = np.asarray(read_picture(save_samples(tmp_path / "n.tif", holes, np.float32), 1, range=(-20, 260)))
    assert made[0, :3].tolist() == [0, 255, 0] and made[-1, -1] == 255
    eight = save_samples(tmp_path / "e.png", np.arange(256).reshape(16, 16), np.uint8)
    assert np.asarray(read_picture(eight, 1, range=(0, 51)))[0, :4].tolist() == [0, 5, 10, 15]
    colour = Image.merge("RGB", [Image.new("L", (20, 20), level) for level in (10, 20, 30)])
    colour.save(tmp_path / "c.png")
    assert read_picture(tmp_path / "c.png", range=(10, 30)).getpixel((0, 0)) == (0, 128, 255)


@pytest.fixture
def scans(tmp_path):
    """Float pictures of one scale in domain A, 16-bit ones whose highest sample is 1400 in B."""
    ramp = np.linspace(0, 1, 1024).reshape(32, 32)
    for i in range(4):
        values = ramp * (200 + 20 * i) - 10
        values[1, 1] = np.nan if i == 2 else 0
        save_samples(tmp_path / "scans" / "trainA" / f"{i}.tif", values, np.float32)
        save_samples(tmp_path / "scans" / "trainB" / f"{i}.png", ramp * 1400, np.uint16)
    return tmp_path / "scans"


def test_a_folder_has_one_range_which_the_run_and_the_model_keep(scans, tmp_path):
    looks = look_at(find_files(scans)).good.values()
    assert common_range(looks) == (-10, 250) and common_range(looks, every=True) == (-10, 1400)
    done = run_here("train", scans, *TINY, "--steps", "1", "-o", tmp_path / "run")
    assert done.returncode == 0
    assert "The samples of domain A go from -10 to 250, its --range from now on." in done.stderr
    assert "Nearly black as read: 4 pictures of domain B, with samples far below 65535" in done.stderr
    for place in ("config.json", "model/config.json"):
        record = json.loads((tmp_path / "run" / place).read_text())
        model = record.get("model") or record["config"]
        assert (model["range"], model["range_b"]) == ([-10, 250], "type")
    (scans / "trainA" / "3.tif").unlink()  # the range stays
    done = run_here("train", "--resume", tmp_path / "run", "--steps", "2")
    assert done.returncode == 0 and "samples of domain A" not in done.stderr
    translator = Translator.load(tmp_path / "run" / "model", "cpu")
    x = translator.read(scans / "trainA" / "0.tif", "a2b")
    assert x.max().item() == pytest.approx(2 * 200 / 260 - 1, abs=1e-6)
    assert torch.equal(translator.to_tensor(Image.open(scans / "trainA" / "0.tif"), "a2b"), x), "one reading"
    done = run_here("train", scans, *TINY, "--steps", "1", "-o", tmp_path / "two", "--range", "-100", "400",
                      "--range-b", "auto")  # fmt: skip
    model = json.loads((tmp_path / "two" / "config.json").read_text())["model"]
    assert (model["range"], model["range_b"]) == ([-100, 400], [0, 1400]) and "Nearly black" not in done.stderr
    for given, sentence in ((("5", "3"), "--range = (5.0, 3.0): 5 is not below 3"), (("0", "nan"), "--range = nan")):
        done = run_here("train", scans, *TINY, "-o", tmp_path / "three", "--range", *given)
        assert done.returncode == 2 and sentence in done.stderr


def test_what_needs_a_range_is_said_where_there_is_none(scans, tmp_path):
    good, skipped = check_pictures(find_files(scans))
    assert good == find_files(scans / "trainB") and [file for file, _ in skipped] == find_files(scans / "trainA")
    assert {reason for _, reason in skipped} == {UNSCALED}
    assert check_pictures(find_files(scans), Samples(3, (0, 1)))[1] == []
    save_model(tiny_model(), tmp_path / "model", step=0)
    done = run_here("inspect", tmp_path / "model", scans / "trainA", "-o", tmp_path / "looked")
    assert done.returncode == 2 and f"0.tif {UNSCALED}" in done.stderr
    shutil.copytree(scans / "trainA", scans / "testA")
    shutil.copytree(scans / "trainB", scans / "testB")
    done = run_here("evaluate", tmp_path / "model", scans, "--features", "efficientnet-lite0", "-o", tmp_path / "out")
    assert done.returncode == 2 and f"{UNSCALED}, and this model has no range for them" in done.stderr
    done = run_here("evaluate", "--real", scans / "testB", "--fake", scans / "testA", "-o", tmp_path / "out",
                      "--features", "efficientnet-lite0")  # fmt: skip
    assert (
        done.returncode == 2
        and "testA has floats or 32 bits: tell which" in done.stderr
        and f"0.tif {UNSCALED}" in done.stderr
    )


def test_translation_reads_all_inputs_with_one_range(scans, tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    translator = Translator.load(tmp_path / "model", "cpu")
    with pytest.raises(UserError, match=r"float or 32-bit samples, .* set the translator's `range`"):
        translator(Image.open(scans / "trainA" / "0.tif"))

    def results(part, *options) -> tuple[list[np.ndarray], str]:
        done = run_here("translate", tmp_path / "model", scans / part, "-o", tmp_path / "out", *options)
        assert done.returncode == 0, done.stderr
        return [np.asarray(Image.open(f)) for f in find_files(tmp_path / "out") if f.name[0] in "013"], done.stderr

    for part, options, limits, said in (
        ("trainA", [], (-10, 250), "The samples of floats and 32 bits go from -10 to 250"),
        ("trainA", ["--range", "0", "100"], (0, 100), ""),
        ("trainB", [], None, "Nearly black as read: 4 pictures, "),
        ("trainB", ["--range", "auto"], (0, 1400), "The samples of all inputs go from 0 to 1400"),
    ):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        made, told = results(part, *options)
        assert said in told and ("Nearly black" in told) == (limits is None)
        translator.range = limits
        files = [file for file in find_files(scans / part) if file.name[0] in "013"]
        for one, file in zip(made, files, strict=True):
            apart = np.abs(one.astype(int) - np.asarray(translator(Image.open(file))))
            assert apart.max() <= 1, "a batch rounds otherwise than a picture alone"


def test_other_modes(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    red, green, blue = read_picture(tmp_path / "c.jpg").getpixel((5, 5))
    assert red > 200 and green < 60 and blue < 60
    Image.new("1", (20, 20), 1).save(tmp_path / "b.png")
    assert grey_levels(tmp_path / "b.png") == {255}
    Image.new("L", (20, 20), 77).save(tmp_path / "l.png")
    assert read_picture(tmp_path / "l.png").mode == "RGB" and grey_levels(tmp_path / "l.png") == {77}
    assert read_picture(tmp_path / "c.jpg", channels=1).mode == "L"


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert read_picture(tmp_path / "x.jpg").size == (20, 40)


def test_every_kind_of_unusable_file_is_named_with_its_reason(tmp_path, monkeypatch):
    good = write_picture(tmp_path / "deep" / "er" / "good.png", 1)
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:500])
    write_picture(tmp_path / "tiny.png", 2, size=8)
    Image.new("1", (400, 400)).save(tmp_path / "bomb.png")
    (tmp_path / ".hidden").write_text("left out")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    files, skipped = check_pictures(find_files(tmp_path))
    assert files == [good]
    reasons = {file.name: reason for file, reason in skipped}
    assert reasons.keys() == {"empty.png", "notes.txt", "cut.png", "tiny.png", "bomb.png"}
    assert "empty" in reasons["empty.png"]
    assert "not a picture" in reasons["notes.txt"]
    assert "cannot be read" in reasons["cut.png"]
    assert "8 x 8" in reasons["tiny.png"]
    assert "too large" in reasons["bomb.png"]


def test_test_folders_are_used_or_a_share_is_held_out(data):
    found = find_pictures(data, None, None, 0.5, 0)
    assert (len(found.train_a), len(found.train_b), len(found.test_a), len(found.test_b)) == (6, 5, 2, 2)
    apart = find_pictures(None, data / "trainA", data / "trainB", 0.3, 0)
    assert (len(apart.train_a), len(apart.test_a)) == (4, 2)
    assert set(apart.train_a) | set(apart.test_a) == set(found.train_a)
    assert not set(apart.train_a) & set(apart.test_a)
    assert apart == find_pictures(None, data / "trainA", data / "trainB", 0.3, 0)


def test_a_picture_is_held_out_by_its_own_name():
    names = [f"{i}.png" for i in range(4000)]
    chosen = held_out(names, 0.1, 0)
    assert 340 < len(chosen) < 460
    assert held_out(names[::2], 0.1, 0) == chosen & set(names[::2]), "others do not matter"
    assert len(held_out(names, 0.1, 1) & chosen) < 80, "the seed does"
    assert held_out(names, 0, 0) == held_out(["one.png"], 0.9, 0) == set()
    for share in (0.001, 0.999):
        assert [len(held_out(names[:4], share, seed)) for seed in range(9)] == [1 if share < 0.5 else 3] * 9


@pytest.mark.parametrize("seed", range(4))
def test_no_test_picture_of_a_run_is_ever_trained_on(seed, data, tmp_path):
    """Pictures come and go, and the folder is moved."""
    before = find_pictures(None, data / "trainA", data / "trainB", 0.3, seed)
    moved = shutil.copytree(data / "trainA", tmp_path / "elsewhere")
    for file in before.train_a[::2]:
        (moved / file.name).unlink()
    for i in range(6, 30):
        write_picture(moved / f"{i}.png", i)
    after = find_pictures(None, moved, data / "trainB", 0.3, seed, before.inventory())
    trained, tested = ({file.name for file in part} for part in (after.train_a, after.test_a))
    assert {file.name for file in before.test_a} <= tested
    assert not {file.name for file in before.train_a} & tested
    assert len(trained) > 8 and len(tested) > 2


def test_what_changed_in_the_data_is_told_by_name(data):
    before = find_pictures(data, None, None, 0, 0).inventory()
    (data / "trainA" / "1.png").unlink()
    write_picture(data / "trainA" / "sub" / "new.png", 99)
    write_picture(data / "trainB" / "0.png", 98)
    os.utime(data / "trainB" / "1.png")
    now = find_pictures(data, None, None, 0, 0).inventory()
    assert differences(before, now) == {
        "added to trainA": ["sub/new.png"],
        "removed from trainA": ["1.png"],
        "altered in trainB": ["0.png"],
    }
    assert differences(now, now) == {}


def test_missing_and_empty_domains_are_errors(data, tmp_path):
    with pytest.raises(UserError, match="trainA"):
        find_pictures(tmp_path, None, None, 0.1, 0)
    with pytest.raises(UserError, match="`data`"):
        find_pictures(None, None, None, 0.1, 0)
    with pytest.raises(UserError, match="`source` and `target` replace `data`"):
        find_pictures(data, data / "trainA", None, 0.1, 0)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no usable picture"):
        find_pictures(None, data / "trainA", tmp_path / "none", 0.1, 0)


def dataset(data, seed=0) -> Unpaired:
    return Unpaired(find_files(data / "trainA"), find_files(data / "trainB"), train_transform(32, 0.5), BOTH, seed, 35)


def test_samples_depend_on_seed_and_number_only(data):
    first = dataset(data)[7]
    torch.rand(3)
    again = dataset(data)[7]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], dataset(data, seed=1)[7][0])
    assert first[0].shape == (3, 32, 32) and first[0].min() >= -1 and first[0].max() <= 1


def test_reading_a_sample_leaves_the_global_generator_alone(data):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    dataset(data)[0]
    assert torch.equal(torch.rand(2), expected)


def test_an_epoch_has_every_picture_once():
    assert sorted(shuffled(9, 0, "a", 0)) == list(range(9))
    assert shuffled(9, 0, "a", 0) != shuffled(9, 0, "a", 1)
    assert shuffled(9, 0, "a", 0) != shuffled(9, 0, "b", 0)


def test_processes_share_a_step_s_samples_and_workers_change_nothing(data):
    whole = list(Slices(12, 2, 4))
    parts = [list(Slices(12, 2, 2, rank, 2)) for rank in (0, 1)]
    assert whole == [a + b for a, b in zip(*parts, strict=True)]
    alone, helped = (list(loader(dataset(data), Slices(4, 4, 2), workers, False)) for workers in (0, 2))
    for (a, b), (c, d) in zip(alone, helped, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_a_picture_that_vanishes_is_reported_by_name(data):
    samples = dataset(data)
    for file in (data / "trainA").iterdir():
        file.write_bytes(b"")
    problem = collate([samples[0]])
    assert problem.path.parent == data / "trainA" and "empty" in problem.reason


def test_spread_is_even():
    assert spread(list(range(10)), 3) == [0, 3, 6]
    assert spread([1, 2], 5) == [1, 2]


def pixels_of(files, folder, room, workers=0, samples=BOTH):
    """Eight batches of the pictures, each taken twice at least."""
    kept = Kept(folder, room) if room else None
    dataset = Unpaired(files, files, train_transform(32, 0.5), samples, 0, 35, kept)
    return [torch.cat(pair) for pair in loader(dataset, Slices(0, 8, 1), workers, pin=False)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_kept_changes_no_sample_has_a_limit_and_is_shared(workers, tmp_path, monkeypatch):
    for i in range(4):
        Image.new("RGB", (40, 40 + i), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
    files, folder = find_files(tmp_path), tmp_path / "kept"
    plain = pixels_of(files, folder, 0)
    assert not folder.exists()
    assert all(map(torch.equal, plain, pixels_of(files, folder, 12_000, workers)))
    sizes = [file.stat().st_size for file in folder.iterdir()]
    assert len(sizes) == 3 and sum(sizes) < 12_000 + 3 * 128  # each has a short head
    assert all(map(torch.equal, plain, pixels_of(files, folder, 10**6, workers)))
    assert len(list(folder.iterdir())) == 4
    opened = []
    monkeypatch.setattr("ugatit.data.sampling.read_samples", lambda file, *_, **__: opened.append(file))
    assert all(map(torch.equal, plain, pixels_of(files, folder, 10**6))), "another start finds them"
    assert not opened


def test_what_is_kept_is_of_the_file_as_it_is_and_as_it_is_read(tmp_path):
    file = write_picture(tmp_path / "1.png", 1)
    kept = Kept(tmp_path / "kept", 10**6)
    kept.put(file, "how", Image.new("L", (3, 2), 7))
    assert kept.get(file, "how").getpixel((2, 1)) == 7 and kept.get(file, "otherwise") is None
    kept.put(file, "deep", torch.rand(4, 3, 2))
    assert kept.get(file, "deep").shape == (4, 3, 2)
    next((tmp_path / "kept").glob("*.npy")).write_bytes(b"half")
    assert (kept.get(file, "how") is None) != (kept.get(file, "deep") is None)
    write_picture(file, 2)
    assert kept.get(file, "how") is None and kept.get(file, "deep") is None
    file.unlink()
    assert kept.get(file, "how") is None


def test_a_full_disk_keeps_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    file = write_picture(tmp_path / "1.png", 1)
    kept = Kept(tmp_path / "kept", 10**6)
    kept.put(file, "how", Image.new("L", (3, 2)))
    assert kept.get(file, "how") is None and not list((tmp_path / "kept").iterdir())
    assert kept.room.value == 10**6, "the room is there again when the disk is not full any more"


def test_pictures_that_were_kept_otherwise_make_room(tmp_path):
    first = folder_for(tmp_path / "cache", (35, "samples"))
    first.mkdir(parents=True)
    (first / "a.npy").write_bytes(bytes(90))
    assert folder_for(tmp_path / "cache", (35, "samples")) == first and (first / "a.npy").exists()
    other = folder_for(tmp_path / "cache", (42, "samples"))
    assert other != first and not first.exists() and Kept(other, 100).room.value == 100


def test_processes_share_the_room_that_is_left(tmp_path):
    (tmp_path / "earlier.npy").write_bytes(bytes(40))
    assert Kept(tmp_path, 100, processes=4).room.value == 15


def test_processes_of_one_number_on_two_machines_keep_their_own(tmp_path, monkeypatch):
    """Containers have equal numbers, and one folder."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    files = [write_picture(tmp_path / f"{number}.png", number) for number in range(2)]
    mine, other = (Kept(tmp_path / "kept", 10**6) for _ in range(2))
    save = np.save

    def slow(opened, values):
        monkeypatch.setattr(np, "save", save)
        other.put(files[1], "how", Image.new("L", (3, 2), 200))
        save(opened, values)

    monkeypatch.setattr(np, "save", slow)
    mine.put(files[0], "how", Image.new("L", (3, 2), 10))
    assert [mine.get(file, "how").getpixel((0, 0)) for file in files] == [10, 200]


def test_pictures_are_resized_once_and_seen_as_the_paper_has_it(data):
    """Flipped, resized, cropped: in that order, to the bit."""
    files = find_files(data / "trainA")
    made = Unpaired(files, files, train_transform(32, 0.5), BOTH, 0, 35, Kept(data / "kept", 10**6))
    paper = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.Resize(35), v2.RandomCrop(32), to_tensor])
    for n in (*range(6), *range(6)):
        torch.manual_seed(seed_of(0, "augment a", n))
        file = files[shuffled(len(files), 0, "a", n // len(files))[n % len(files)]]
        assert torch.equal(made[n][0], paper(Image.open(file)))
    kept = [made.kept.get(file, (35, COLOUR)) for file in files]
    assert len(kept) == 6 and all(min(picture.size) == 35 for picture in kept)


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_photographs_are_decoded_to_what_is_needed(orientation, tmp_path):
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[274] = orientation
    rough = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((2000, 1500), Image.Resampling.BICUBIC)
    rough.save(tmp_path / "large.jpg", quality=95, exif=exif)
    sizes = {least: read_samples(tmp_path / "large.jpg", COLOUR, least=least).pixels.size for least in (None, 800, 70)}
    expected = {None: (2000, 1500), 800: (2000, 1500), 70: (250, 188)}
    assert sizes == {k: v if orientation == 1 else v[::-1] for k, v in expected.items()}
    made = Unpaired([tmp_path / "large.jpg"] * 2, [tmp_path / "large.jpg"], train_transform(32, 0), BOTH, 0, 32)
    whole = v2.Resize(32)(read_samples(tmp_path / "large.jpg", COLOUR).pixels)
    found = made.picture(tmp_path / "large.jpg", "a")
    assert (
        found.size == whole.size and np.abs(np.asarray(found, int) - np.asarray(whole, int)).mean() < 3
    )  # of noise, 8 bits


def test_evaluation_uses_what_the_run_never_trained_on(data, tmp_path):
    """The record where there is one, version 0.1.0's rule where there is none but a checkpoint."""
    for name in ("testA", "testB"):
        shutil.rmtree(data / name)
    run = tmp_path / "run"
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    before = find_pictures(data, None, None, 0.3, 1, old=True)
    assert find_tests(data, 0.3, 1, run)[0] == {"A": before.test_a, "B": before.test_b}
    (run / "pictures.json").write_text(json.dumps(before.inventory()))
    write_picture(data / "trainA" / "new.png", 77)
    tests = find_tests(data, 0.3, 1, run)[0]
    assert set(before.test_a) <= set(tests["A"]) and not set(before.train_a) & set(tests["A"])
    for damaged in ("[]", '{"trainA": null}', "{"):
        (run / "pictures.json").write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            find_tests(data, 0.3, 1, run)


def test_names_that_come_often_leave_something_to_train_on():
    assert held_out(["face.png"] * 10, 0.1, 0) == set()
    assert len(held_out(["face.png", "other.png"] * 10, 0.9, 0)) == 1


def test_a_run_without_training_pictures_is_refused(data):
    known = {"testA": {f.name: "" for f in find_files(data / "trainA")}}
    pictures = find_pictures(None, data / "trainA", data / "trainB", 0.1, 0, known)
    with pytest.raises(UserError, match="trainA were held out for testing before"):
        pictures.need_training()


def test_two_domains_are_two_folders(data):
    a, b = data / "trainA", data / "trainB"
    with pytest.raises(UserError, match=r"`source` and `target` are both .*trainA: give a folder for each domain"):
        find_pictures(None, a, data / "trainB" / ".." / "trainA", 0.1, 0)
    with pytest.raises(UserError, match=r"`target` .*trainB lies in .*, so its pictures would count for both: move it"):
        find_pictures(None, data, b, 0.1, 0)


def test_files_of_several_pictures_are_said(tmp_path, capsys):
    write_picture(tmp_path / "one.png", 1)
    pages = [Image.new("RGB", (20, 20), (n, 0, 0)) for n in (1, 200)]
    pages[0].save(tmp_path / "two.gif", save_all=True, append_images=pages[1:])
    write_picture(tmp_path / "other" / "one.png", 1)
    (tmp_path / "some").mkdir()
    for name in ("one.png", "two.gif"):
        (tmp_path / name).rename(tmp_path / "some" / name)
    for _ in range(2):  # what is remembered too
        assert len(find_pictures(None, tmp_path / "some", tmp_path / "other", 0, 0).train_a) == 2
        assert "1 file with several pictures, of which the first counts:" in " ".join(capsys.readouterr().err.split())


def test_an_interrupt_ends_the_looking_at_once_and_loses_nothing(tmp_path, monkeypatch):
    for number in range(200):
        write_picture(tmp_path / "many" / f"{number:03d}.png", number)
    looked, look = [], Memory.look_at

    def stopped(self, file):
        looked.append(file)
        return look(self, file)

    def interrupt(items, what, total):
        for number, item in enumerate(items):
            if number == 20:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(Memory, "look_at", stopped)
    monkeypatch.setattr("ugatit.data.finding.tracked", interrupt)
    with pytest.raises(KeyboardInterrupt):
        look_at(find_files(tmp_path / "many"), 3, tmp_path / "many")
    assert 20 <= len(looked) < 150
