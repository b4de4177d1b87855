"""Data sets in zip and tar files, on the hub, and the paper's: what is taken of them, and what is refused."""

import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import write_picture
from hub import hub
from test_hub import point_to
from test_train import tiny
from ugatit.cli import main
from ugatit.data import archives, places, tables
from ugatit.data.finding import find_files, find_pictures, find_tests
from ugatit.data.places import Place, opened, split_names, title
from ugatit.io.errors import UserError
from ugatit.training.config import read_run
from ugatit.training.trainer import train


def picture(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr(places, "user_cache_path", lambda _: tmp_path / "cache")
    return tmp_path / "cache"


def zipped(path: Path, names: list[str], **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, picture(number))
        for name, data in more.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(names):
            data = picture(number)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def files_in(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


USUAL = ["x/trainA/1.png", "x/trainA/deep/2.PNG", "x/trainB/1.png", "x/trainB/2.png", "x/testA/3.png", "x/testB/3.png"]
OTHER = ["x/readme.txt", "__MACOSX/x/trainA/._1.png", "x/trainA/.hidden.png", "x/trainA/run.py"]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_pictures_of_an_archive_are_unpacked_once_and_nothing_else_is(make, tmp_path, capsys):
    path = make(tmp_path / "my cats.tar.gz", USUAL + OTHER)
    folder = opened(path)
    assert files_in(folder) == {name.removeprefix("x/") for name in USUAL}
    assert (folder / "trainA" / "1.png").read_bytes() == picture(0)
    assert folder.name == title(path) == "my cats"
    assert "unpacking 6 pictures" in capsys.readouterr().err
    assert opened(path) == folder and capsys.readouterr().err == ""
    make(path, USUAL[:4])  # it has changed
    assert files_in(opened(path)) == {name.removeprefix("x/") for name in USUAL[:4]}


@pytest.mark.parametrize(
    "names",
    [
        ["cats/1.png", "dogs/1.png"],
        ["train/cats/1.png", "train/dogs/1.png", "test/cats/9.png", "test/dogs/9.png"],
        ["cats/train/1.png", "dogs/train/1.png", "cats/val/9.png", "dogs/val/9.png"],
        ["data/train_cats/1.png", "data/train_dogs/1.png"],
    ],
)
def test_names_tell_which_folders_are_meant(names, tmp_path):
    path = zipped(tmp_path / "pets.zip", [*names, "birds/1.png"])
    with pytest.raises(UserError, match=r"no folders trainA and trainB but .*: tell which .*#cats,dogs"):
        opened(path)
    tests = {"testA/9.png", "testB/9.png"} if len(names) == 4 else set()
    assert files_in(opened(Path(f"{path}#cats,dogs"))) == {"trainA/1.png", "trainB/1.png"} | tests
    swapped = opened(Path(f"{path}#dogs,cats"))
    assert (swapped / "trainA" / "1.png").read_bytes() == picture(1)


@pytest.mark.parametrize("after", ["cats", "cats,", "cats,cats", "a,b,c"])
def test_two_names_are_needed(after):
    with pytest.raises(UserError, match="two names are needed"):
        split_names(Path(f"x.zip#{after}"))


def test_a_folder_with_a_hash_in_its_name_is_a_folder(tmp_path):
    (tmp_path / "set#1,2").mkdir()
    assert split_names(tmp_path / "set#1,2") == (tmp_path / "set#1,2", None)
    with pytest.raises(UserError, match=r"for what is no folder: give `source=.*set#1,2/a` and `target="):
        opened(tmp_path / "set#1,2#a,b")


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["x/trainA/../../../evil.png", "/trainA/../../evil.png", "..\\trainA\\evil.png"])
def test_nothing_is_written_outside(make, name, tmp_path, cache):
    path = make(tmp_path / "a.zip", ["x/trainA/1.png", "x/trainB/1.png", name])
    folder = opened(path)
    assert not [f for f in tmp_path.rglob("evil*") if not f.is_relative_to(folder)]


def test_links_and_devices_of_a_tar_file_are_left_out(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("trainA/1.png", "trainB/1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture(1))
            archive.addfile(member, io.BytesIO(picture(1)))
        for name, kind in (("trainA/link.png", tarfile.SYMTYPE), ("trainA/pipe.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert files_in(opened(path)) == {"trainA/1.png", "trainB/1.png"}


def test_more_than_the_disk_has_room_for_is_refused(tmp_path, monkeypatch, cache):
    path = zipped(tmp_path / "a.zip", USUAL)
    monkeypatch.setattr(archives, "SPARE", 2**60)
    with pytest.raises(UserError, match=r"a.zip has 0\.0 GiB of pictures, and the disk of .* room for 0\.0"):
        opened(path)
    assert not files_in(cache)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_damaged_archive_is_said_in_a_sentence_and_leaves_nothing(make, tmp_path, cache):
    cut(path := make(tmp_path / "a.zip", USUAL))
    with pytest.raises(UserError, match="no zip or tar file, or a damaged one"):
        opened(path)
    assert not files_in(cache)


def test_a_picture_that_is_not_as_its_sum_says_is_damage(tmp_path):
    path = zipped(tmp_path / "a.zip", USUAL)
    data = bytearray(path.read_bytes())
    data[data.find(b"IDAT") + 8] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        opened(path)


@pytest.mark.parametrize("kind", ["deflated", "lzma", "gz"])
def test_damage_within_packed_data_is_said(kind, tmp_path, cache):
    path = tmp_path / "a.zip"
    if kind == "gz":
        tarred(path, USUAL)
    else:
        how = {"deflated": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA}[kind]
        with zipfile.ZipFile(path, "w", how) as archive:
            for number, name in enumerate(USUAL):
                archive.writestr(name, picture(number))
    data = bytearray(path.read_bytes())
    for place in range(200, len(data) // 2, 97):
        data[place] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip is .*damaged"):
        opened(path)
    assert not files_in(cache)


@pytest.mark.parametrize(("names", "told"), [(["notes.txt"], "has no pictures"), (["a.png"], "no folders trainA")])
def test_an_archive_without_domains_is_refused(names, told, tmp_path):
    with pytest.raises(UserError, match=told):
        opened(zipped(tmp_path / "a.zip", names))


def test_a_file_that_is_no_archive_is_refused(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(picture(0))
    assert main(["train", str(tmp_path / "a.png"), "-o", str(tmp_path / "run")]) == 2
    assert "is a file, and no zip or tar file, or a damaged one" in capsys.readouterr().err


def test_a_run_trains_on_a_zip_file_and_resumes_without_what_was_unpacked(tmp_path, monkeypatch):
    path = zipped(tmp_path / "pets.zip", USUAL)
    monkeypatch.chdir(tmp_path)
    options = ["--preset", "quick", "--size", "32", "--width", "2", "--blocks", "1", "--workers", "0"]
    assert main(["train", "pets.zip", *options, "--steps", "2"]) == 0
    run = tmp_path / "runs" / "pets-quick"
    assert read_run(run).data == path
    monkeypatch.setattr(places, "user_cache_path", lambda _: tmp_path / "another")
    assert main(["train", "--resume", str(run), "--steps", "3"]) == 0
    assert json.loads((run / "config.json").read_text())["history"][0]["pictures"] == {}
    tests, _, _ = find_tests(path, 0.1, 0)
    assert [file.name for file in tests["A"]] == ["3.png"]


def test_second_names_of_a_picture_in_a_tar_file_are_pictures(tmp_path):
    path = tarred(tmp_path / "a.tar.gz", ["trainA/1.png", "trainB/1.png"])
    with tarfile.open(tmp_path / "b.tar", "w") as archive, tarfile.open(path) as before:
        link = tarfile.TarInfo("./trainA/again.png")
        link.type, link.linkname = tarfile.LNKTYPE, "trainA/1.png"
        first, second = before.getmembers()
        archive.addfile(first, before.extractfile(first))
        archive.addfile(link)
        archive.addfile(second, before.extractfile(second))
    folder = opened(tmp_path / "b.tar")
    assert files_in(folder) == {"trainA/1.png", "trainA/again.png", "trainB/1.png"}
    assert (folder / "trainA" / "again.png").read_bytes() == picture(0)


def test_what_is_left_out_of_an_archive_is_said(tmp_path, capsys):
    names = ["p1/trainA/1.png", "p1/trainB/1.png", "p2/trainA/2.png"]
    assert files_in(opened(zipped(tmp_path / "two.zip", names))) == {"trainA/1.png", "trainB/1.png"}
    told = "left out: 1 picture of two.zip, in p2/trainA; trainA is p1/trainA, trainB is p1/trainB"
    assert told in capsys.readouterr().err


def test_names_that_disks_cannot_hold_or_tell_apart_lose_no_picture(tmp_path):
    long = "猫" * 100 + ".png"
    names = ["trainA/x:1.png", "trainA/x_1.png", "trainA/X_1.png", f"trainA/{long}", "trainB/1.jfif", "trainB/2.avif"]
    folder = opened(zipped(tmp_path / "names.zip", names))
    assert {file.read_bytes() for file in folder.rglob("*.*")} == {picture(number) for number in range(6)}
    assert len({str(file).casefold() for file in folder.rglob("*.*")}) == 6


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_a_picture_that_was_packed_twice_the_last_counts(tmp_path):
    path = zipped(tmp_path / "twice.zip", ["trainA/1.png", "trainB/1.png"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("trainA/1.png", picture(7) + bytes(1000))
    assert (opened(path) / "trainA" / "1.png").read_bytes() == picture(7) + bytes(1000)


# The hub


@pytest.fixture
def online(tmp_path, monkeypatch):
    with hub() as held:
        point_to(held.address, tmp_path / "home", monkeypatch)
        yield held


def table(rows: dict[str, list], labels: dict[str, list[str]] | None = None) -> bytes:
    """A Parquet file as the hub's data sets are: bytes become pictures."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    arrays = {
        name: pa.array([{"bytes": v, "path": None} for v in values], kind) if isinstance(values[0], bytes) else values
        for name, values in rows.items()
    }
    made = pa.table(arrays)
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (labels or {}).items()}
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(made, buffer)
    return buffer.getvalue()


def test_folders_of_a_data_set_of_the_hub(online):
    files = {"trainA/1.png": picture(1), "trainB/2.jpg": picture(2), "testA/3.png": picture(3), "README.md": b"#"}
    online.repos["datasets/me/pets"] = {"main": files}
    folder = opened(Path("hub:me/pets"))
    assert files_in(folder) == {"trainA/1.png", "trainB/2.jpg", "testA/3.png"} and folder.name == "pets"
    assert "README.md" not in online.asked
    online.asked.clear()
    assert opened(Path("hub:me/pets")) == folder and online.asked == []


def test_two_columns_of_pictures_are_a_and_b(online):
    rows = {"imageA": [picture(1), picture(2)], "imageB": [picture(3), picture(4)]}
    files = {"data/train-00000-of-00001-ab12.parquet": table(rows), "data/test-00000-of-00001.parquet": table(rows)}
    online.repos["datasets/me/selfies"] = {"main": files}
    pictures = find_pictures(Path("hub:me/selfies"), None, None, 0.1, 0)
    counts = [len(part) for part in (pictures.train_a, pictures.train_b, pictures.test_a, pictures.test_b)]
    assert counts == [2, 2, 2, 2]
    assert pictures.train_b[0].read_bytes() == picture(3)


def test_splits_that_are_called_like_folders_are_these(online):
    parts = {part: table({"image": [picture(n)]}) for n, part in enumerate(("trainA", "trainB", "testA", "testB"))}
    online.repos["datasets/me/four"] = {"main": {f"data/{part}-00000-of-00001.parquet": d for part, d in parts.items()}}
    folder = opened(Path("hub:me/four"))
    found = {file.relative_to(folder).parts[0]: file.read_bytes() for file in folder.rglob("*.png")}
    assert found == {part: picture(n) for n, part in enumerate(parts)}


def test_several_configurations_are_not_mixed(online):
    one = table({"imageA": [picture(1)], "imageB": [picture(2)]})
    online.repos["datasets/me/two"] = {"main": {"x/train-0.parquet": one, "y/train-0.parquet": one}}
    with pytest.raises(UserError, match=r"several configurations \(x, y\)"):
        opened(Path("hub:me/two"))
    converted = {f"default/{split}/0000.parquet": one for split in ("train", "validation", "test")}
    online.repos["datasets/me/converted"] = {"main": converted}
    folder = opened(Path("hub:me/converted"))
    assert [len(list((folder / part).iterdir())) for part in ("trainA", "trainB", "testA", "testB")] == [1, 1, 2, 2]


def test_pictures_that_a_table_names_and_does_not_hold_are_said(online, capsys):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = pa.array([{"bytes": picture(1), "path": None}, {"bytes": None, "path": "far.png"}], kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"imageA": cells, "imageB": cells}), buffer)
    online.repos["datasets/me/far"] = {"main": {"data/train-0.parquet": buffer.getvalue()}}
    assert len(files_in(opened(Path("hub:me/far")))) == 2
    assert "left out: 2 pictures of hub:me/far" in capsys.readouterr().err


def test_splits_or_labels_are_a_and_b(online):
    splits = {
        "data/cats-0.parquet": table({"image": [picture(1)]}),
        "data/dogs-0.parquet": table({"image": [picture(2)]}),
    }
    online.repos["datasets/me/splits"] = {"main": splits}
    with pytest.raises(UserError, match=r"does not tell .* splits cats, dogs\): name two, as in hub:me/splits#x,y"):
        opened(Path("hub:me/splits"))
    folder = opened(Path("hub:me/splits#dogs,cats"))
    assert [file.read_bytes() for file in (folder / "trainA").iterdir()] == [picture(2)]
    labelled = table(
        {"image": [picture(n) for n in range(5)], "kind": [0, 1, 2, 1, 0]}, {"kind": ["cat", "dog", "cow"]}
    )
    online.repos["datasets/me/labels"] = {"main": {"data/train-0.parquet": labelled}}
    with pytest.raises(UserError, match="labels cat, dog, cow"):
        opened(Path("hub:me/labels"))
    folder = opened(Path("hub:me/labels#cat,dog"))
    assert sorted(file.read_bytes() for file in (folder / "trainB").iterdir()) == sorted([picture(1), picture(3)])


def test_a_data_set_that_is_not_there_or_damaged_is_said(online, capsys):
    assert main(["train", "hub:me/nothing", "-o", "run"]) == 2
    assert "cannot be had from the hub (there is no such data set, or it is private)" in capsys.readouterr().err
    online.repos["datasets/me/broken"] = {"main": {"data/train-0.parquet": b"PAR1 and nothing"}}
    with pytest.raises(UserError, match="hub:me/broken is damaged"):
        opened(Path("hub:me/broken"))
    online.repos["datasets/me/words"] = {"main": {"data/train-0.parquet": table({"text": ["a"]})}}
    with pytest.raises(UserError, match="no column of pictures"):
        opened(Path("hub:me/words"))


def test_the_run_of_a_data_set_of_the_hub_keeps_its_name(online, tmp_path):
    files = {f"train{side}/{n}.png": picture(n) for side in "AB" for n in range(2)}
    online.repos["datasets/me/small"] = {"main": files}
    config = tiny(Path("hub:me/small"), tmp_path / "run", steps=1)
    train(config)
    assert read_run(tmp_path / "run") == config
    assert "1 steps on small" in (tmp_path / "run" / "model" / "README.md").read_text()
    train(replace(config, recipe=replace(config.recipe, steps=2)), resume=True)


def test_a_table_that_unpacks_to_more_than_it_says_is_refused(online, monkeypatch):
    """Equal values stand in a file once."""
    monkeypatch.setattr(tables, "SMALL", 0)
    bomb = table({"a": [bytes(10**6)] * 300, "b": [b""] * 300})
    online.repos["datasets/me/bomb"] = {"main": {"data/train-0.parquet": bomb}}
    with pytest.raises(UserError, match="unpacks to far more than its size"):
        opened(Path("hub:me/bomb#a,b"))


# The paper's


def test_the_paper_s_data_sets_are_those_of_its_table():
    from ugatit.experiments.compare import TABLE_3

    assert places.PAPER_SETS.keys() == TABLE_3.keys()


def test_a_data_set_of_the_paper_is_downloaded_once(online, tmp_path, monkeypatch):
    archive = zipped(tmp_path / "a.zip", ["v/trainA/1.png", "v/trainB/1.png"]).read_bytes()
    online.repos["models/me/files"] = {"main": {"vangogh2photo.zip": archive}}
    address = f"{online.address}/me/files/resolve/main/vangogh2photo.zip"
    monkeypatch.setitem(places.PAPER_SETS, "photo2vangogh", Place(address, ("B", "A")))
    folder = opened(Path("paper:photo2vangogh"))
    assert (folder / "trainA" / "1.png").read_bytes() == picture(1)  # the archive's B
    assert folder.name == "photo2vangogh" and online.asked == ["vangogh2photo.zip"]
    assert opened(Path("paper:photo2vangogh")) == folder and len(online.asked) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [("selfie2anime", "cannot be read by a program"), ("monet", "choose of selfie2anime, horse2zebra")],
)
def test_what_cannot_be_downloaded_is_said(name, told):
    with pytest.raises(UserError, match=told):
        opened(Path(f"paper:{name}"))
    places.PAPER_SETS["x"] = Place("http://127.0.0.1:9/x.zip")
    try:
        with pytest.raises(UserError, match=r"cannot be downloaded from http://127\.0\.0\.1:9/x\.zip"):
            opened(Path("paper:x"))
    finally:
        del places.PAPER_SETS["x"]


def test_what_network_disks_put_beside_pictures_is_none(tmp_path):
    for part in ("trainA", "trainB"):
        for name in ("1.png", "@eaDir/1.png/SYNOPHOTO_THUMB_M.png", "#recycle/2.png", ".hidden/3.png"):
            write_picture(tmp_path / "set" / part / name, 1)
    assert [file.name for file in find_files(tmp_path / "set")] == ["1.png", "1.png"]
    names = [file.relative_to(tmp_path / "set").as_posix() for file in (tmp_path / "set").rglob("*.png")]
    place = opened(zipped(tmp_path / "set.zip", names))
    assert len(find_files(place)) == 2


def test_a_zip_file_loses_no_picture_that_its_folder_has(tmp_path, capsys):
    """What is read in a folder is unpacked, and so is what is said to be skipped there."""
    names = [
        f"train{side}/{n}.{end}" for side in "AB" for n, end in enumerate(("png", "psd", "qoi", "pcx", "jxl", "cr2"))
    ]
    place = opened(zipped(tmp_path / "set.zip", names))
    assert len(find_files(place)) == len(names)
