"""Files that a stranger may have made: each is refused with a sentence before it costs anything."""

import errno
import json
import os
import resource
import stat
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from conftest import one_thread, run_ugatit, tiny_model, write_picture
from ugatit.cli import main
from ugatit.io import files
from ugatit.io.errors import UserError, package
from ugatit.io.files import atomic_file, atomic_folder, read_json, read_torch
from ugatit.systems import REGISTRY
from ugatit.training.start import take_weights
from ugatit.translation.export import OnnxTranslator
from ugatit.translation.folder import load_model, save_model
from ugatit.translation.released import import_released
from ugatit.translation.translator import Translator

# Writing


def test_all_files_of_a_new_folder_are_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Those further down too: of a data set that was unpacked before a power cut they would be empty for ever."""
    flushed = []
    monkeypatch.setattr(files, "sync", flushed.append)
    with atomic_folder(tmp_path / "set") as temporary:
        (temporary / "trainA" / "more").mkdir(parents=True)
        (temporary / "trainA" / "more" / "1.png").write_bytes(b"1")
    assert {path.name for path in flushed} >= {"trainA", "more", "1.png"}


def test_what_is_installed_and_cannot_be_loaded_is_told_otherwise_than_what_is_not(tmp_path, monkeypatch):
    (tmp_path / "lame.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^lame cannot be loaded \(libGL.so.1: cannot open shared object file\): pip"):
        package("lame", "prepare")
    with pytest.raises(UserError, match=r"^absent_here is not installed: pip install 'ugatit\[prepare\]'\.$"):
        package("absent_here", "prepare")


def test_folders_are_written_where_the_current_one_is_gone(tmp_path, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "cwd", gone)
    with atomic_folder(tmp_path / "new") as temporary:
        (temporary / "x").write_text("whole")
    assert (tmp_path / "new" / "x").read_text() == "whole"


def test_a_disk_that_takes_no_wish_for_a_folder_is_written(tmp_path, monkeypatch):
    real = os.fsync

    def refused(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", refused)
    with atomic_folder(tmp_path / "new") as temporary:
        (temporary / "x").write_text("whole")
    assert (tmp_path / "new" / "x").read_text() == "whole"


def test_a_link_in_wait_is_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".x.txt.partial").symlink_to(victim)
    (tmp_path / "x.txt").symlink_to(victim)
    names = set()
    for word in ("one", "two"):
        with atomic_file(tmp_path / "x.txt") as temporary:
            temporary.write_text(word)
            names.add(temporary.name)
    assert victim.read_text() == "mine" and (tmp_path / "x.txt").read_text() == "two"
    assert len(names) == 2 and max(map(len, names)) < 40, "names that nobody knows before, for any length of path.name"


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path):
    with atomic_file(tmp_path / ("x" * 255)) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / ("x" * 255)).read_text() == "whole"


def test_several_processes_that_write_one_name_never_leave_half_a_file(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from ugatit.io.files import atomic_file
end = time.monotonic() + 1.5
while time.monotonic() < end:
    with atomic_file(Path({str(tmp_path / "x")!r})) as temporary:
        with temporary.open("w") as file:
            for _ in range(200):
                file.write(sys.argv[1] * 1000)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, letter], env=one_thread()) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "x").exists():
            text = (tmp_path / "x").read_text()
            assert len(text) == 200_000 and len(set(text)) == 1
            seen.add(text[0])
    assert [writer.wait() for writer in writers] == [0, 0] and seen == {"a", "b"}
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_new_files_have_the_permissions_of_new_files(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_file(tmp_path / "x") as temporary:
        temporary.write_text("")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_killed_processes_left_goes_when_it_is_old(tmp_path):
    old, young, folder, busy = (tmp_path / f".ugatit-{i:016x}.partial" for i in range(4))
    other = tmp_path / ".download.partial"
    for path in (old, young, other):
        path.write_text("")
    (folder / "inner").mkdir(parents=True)
    busy.mkdir()
    (busy / "new").write_text("")
    for path in (old, other, folder / "inner", folder, busy):
        os.utime(path, (0, time.time() - files.STALE - 9))
    with atomic_file(tmp_path / "x") as temporary:
        temporary.write_text("")
    assert not old.exists() and not folder.exists() and young.exists()
    assert other.exists() and busy.exists(), "another program's, and one that is still filled"


def test_a_folder_is_replaced_as_a_whole_but_never_the_one_one_stands_in(tmp_path, monkeypatch):
    for word in ("one", "two"):
        with atomic_folder(tmp_path / "x") as temporary:
            (temporary / word).write_text(word)
    assert [file.name for file in (tmp_path / "x").iterdir()] == ["two"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "x") as temporary:
        raise RuntimeError
    assert [file.name for file in (tmp_path / "x").iterdir()] == ["two"] and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with atomic_folder(tmp_path / "link") as temporary:
        (temporary / "three").write_text("")
    assert [file.name for file in (tmp_path / "x").iterdir()] == ["three"] and (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (".", "..", "../here"):
        with pytest.raises(UserError, match="the current folder or above it"), atomic_folder(Path(name)):
            pass
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="is a file"), atomic_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "precious"


def test_processes_that_replace_one_folder_take_turns(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from ugatit.io.files import atomic_folder
end = time.monotonic() + 1.5
while time.monotonic() < end:
    with atomic_folder(Path({str(tmp_path / "x")!r})) as temporary:
        for name in "ab":
            (temporary / name).write_text(sys.argv[1])
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, word], env=one_thread()) for word in ("1", "2")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert [(tmp_path / "x" / name).read_text() for name in "ab"] in (["1", "1"], ["2", "2"])
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("command", ["export", "prepare"])
def test_results_into_the_current_folder_are_refused_with_a_sentence(command, tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    write_picture(tmp_path / "in" / "x.png", 1, 80)
    (tmp_path / "here").mkdir()
    given = [tmp_path / "model"] if command == "export" else ["--a", tmp_path / "in", "--b", tmp_path / "in"]
    done = run_ugatit(command, *given, "-o", ".", cwd=tmp_path / "here")
    assert done.returncode == 2 and "current folder" in done.stderr and "Traceback" not in done.stderr


# JSON


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("[" * 100_000, "is not JSON"),
        ('{"a": ' * 100_000, "is not JSON"),
        ('{"a": 1, "a": 2}', "stands there twice"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "Infinity is no number"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("7", "is not a JSON object"),
        (" " * (2**20 + 1), "is longer than"),
        ("\udcff", "is not JSON"),
    ],
)
def test_odd_json_is_a_phrase(text, phrase, tmp_path):
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=phrase):
        read_json(tmp_path / "x.json")


# The model folder


@pytest.fixture
def model(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    return tmp_path / "model"


def settings(**changes):
    def change(folder: Path) -> None:
        found = json.loads((folder / "config.json").read_text())
        found["config"] |= changes
        (folder / "config.json").write_text(json.dumps(found))

    return change


def weights(change):
    def changed(folder: Path) -> None:
        state = load_file(folder / "translator.safetensors")
        change(state)
        save_file(state, folder / "translator.safetensors")

    return changed


def written(text: bytes, name: str = "config.json"):
    return lambda folder: (folder / name).write_bytes(text)


def linked(name: str, target: str):
    def change(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(target)

    return change


def pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (settings(width=10**9), "width = 1000000000"),
        (settings(width=10**400), "width"),
        (settings(blocks=2**31), "blocks"),
        (settings(size=2**40), "size"),
        (settings(width="64" * 500), "width"),
        (settings(width=[]), "width"),
        (settings(unheard=1), "unknown settings: unheard"),
        (written(b"[" * 100_000), "is not JSON"),
        (written(b'{"format": 1, "system": [], "config": {}}'), "config.json"),
        (written(b'{"format": 1, "system": "ugatit", "config": []}'), "config.json"),
        (written(b'{"format": 1, "system": "ugatit"}'), "config.json"),
        (written(b"{}" + b" " * 2**21), "is longer than"),
        (pipe, "is not a regular file"),
        (linked("config.json", "/etc/hostname"), "leads out of the model folder"),
        (linked("config.json", "/dev/zero"), "leads out of the model folder"),
        (linked("translator.safetensors", "../translator.safetensors"), "leads out of the model folder"),
        (linked("translator.safetensors", "translator.safetensors"), "translator.safetensors"),
        (written(struct.pack("<Q", 2**40), "translator.safetensors"), "its header is too long"),
        (written(struct.pack("<Q", 2**22) + b"{", "translator.safetensors"), "is damaged"),
        (written(b"", "translator.safetensors"), "is damaged"),
        (weights(lambda s: s.update(extra=torch.zeros(1))), "extra is [1] and should be None"),
        (weights(lambda s: s.pop(min(s))), "is None and should be"),
        (weights(lambda s: s.update({min(s): s[min(s)][None]})), "and should be"),
        (weights(lambda s: s.update({k: v.long() for k, v in s.items()})), "numbers of the type I64"),
        (weights(lambda s: s.update({k: v.to(torch.float8_e4m3fn) for k, v in s.items()})), "numbers of the type F8"),
        (weights(lambda s: s[min(s)].view(-1)[:1].fill_(NAN)), "holds what is no number"),
        (weights(lambda s: s[max(s)].view(-1)[:1].fill_(float("inf"))), "holds what is no number"),
    ],
)
def test_model_folders_of_strangers_are_refused(change, sentence, model):
    change(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as refused:
        load_model(model)
    assert sentence in str(refused.value) and len(str(refused.value)) < 3000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10 < 300


def test_a_model_that_names_a_file_is_refused(tmp_path):
    system = tiny_model("cartoongan")
    save_model(system, tmp_path / "model", step=0)
    settings(vgg="/etc/passwd")(tmp_path / "model")
    with pytest.raises(UserError, match="names a file"):
        load_model(tmp_path / "model")


def test_links_within_a_model_and_the_hub_s_cache_are_followed(model, tmp_path):
    (model / "translator.safetensors").rename(model / "weights")
    (model / "translator.safetensors").symlink_to("weights")
    load_model(model)
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "1a2b", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "weights"):
        (model / name).rename(blobs / name)
    (snapshot / "config.json").symlink_to("../../blobs/config.json")
    (snapshot / "translator.safetensors").symlink_to("../../blobs/weights")
    load_model(snapshot)
    (snapshot / "config.json").unlink()
    (tmp_path / "cache" / "config.json").write_text("{}")
    (snapshot / "config.json").symlink_to(tmp_path / "cache" / "config.json")
    with pytest.raises(UserError, match="leads out"):
        load_model(snapshot)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_system_s_own_folder_is_read(name, tmp_path):
    system = tiny_model(name)
    save_model(system, tmp_path / "model", step=0)
    loaded = load_model(tmp_path / "model", with_training=True)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in system.learned().items())


@pytest.mark.parametrize("name", ["cyclegan", "aggan"])
def test_a_model_folder_holds_no_translations_of_training_pictures(name, tmp_path):
    """People share it. Folders that were written with the pools are read without them."""
    system, folder = tiny_model(name), tmp_path / "model"
    system.pool_a.images.fill_(0.5)
    save_model(system, folder, step=7)
    file = folder / "training.safetensors"
    assert sorted({key.split(".")[0] for key in load_file(file)}) == ["disc_a", "disc_b"]
    before = {key: value for key, value in system.state_dict().items() if not key.startswith(("gen", "att"))}
    assert "pool_a.images" in before
    save_file(before, file, {"step": "7"})
    loaded, again = load_model(folder, with_training=True), tiny_model(name)
    assert loaded.pool_a.images.is_meta
    assert take_weights(again, loaded) == ([], []), "what begins afresh, and what is not taken"
    assert not again.pool_a.images.any()
    assert all(torch.equal(again.state_dict()[key], value) for key, value in system.learned().items())


def test_attention_without_numbers_is_an_overlay(tmp_path):
    from ugatit.io.sheet import overlay

    made = overlay(torch.zeros(1, 3, 8, 8), torch.full((1, 1, 2, 2), NAN))
    assert made.isfinite().all()


# Checkpoints


def small_states() -> dict:
    return {name: {"x.weight": torch.zeros(2, 2)} for name in ("genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB")}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.zeros(1).expand(2**31), "claims larger tensors"),
        (torch.zeros(1).as_strided((2**16, 2**16), (0, 0)), "claims larger tensors"),
        (torch.zeros(3, 3).to_sparse(), "other tensors than plain ones"),
        (torch.zeros(2, 2, dtype=torch.int64), "is no weight"),
        (torch.zeros(2, 2, dtype=torch.complex64), "is no weight"),
        (7, "is no weight"),
        ("text", "is no weight"),
        ([1, 2], "is no weight"),
        (torch.tensor(NAN), "is no weight"),
        (torch.zeros(4), "other shapes"),
        (torch.tensor(1.0), "other shapes"),
        (torch.zeros(2, 2).to(torch.float8_e4m3fn), "is no weight|cannot be read"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_of_strangers_are_refused(value, sentence, zipped, tmp_path):
    states = small_states()
    states["genA2B"]["DownBlock.1.weight"] = value
    torch.save(states, tmp_path / "x_params_1.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=sentence):
        import_released(tmp_path / "x_params_1.pt")


def test_containers_in_containers_are_no_trap(tmp_path):
    shared: object = torch.zeros(1)
    for _ in range(60):
        shared = (shared, shared)
    circle: list = [torch.zeros(1)]
    circle.append(circle)
    deep: list = []
    for _ in range(300):
        deep = [deep]
    for found in (shared, circle, deep, {7: torch.zeros(1)}):
        torch.save(small_states() | {"more": found}, tmp_path / "x_params_1.pt")
        with pytest.raises(UserError, match="not of the authors' networks"):
            import_released(tmp_path / "x_params_1.pt")
    states = small_states()
    states["genA2B"] |= {7: torch.zeros(1)}
    torch.save(states, tmp_path / "x_params_1.pt")
    with pytest.raises(UserError, match="7 is no weight"):
        import_released(tmp_path / "x_params_1.pt")


def test_packed_bombs_and_pipes_are_no_checkpoints(tmp_path):
    torch.save(small_states() | {"big": torch.zeros(2**24)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for part in plain.namelist():
            packed.writestr(part, plain.read(part), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "packed.pt").stat().st_size < 2**20
    with pytest.raises(ValueError, match="packed to far less"):
        read_torch(tmp_path / "packed.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(UserError, match="is not a regular file"):
        import_released(tmp_path / "pipe.pt")


# ONNX


def graph(folder: Path, nodes: list, tensors: dict[str, np.ndarray], shape=(1, 3, 32, 32)) -> None:
    """A small model's folder whose ONNX files hold such a graph from ``picture`` to ``translation``."""
    save_model(tiny_model(light=False), folder, step=0)
    inputs = [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("translation", TensorProto.FLOAT, shape)]
    parts = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, parts), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    for direction in ("a2b", "b2a"):
        (folder / f"{direction}.onnx").write_bytes(made.SerializeToString())


def huge(folder: Path) -> None:
    node = helper.make_node
    graph(
        folder,
        [node("ConstantOfShape", ["shape"], ["big"]), node("ReduceSum", ["big"], ["sum"], keepdims=0),
         node("Add", ["picture", "sum"], ["translation"])],
        {"shape": np.array([2**40], np.int64)},
    )  # fmt: skip


def one_pixel(folder: Path) -> None:
    graph(folder, [helper.make_node("ReduceMean", ["picture"], ["translation"], keepdims=1)], {}, (1, 1, 1, 1))


def no_numbers(folder: Path) -> None:
    graph(folder, [helper.make_node("Div", ["picture", "zero"], ["translation"])], {"zero": np.zeros(1, np.float32)})


def looping(folder: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])],
        "b",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, [])],
        [value("d", TensorProto.BOOL, [])],
    )
    loop = helper.make_node("Loop", ["", "yes"], [], body=body)
    graph(folder, [loop, helper.make_node("Identity", ["picture"], ["translation"])], {"yes": np.array(True)})


def changed(change):
    """A graph that would do, and something in its file that no network needs."""

    def make(folder: Path) -> None:
        graph(folder, [helper.make_node("Neg", ["picture"], ["translation"])], {})
        for direction in ("a2b", "b2a"):
            made = onnx.load(folder / f"{direction}.onnx")
            change(made)
            (folder / f"{direction}.onnx").write_bytes(made.SerializeToString())

    return make


def sparse(made) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [22_000, 22_000]))


def function(made) -> None:
    made.functions.append(helper.make_function("f", "Neg", [], [], [], [helper.make_opsetid("", 18)]))


def other_domain(made) -> None:
    made.graph.node[0].domain = "com.microsoft"


def wide_attention(folder: Path) -> None:
    graph(folder, [helper.make_node("Neg", ["picture"], ["translation"]),
                   helper.make_node("Expand", ["zero", "shape"], ["attention"])],
          {"zero": np.zeros((1, 1, 1, 1), np.float32), "shape": np.array([1, 1, 999, 999], np.int64)})  # fmt: skip
    for direction in ("a2b", "b2a"):
        made = onnx.load(folder / f"{direction}.onnx")
        made.graph.output.append(helper.make_tensor_value_info("attention", TensorProto.FLOAT, [1, 1, 999, 999]))
        (folder / f"{direction}.onnx").write_bytes(made.SerializeToString())


def outside(folder: Path) -> None:
    graph(folder, [helper.make_node("Add", ["picture", "w"], ["translation"])], {"w": np.zeros((1,), np.float32)})
    (folder.parent / "secret").write_bytes(bytes(4))
    for direction in ("a2b", "b2a"):
        made = onnx.load(folder / f"{direction}.onnx")
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        (folder / f"{direction}.onnx").write_bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (huge, "cannot translate a picture"),
        (one_pixel, "makes [(1, 1, 1, 1)]"),
        (no_numbers, "no numbers"),
        (looping, "operator Loop"),
        (outside, "keeps data in other files"),
        (changed(sparse), "functions or sparse tensors"),
        (changed(function), "functions or sparse tensors"),
        (changed(other_domain), "operator Neg"),
        (wide_attention, "(1, 1, 999, 999)"),
    ],
)
def test_onnx_files_of_strangers_are_refused(make, sentence, tmp_path):
    make(tmp_path / "model")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as refused:
        OnnxTranslator(tmp_path / "model", "cpu").translate(torch.zeros(1, 3, 32, 32), "a2b", "model")
    assert sentence in str(refused.value) and "ugatit export" in str(refused.value)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10 < 500
    write_picture(tmp_path / "x.png", 1)
    given = [tmp_path / "model", tmp_path / "x.png", "-o", tmp_path / "o", "--backend", "onnx", "--device", "cpu"]
    assert main(["translate", *map(str, given)]) == 2


def test_a_graph_that_fits_is_run(tmp_path):
    graph(tmp_path / "model", [helper.make_node("Neg", ["picture"], ["translation"])], {})
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(OnnxTranslator(tmp_path / "model", "cpu").translate(x, "a2b", "model").image, -x)


def test_threads_that_load_at_once_share_the_bound_on_memory(tmp_path):
    graph(tmp_path / "model", [helper.make_node("Neg", ["picture"], ["translation"])], {})
    made: list[Translator] = []
    threads = [threading.Thread(target=lambda: made.append(OnnxTranslator(tmp_path / "model"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
