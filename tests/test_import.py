"""Public checkpoints, and runs that begin with a model's weights."""

import argparse
import codecs
import resource
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import originals
from conftest import TINY, run_here, tiny_model
from ugatit.io.errors import UserError
from ugatit.nn.switch import fast_forms
from ugatit.systems.cyclegan import CycleGAN
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.training.start import take_weights
from ugatit.translation import bundle, folder
from ugatit.translation.checkpoints import checkpoints_in, import_checkpoint, way_of
from ugatit.translation.folder import load_model, save_model
from ugatit.translation.released import NETWORKS, released_names
from ugatit.translation.translator import Translator
from ugatit.translation.unpacking import unpack


def worst(system, folder) -> float:
    """Of both directions, relative to the largest number of the authors' output."""
    recorded, apart = np.load(folder / "numbers.npz"), []
    for direction, side in (("a2b", "A"), ("b2a", "B")):
        if direction in system.directions:
            with torch.no_grad():
                made = system.eval().translate(torch.from_numpy(recorded[f"real_{side}"]), direction).image.numpy()
            wanted = recorded[f"out/G_{side}"]
            apart.append(float(np.abs(made - wanted).max() / np.abs(wanted).max()))
    return max(apart)


@pytest.mark.parametrize("blocks", [6, 9])
def test_generators_of_the_cyclegan_toolkit(blocks, shared, tmp_path):
    folder = shared / "parity_cyclegan" / f"blocks{blocks}"
    system = import_checkpoint([folder], size=64)
    assert isinstance(system, CycleGAN) and system.config.blocks == blocks
    assert worst(system, folder) < 1e-4
    for side, direction in (("A", "a2b"), ("B", "b2a")):
        one = import_checkpoint([folder / f"latest_net_G_{side}.pth"], size=64)
        assert one.directions == (direction,) and worst(one, folder) < 1e-4
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for side in "AB":
            archive.write(folder / f"latest_net_G_{side}.pth", f"horse2zebra/latest_net_G_{side}.pth")
    assert worst(import_checkpoint([tmp_path / "both.zip"], size=64), folder) < 1e-4


@pytest.mark.parametrize("kind", ["light", "full"])
def test_checkpoints_of_the_authors_tensorflow_code(kind, shared, tmp_path):
    """All that was recorded, within 1e-4 of the largest number."""
    folder = shared / "parity_tensorflow" / kind
    recorded = np.load(folder / "numbers.npz")
    options = [] if recorded["smoothing"] else ["--no-smoothing"]
    done = run_here("import", folder, "-o", tmp_path / "m", "--size", "64", *options)
    assert done.returncode == 0 and "It has no discriminators" in done.stderr, done.stderr
    model = load_model(tmp_path / "m")
    assert model.config.release == "tensorflow" and model.config.light == (kind == "light")
    a, b = (torch.from_numpy(recorded[f"real_{side}"]).permute(0, 3, 1, 2).contiguous() for side in "AB")
    for fast in (True, False):
        with torch.no_grad(), fast_forms(fast):
            ab, ba, aa, bb = model.gen_a2b(a), model.gen_b2a(b), model.gen_b2a(a), model.gen_a2b(b)
            found = {name: made.image for name, made in (("ab", ab), ("ba", ba), ("aa", aa), ("bb", bb))}
            found["aba"] = model.gen_b2a(ab.image).image
        found = {name: image.permute(0, 2, 3, 1) for name, image in found.items()}
        for name, made in (("ab", ab), ("ba", ba), ("aa", aa)):
            found[f"cam_{name}"] = made.cam_logit
        found |= {"heat_ab": ab.heatmap[0, 0], "heat_ba": ba.heatmap[0, 0]}
        assert found.keys() == {name.removeprefix("out/") for name in recorded if name.startswith("out/")}
        for name, values in found.items():
            wanted = recorded[f"out/{name}"]
            assert np.abs(values.numpy() - wanted).max() / np.abs(wanted).max() < 1e-4, name
    given = [folder / next(file.name for file in folder.glob("*.index")), folder / next(folder.glob("*.index")).stem]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"checkpoint/UGATIT/{file.name}")
    for path in [*given, tmp_path / "all.zip"]:
        again = import_checkpoint([path], 64, smoothing=bool(recorded["smoothing"]))
        assert all(torch.equal(t, model.state_dict()[n]) for n, t in again.state_dict().items() if not t.is_meta)
    done = run_here("translate", folder, tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 2 and f"ugatit import {folder} -o MODEL" in done.stderr


def test_smoothing_is_what_the_folder_tells(shared, tmp_path, capsys):
    source = shared / "parity_tensorflow" / "full"
    plain, smooth = (import_checkpoint([source], 64, smoothing=on) for on in (False, True))
    name = "UGATIT_light_cat2dog_lsgan_4resblock_6dis_1_1_10_10_1000_sn"
    for called, wanted, said in (
        (name, plain, "trained without smoothing"),
        (f"{name}_smoothing", smooth, ""),
        ("elsewhere", smooth, "which its folder does not tell: try --no-smoothing too"),
    ):
        shutil.copytree(source, tmp_path / called)
        capsys.readouterr()
        found = import_checkpoint([tmp_path / called], 64)
        for part in ("gen_a2b.decoder.0.norm1.rho", "gen_b2a.up.0.norm.rho"):
            assert torch.equal(found.state_dict()[part], wanted.state_dict()[part]), called
        told = " ".join(capsys.readouterr().err.split())
        assert said in told and bool(said) == ("smoothing of rho" in told)
    assert not torch.equal(plain.gen_a2b.decoder[0].norm1.rho, smooth.gen_a2b.decoder[0].norm1.rho)


def test_an_index_that_names_one_place_often_takes_no_memory(tmp_path, monkeypatch):
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(400))
    entries = {f"generator_B/{i}": bundle.Entry(1, (100,), 0, 0, 400) for i in range(9)}
    averages = {f"generator_B/0/{name}": bundle.Entry(99, (), 0, 0, 0) for name in ("Adam", "Adam_1")}
    monkeypatch.setattr(bundle, "read_index", lambda _: ({"generator_B/0": entries["generator_B/0"], **averages}, 1))
    assert list(bundle.read_bundle(tmp_path / "x.index", "generator_B/")) == ["generator_B/0"], (
        "averages are passed over"
    )
    monkeypatch.setattr(bundle, "read_index", lambda _: (entries, 1))
    with pytest.raises(ValueError, match="its tensors are larger than its files"):
        bundle.read_bundle(tmp_path / "x.index", "generator_B/")


def test_damaged_checkpoints_of_tensorflow_are_refused(shared, tmp_path):
    source = shared / "parity_tensorflow" / "light"
    (index,), (data,) = source.glob("*.index"), source.glob("*.data*")
    target = tmp_path / index.name
    with pytest.raises(UserError, match=r"needs .*data-00000-of-00001, which does not exist"):
        target.write_bytes(index.read_bytes())
        import_checkpoint([target])
    (tmp_path / data.name).write_bytes(data.read_bytes())
    noise, whole, refused = np.random.default_rng(0), index.read_bytes(), 0
    for _ in range(150):
        mutant = bytearray(whole[: noise.integers(1, len(whole))] if noise.random() < 0.2 else whole)
        for place in noise.integers(0, len(mutant), noise.integers(1, 5)):
            mutant[place] = noise.integers(0, 256)
        target.write_bytes(mutant)
        try:
            import_checkpoint([target], 64)
        except UserError:
            refused += 1
    assert refused > 75
    target.write_bytes(whole)
    (tmp_path / data.name).write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UserError, match="ends before generator_"):
        import_checkpoint([target])
    (tmp_path / "no.index").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="is no index of a TensorFlow checkpoint"):
        import_checkpoint([tmp_path / "no.index"])


def test_a_run_goes_on_from_a_checkpoint_of_tensorflow(shared, data, tmp_path):
    source = shared / "parity_tensorflow" / "light"
    assert run_here("import", source, "-o", tmp_path / "m", "--size", "64").returncode == 0
    options = ["--preset", "light", "--release", "tensorflow", "--width", "4", "--size", "64", "--workers", "0"]
    start = ["--start", tmp_path / "m", "--steps", "2", "-o", tmp_path / "run"]
    done = run_here("train", data, *options, *start)
    assert done.returncode == 0, done.stderr
    assert "afresh begin: disc_global_a, disc_global_b, disc_local_a, disc_local_b." in done.stderr.replace("\n", " ")
    before, after = load_model(tmp_path / "m").state_dict(), load_model(tmp_path / "run" / "model").state_dict()
    assert 0 < (before["gen_a2b.out.0.weight"] - after["gen_a2b.out.0.weight"]).abs().max() < 1e-3


def toolkit_names(network: torch.nn.Module, second: int) -> dict[str, torch.Tensor]:
    """A generator's tensors by the toolkit's names; of a block's second convolution it depends on dropout."""
    state, names = network.state_dict(), {}
    blocks = sum(name.endswith("conv1.weight") for name in state)
    places = [1, 4, 7, *range(10, 10 + blocks), 10 + blocks, 13 + blocks, 17 + blocks]
    for name, tensor in state.items():
        layer, *inner, part = name.split(".")
        block = {"conv1": "conv_block.1.", "conv2": f"conv_block.{second}."}.get(inner[0] if inner else "", "")
        names[f"module.model.{places[int(layer)]}.{block}{part}"] = tensor
    return names


@pytest.mark.parametrize("dropout", [False, True])
def test_a_wrapped_generator_with_other_channels_becomes_a_model_of_one_direction(dropout, tmp_path):
    ours = CycleGAN(CycleGAN.Config(size=32, width=4, blocks=2, channels=1, channels_b=3, identity_weight=0.0))
    ours.init_weights()
    state = toolkit_names(ours.gen_b2a, 6 if dropout else 5)
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "latest_net_G.pth")
    options = "--direction", "b2a", "--size", "32"
    done = run_here("import", tmp_path / "latest_net_G.pth", "-o", tmp_path / "m", *options)
    assert done.returncode == 0 and "CycleGAN, b2a, width 4, 2 blocks, 1 and 3 channels, size 32" in done.stderr
    model = load_model(tmp_path / "m")
    x = torch.rand(1, 3, 32, 32)
    assert torch.allclose(model.translate(x, "b2a").image, ours.eval().translate(x, "b2a").image, atol=5e-3)
    with pytest.raises(UserError, match="does not translate"):
        Translator(model, "cpu")(torch.rand(1, 1, 32, 32), "a2b")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("latest_net_G_A.pth", "a2b"),
        ("latest_net_G_B.pth", "b2a"),
        ("latest_net_G_B (1).pth", "b2a"),
        ("netG_B2A.pth", "b2a"),
        ("netG_A2B.pth", "a2b"),
        ("200_net_G_BtoA - Copy.pth", "b2a"),
        ("genA2B.pt", "a2b"),
        ("genB2A.pt", "b2a"),
        ("genB2A(1).pt", "b2a"),
        ("netGA2B.pth", "a2b"),
        ("selfie2anime_genB2A_params_0100000.pt", "b2a"),
        ("GenA2B.pth", "a2b"),
        ("G_A_B.pth", "a2b"),
        ("G_A-B.pth", "a2b"),
        ("netG_B_A.pth", "b2a"),
        ("G_BA.pth", "b2a"),
        ("gen_a2b.safetensors", "a2b"),
        ("netG_a_to_b.pth", "a2b"),
        ("cyclegan_B16_horse2zebra.pth", None),
        ("1B_model.pth", None),
        ("A_or_B.pth", None),
        ("latest_net_G.pth", None),
        ("cat2dog.pth", None),
    ],
)
def test_a_generator_s_name_tells_its_direction(name, way):
    assert way_of(Path(name)) == way


def test_two_generators_have_the_directions_of_their_names_whatever_comes_first(tmp_path, capsys):
    for name, seed in (("netG_A2B.pth", 1), ("netG_B2A.pth", 2)):
        torch.manual_seed(seed)
        ours = CycleGAN(CycleGAN.Config(size=32, width=4, blocks=1))
        ours.init_weights()
        torch.save(toolkit_names(ours.gen_a2b, 5), tmp_path / name)
    files = [tmp_path / "netG_A2B.pth", tmp_path / "netG_B2A.pth"]
    one, other = (import_checkpoint(given, 32).state_dict() for given in (files, files[::-1]))
    assert all(torch.equal(one[name], other[name]) for name in one if name.startswith("gen"))
    with pytest.raises(UserError, match="`direction` is for a single generator"):
        import_checkpoint(files, 32, "b2a")
    shutil.copy(files[0], tmp_path / "net_G_A.pth")
    with pytest.raises(UserError, match="are both a2b by their names"):
        import_checkpoint([files[0], tmp_path / "net_G_A.pth"], 32)
    shutil.copy(files[0], tmp_path / "horses.pth")
    assert import_checkpoint([tmp_path / "horses.pth"], 32).directions == ("a2b",)
    assert "horses.pth does not tell its direction" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.write(tmp_path / "horses.pth", "m/horses.pth")
        archive.writestr("__MACOSX/m/._horses.pth", b"of a Mac")
    assert import_checkpoint([tmp_path / "mine.zip"], 32).directions == ("a2b",)
    with pytest.raises(UserError, match=r"mine.zip is a zip file, and others were given with it"):
        import_checkpoint([tmp_path / "mine.zip", files[1]], 32)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "horses.pth", "m/horses.pth")
    damaged = bytearray((tmp_path / "packed.zip").read_bytes())
    damaged[100:200] = bytes(100)
    (tmp_path / "packed.zip").write_bytes(damaged)
    with pytest.raises(UserError, match=r"packed.zip cannot be unpacked"):
        import_checkpoint([tmp_path / "packed.zip"], 32)
    wide = CycleGAN(CycleGAN.Config(size=32, width=2, blocks=1))
    state = toolkit_names(wide.gen_a2b, 5)
    first = next(iter(state))
    state[first] = torch.zeros(2, 12, 7, 7)
    torch.save(state, tmp_path / "twelve_A.pth")
    with pytest.raises(UserError, match="does not fit CycleGAN here: channels = 12"):
        import_checkpoint([tmp_path / "twelve_A.pth"], 32)


def test_the_newest_of_a_folder_is_the_latest(tmp_path):
    for name in ("cat_params_0001000.pt", "cat_params_latest.pt", "cat_params_0000900.pt"):
        torch.save(released(), tmp_path / name)
    assert [file.name for file in checkpoints_in(tmp_path)] == ["cat_params_latest.pt"]
    (tmp_path / "cat_params_latest.pt").unlink()
    assert [file.name for file in checkpoints_in(tmp_path)] == ["cat_params_0001000.pt"]


def test_a_variant_of_the_authors_networks_is_refused_and_unused_statistics_are_not(tmp_path):
    states = released()
    states["genA2B"]["DownBlock.2.num_batches_tracked"] = torch.tensor(7)
    torch.save(states, tmp_path / "a_params_1.pt")
    import_checkpoint([tmp_path / "a_params_1.pt"], 32)
    states["genA2B"]["Attention.gamma"] = torch.ones(1)
    torch.save(states, tmp_path / "a_params_1.pt")
    with pytest.raises(UserError, match=r"a variant of the authors' networks, as genA2B has Attention.gamma too"):
        import_checkpoint([tmp_path / "a_params_1.pt"], 32)


def test_weights_that_stand_twice_in_a_checkpoint_count_once(tmp_path):
    states = released()
    torch.save({**states, "best": states}, tmp_path / "a_params_1.pt")
    torch.save(states, tmp_path / "b_params_1.pt")
    twice, once = (import_checkpoint([tmp_path / f"{name}_params_1.pt"], 32).state_dict() for name in "ab")
    assert twice.keys() == once.keys() and all(torch.equal(twice[name], once[name]) for name in once)


def test_another_model_s_discriminators_do_not_stay(tmp_path):
    torch.save(released(), tmp_path / "a_params_1.pt")
    assert run_here("import", tmp_path / "a_params_1.pt", "-o", tmp_path / "m", "--size", 32).returncode == 0
    Translator.load(tmp_path / "m").save(tmp_path / "m")
    assert (tmp_path / "m" / "training.safetensors").exists(), "they are this model's"
    torch.save({n: state for n, state in released().items() if n.startswith("gen")}, tmp_path / "b_params_1.pt")
    assert run_here("import", tmp_path / "b_params_1.pt", "-o", tmp_path / "m", "--size", 32).returncode == 0
    assert not (tmp_path / "m" / "training.safetensors").exists()


def released(**changes) -> dict:
    system = UGATIT(UGATITConfig(size=32, width=2, blocks=1, light=True))
    system.init_weights()
    return {
        theirs: {
            name: system.get_submodule(ours).state_dict()[renamed]
            for name, renamed in released_names(system, ours).items()
        }
        for theirs, ours in NETWORKS.items()
    }


def test_a_trained_model_and_an_exported_one_are_not_overwritten(tmp_path):
    torch.save(released(), tmp_path / "a_params_1.pt")
    save_model(tiny_model(), tmp_path / "m", step=7)
    done = run_here("import", tmp_path / "a_params_1.pt", "-o", tmp_path / "m", "--size", 32)
    assert done.returncode == 2 and "m holds a model that was trained for 7 steps" in done.stderr.replace("\n", "")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "b2a.onnx").touch()  # of a model that translates one way
    with pytest.raises(UserError, match="e is what ugatit export wrote"):
        save_model(tiny_model(), tmp_path / "e", step=0)
    with pytest.raises(UserError, match="e is what ugatit export wrote"):
        load_model(tmp_path / "e")


def test_a_model_stays_as_it_was_where_the_disk_is_full_for_another(tmp_path, monkeypatch):
    save_model(tiny_model(), tmp_path / "m", step=0)
    before = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}

    def full(tensors, path, metadata=None, save=folder.save_tensors):
        if metadata["step"] == "1" and any(name.startswith("disc") for name in tensors):
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(folder, "save_tensors", full)
    with pytest.raises(OSError, match="No space"):
        save_model(UGATIT(UGATITConfig(size=32, width=4, blocks=1, light=True)), tmp_path / "m", step=1)
    assert {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()} == before


def test_a_download_with_a_hole_is_refused(tmp_path):
    torch.save(released(), tmp_path / "a_params_1.pt")
    content = bytearray((tmp_path / "a_params_1.pt").read_bytes())
    place = len(content) // 2
    content[place : place + 64] = bytes(64)
    (tmp_path / "a_params_1.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"a_params_1.pt cannot be read .*checksum.*get it again"):
        import_checkpoint([tmp_path / "a_params_1.pt"], 32)


class Greedy:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("call", [(bytearray, (3 * 2**30,)), (codecs.encode, ("a" * 1000, "latin1"))])
def test_a_file_that_asks_for_memory_is_refused_before_it_gets_any(call, new, tmp_path):
    torch.save({"x": Greedy(*call)}, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"holds more than tensors \(.*(bytearray|encode)\)"):
        import_checkpoint([tmp_path / "x.pt"], 32)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


@pytest.mark.parametrize("spoil", ["missing", "not a number", "another layer"])
def test_a_discriminator_that_is_not_whole_does_not_keep_the_generators_out(spoil, tmp_path, capsys):
    states = released()
    judge = states["disGA"]
    if spoil == "missing":
        del judge["model.1.bias"]
    elif spoil == "not a number":
        judge["model.1.bias"] = torch.full_like(judge["model.1.bias"], torch.nan)
    else:
        judge["model.1.weight_orig"] = judge["model.1.weight_orig"][:, :2]
    torch.save(states, tmp_path / "a_params_1.pt")
    system = import_checkpoint([tmp_path / "a_params_1.pt"], 32)
    assert torch.equal(system.gen_a2b.mlp[0].weight, states["genA2B"]["FC.0.weight"])
    assert "a_params_1.pt are left out" in " ".join(capsys.readouterr().err.split())


def test_generators_alone_and_those_that_lie_deeper_are_found(tmp_path):
    states = released()
    for name, content, ways in (
        ("one.pt", {"genB2A": states["genB2A"]}, ("b2a",)),
        ("gen_B2A.pt", states["genB2A"], ("b2a",)),
        ("deep.pt", {"state_dict": states, "step": 3}, ("a2b", "b2a")),
    ):
        torch.save(content, tmp_path / name)
        system = import_checkpoint([tmp_path / name], 32)
        assert system.directions == ways
        assert torch.equal(system.gen_b2a.mlp[0].weight, states["genB2A"]["FC.0.weight"])
    deep = tmp_path / "checkpoint" / "UGATIT_cats"
    deep.mkdir(parents=True)
    torch.save(states, deep / "a_params_1.pt")
    assert import_checkpoint([tmp_path / "checkpoint"], 32).directions == ("a2b", "b2a")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\n<!doctype html><html>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "a web page"),
        (b'{"error": "Not found"}', "what a server said"),
        (b"Not Found", "text, not the file"),
        (bytes(9000), "all zeros"),
        (b"\xfd7zXZ\0" + bytes(range(99)), "a packed file"),
        (b"\x20\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"', "a file of safetensors"),
        (b"a.npz" + bytes(252) + b"ustar" + bytes(99), "a packed file"),
    ],
)
def test_what_came_instead_of_weights_is_named(content, sentence, tmp_path):
    (tmp_path / "x_params_1.pt").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        import_checkpoint([tmp_path / "x_params_1.pt"], 32)


@pytest.mark.parametrize(
    "content",
    [
        {0: torch.zeros(3)},
        {b"a": torch.zeros(3)},
        {"model.1.weight": torch.zeros(())},
        {"a": torch.zeros(3), "a.b": torch.zeros(3)},
        {"a": {"DownBlock.1.weight": torch.zeros(())}, "b": 3},
        {"a": {"model.1.weight": 3, "model.10.conv_block.1.weight": "x"}},
    ],
)
def test_odd_contents_are_refused_in_a_sentence(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"another network|not a ResNet generator|holds more than tensors|not of the authors"
    ):
        import_checkpoint([tmp_path / "x.pth"], 32)


def test_released_checkpoints_wrapped_halved_and_without_discriminators(tmp_path):
    states = released()
    wrapped = {n: {f"module.{k}": v.half() for k, v in state.items()} for n, state in states.items()}
    torch.save(wrapped, tmp_path / "a_params_1.pt", _use_new_zipfile_serialization=False)
    system = import_checkpoint([tmp_path / "a_params_1.pt"], size=32)
    assert torch.allclose(system.gen_a2b.mlp[0].weight, states["genA2B"]["FC.0.weight"], atol=1e-3)
    torch.save({name: states[name] for name in ("genA2B", "genB2A")}, tmp_path / "b_params_2.pt")
    done = run_here("import", tmp_path / "b_params_2.pt", "-o", tmp_path / "m", "--size", "32")
    assert done.returncode == 0 and "It has no discriminators" in done.stderr
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["config.json", "translator.safetensors"]
    Translator.load(tmp_path / "m", "cpu")(torch.rand(1, 3, 32, 32))


def test_what_is_no_known_checkpoint_is_named(tmp_path, data):
    (tmp_path / "x.png").write_bytes((data / "trainA" / "0.png").read_bytes())
    (tmp_path / "x.html").write_text("<!DOCTYPE html>")
    torch.save({"g_ema": {"w": torch.ones(3)}}, tmp_path / "style.pt")
    torch.save({"model.model.0.weight": torch.ones(3)}, tmp_path / "unet.pth")
    torch.save({"encoder.weight": torch.ones(3)}, tmp_path / "other.pth")
    torch.save({**released(), "args": argparse.Namespace(lr=1)}, tmp_path / "options.pt")
    save_model(tiny_model(), tmp_path / "model", step=0)
    for name, sentence in (
        ("x.png", "seems to be a picture"),
        ("x.html", "a web page"),
        ("style.pt", "of StyleGAN"),
        ("unet.pth", "a U-Net of the CycleGAN toolkit"),
        ("other.pth", r"of another network \(encoder.weight\)"),
        ("options.pt", r"holds more than tensors \(argparse.Namespace\).* code of others is never run.* state dicts"),
        ("model", "is of this package"),
        ("none.pt", "does not exist"),
    ):
        with pytest.raises(UserError, match=sentence):
            import_checkpoint([tmp_path / name])
    for command in (["translate", tmp_path / "other.pth", tmp_path / "x.png", "-o", tmp_path / "out"],
                    ["serve", tmp_path / "other.pth"],
                    ["evaluate", tmp_path / "other.pth", data, "-o", tmp_path / "out"],
                    ["export", tmp_path / "other.pth", "-o", tmp_path / "out"]):  # fmt: skip
        done = run_here(*command)
        assert done.returncode == 2 and f"ugatit import {tmp_path / 'other.pth'} -o MODEL" in done.stderr, done.stderr


def test_a_run_begins_with_the_weights_of_a_smaller_size(data, tmp_path):
    light = [*TINY, "--preset", "light", "--ema", "0"]
    done = run_here("train", data, *light, "--steps", "2", "-o", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    options = [*light, "--size", "64", "--steps", "1", "--lr", "1e-12", "-o", tmp_path / "large"]
    done = run_here("train", data, *options, "--start", tmp_path / "small" / "model")
    assert done.returncode == 0 and "afresh begin: disc_global_a" in done.stderr.replace("\n", " "), done.stderr
    small, large = (load_model(tmp_path / run / "model", with_training=True).state_dict() for run in ("small", "large"))
    for name, tensor in large.items():
        if name.startswith(("gen_", "disc_local_")) and not name.endswith((".u", ".v")):
            assert torch.allclose(tensor, small[name], atol=1e-6), name
    shutil.rmtree(tmp_path / "small")
    done = run_here("train", "--resume", tmp_path / "large", "--steps", "2")
    assert done.returncode == 0, "the model is not needed any more"
    start = "--start", tmp_path / "large" / "model"
    done = run_here("train", data, *TINY, *start, "--width", "3", "-o", tmp_path / "w")
    assert done.returncode == 2 and "Nothing of the model of --start fits (width 2, here width 3)" in done.stderr
    done = run_here("train", data, *TINY, "--start", "cat2dog", "-o", tmp_path / "c")  # the package's
    assert done.returncode == 2 and "Nothing of the model of --start fits (width 32, here width 2)" in done.stderr
    done = run_here("train", data, *TINY, "--start", tmp_path / "none", "-o", tmp_path / "n")
    assert done.returncode == 2 and "does not exist" in done.stderr


def test_full_models_of_another_size_keep_all_but_the_layers_that_see_the_size():
    small, large = (UGATIT(UGATITConfig(size=size, width=2, blocks=1)) for size in (32, 64))
    small.init_weights()
    large.init_weights()
    afresh, left = take_weights(large, small)
    assert left == []
    assert {name for name in afresh if name.startswith("gen")} == {"gen_a2b.mlp", "gen_b2a.mlp"}
    assert torch.equal(large.gen_a2b.out[0].weight, small.gen_a2b.out[0].weight)


# Other methods' codes


def imported(checkpoint, tmp_path, name):
    """What the command makes of a checkpoint of that name."""
    torch.save(checkpoint, tmp_path / name)
    done = run_here("import", tmp_path / name, "-o", tmp_path / "m", "--size", 64)
    assert done.returncode == 0, done.stderr
    return Translator.load(tmp_path / "m", "cpu")


def apart(found, wanted) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("name", ["munit", "unit", "drit", "cartoongan"])
def test_checkpoints_of_other_methods_codes_compute_what_these_codes_do(name, tmp_path):
    checkpoint = getattr(originals, f"{name}_checkpoint")()
    channels = (3, 1) if name == "munit" else (3, 3)
    file = {"drit": "01199.pth", "cartoongan": "Hayao_net_G_float.pth"}.get(name, "gen_00100000.pt")
    translator = imported(checkpoint, tmp_path, file)
    assert type(translator.system).__name__.lower() == name
    for direction in translator.system.directions:
        source, target = direction.upper().split("2")
        x, example = (torch.rand(1, channels["AB".index(side)], 64, 64) * 2 - 1 for side in (source, target))
        if translator.system.styles:
            translator.set_style(example)
        domains = (source, target) if name == "drit" else (source.lower(), target.lower())
        arguments = {"munit": (*domains, x, example), "unit": (*domains, x), "drit": (*domains, x, example),
                     "cartoongan": (x,)}[name]  # fmt: skip
        with torch.no_grad():
            wanted = getattr(originals, name)(checkpoint, *arguments)
        assert apart(translator(x, direction), wanted) < 1e-4
    kept = import_checkpoint([tmp_path / file]).state_dict()  # DRIT's judge of contents has fewer layers for 64 pixels
    judged = [part for part, tensor in kept.items() if not tensor.is_meta and part.startswith(("disc", "judge"))]
    assert bool(judged) == (name == "drit")


def test_other_layers_of_other_methods_are_refused_with_the_reason(tmp_path):
    def refusal(checkpoint):
        torch.save(checkpoint, tmp_path / "x.pt")
        with pytest.raises(UserError) as raised:
            import_checkpoint([tmp_path / "x.pt"], 64)
        return str(raised.value)

    drit = originals.drit_checkpoint()
    drit["gen"]["dec_share.0.model.1.weight"] = torch.zeros(4)
    assert "--concat 1" in refusal(drit)
    munit = originals.munit_checkpoint()
    munit["a"]["mlp.model.0.fc.weight"] = torch.zeros(16, 16)
    assert "its styles have 16 numbers, not 8" in refusal(munit)
    unit = originals.unit_checkpoint()
    del unit["b"]["dec.model.5.conv.bias"]
    assert "of UNIT's code, but with other layers" in refusal(unit)
    cartoon = originals.cartoongan_checkpoint()
    cartoon["conv05_1.bias"][0] = float("nan")
    assert "a weight is no number" in refusal(cartoon)


def generators() -> dict[str, dict[str, torch.Tensor]]:
    return {name: state for name, state in released().items() if name.startswith("gen")}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {name: {"state_dict": state, "epoch": 3} for name, state in s.items()},
        lambda s: {"model": {"nets": s}, "optimizer": {"state": {}}},
        lambda s: {f"{name}.{key}": value for name, state in s.items() for key, value in state.items()},
        lambda s: {
            "state_dict": {f"{n}.module.{k}": v for n, state in s.items() for k, v in state.items()},
            "epoch": 1,
        },
        lambda s: {n: {f"module.module.{k}": v for k, v in state.items()} for n, state in s.items()},
        lambda s: {n: {f"_orig_mod.{k}": v for k, v in state.items()} for n, state in s.items()},
        lambda s: {n: state | {"step": torch.tensor(7), "epoch": 3} for n, state in s.items()},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}, "loss": torch.tensor(0.3)},
        lambda s: {**s, "params": {"lr": 1e-4}},
        lambda s: {"G_A2B": s["genA2B"], "G_B2A": s["genB2A"], "optimizer_G": {"state": {}}, "epoch": 2},
        lambda s: {"state_dict": {f"netG_{n[3:]}.{k}": v for n, state in s.items() for k, v in state.items()}},
    ],
)
def test_what_trainers_put_around_the_weights_is_taken_away(wrap, tmp_path):
    states = generators()
    torch.save(wrap(states), tmp_path / "x.pt")
    system = import_checkpoint([tmp_path / "x.pt"], 32)
    assert system.directions == ("a2b", "b2a")
    assert torch.equal(system.gen_a2b.mlp[0].weight, states["genA2B"]["FC.0.weight"])
    assert torch.equal(system.gen_b2a.mlp[0].weight, states["genB2A"]["FC.0.weight"])


def test_two_generators_in_two_files_are_one_model_and_never_exchanged(tmp_path, capsys):
    states = generators()
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.pt")
        torch.save({name: state}, tmp_path / f"whole-{name}.pt")
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / f"{name}.safetensors")
        (one,) = import_checkpoint([tmp_path / f"{name}.pt"], 32).directions
        assert one == name[3:].lower() and "taken for A to B's" not in capsys.readouterr().err
    both = ["genB2A.pt", "genA2B.pt"]
    for files in (
        both,
        both[::-1],
        ["whole-genB2A.pt", "whole-genA2B.pt"],
        ["genB2A.safetensors", "genA2B.safetensors"],
    ):
        system = import_checkpoint([tmp_path / file for file in files], 32)
        assert torch.equal(system.gen_a2b.mlp[0].weight, states["genA2B"]["FC.0.weight"]), files
        assert torch.equal(system.gen_b2a.mlp[0].weight, states["genB2A"]["FC.0.weight"]), files
    with pytest.raises(UserError, match="both hold genA2B"):
        import_checkpoint([tmp_path / "whole-genA2B.pt"] * 2, 32)
    (tmp_path / "pair").mkdir()
    for file in both:
        (tmp_path / file).rename(tmp_path / "pair" / file)
    assert import_checkpoint([tmp_path / "pair"], 32).directions == ("a2b", "b2a")
    assert "Read: genA2B.pt, genB2A.pt." in capsys.readouterr().err


def test_a_folder_of_several_trainings_or_downloads_is_not_guessed_at(tmp_path):
    torch.save(generators(), tmp_path / "cat2dog_params_0001000.pt")
    torch.save(generators(), tmp_path / "cat2dog_params_0000500(1).pt")
    assert [file.name for file in checkpoints_in(tmp_path)] == ["cat2dog_params_0001000.pt"]
    torch.save(generators(), tmp_path / "selfie2anime_params_0000700.pt")
    with pytest.raises(UserError, match=r"several trainings \(cat2dog, selfie2anime\): give one file"):
        import_checkpoint([tmp_path], 32)
    results = tmp_path / "results"
    for place in (results / "cat2dog", results / "cat2dog" / "model"):
        place.mkdir(parents=True)
        torch.save(generators(), place / "cat2dog_params_latest.pt")
    with pytest.raises(UserError, match=r"holds checkpoints in several folders .*cat2dog.*: give one of them"):
        import_checkpoint([results.parent / "results"], 32)
    (tmp_path / "lightning").mkdir()
    torch.save({"state_dict": generators()}, tmp_path / "lightning" / "last.ckpt")
    assert import_checkpoint([tmp_path / "lightning"], 32).directions == ("a2b", "b2a")
    (tmp_path / "safe").mkdir()
    for name, state in generators().items():
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "safe" / f"{name}.safetensors")
    assert import_checkpoint([tmp_path / "safe"], 32).directions == ("a2b", "b2a")


def test_a_full_model_of_pictures_that_are_not_square_says_so(tmp_path):
    states = generators()
    for state in states.values():
        width = state["DownBlock.1.weight"].shape[0]
        state["FC.0.weight"] = torch.zeros(len(state["FC.0.weight"]), 4 * width * 16 * 12)
    torch.save(states, tmp_path / "x.pt")
    with pytest.raises(
        UserError, match="a variant of the authors' networks, as its pictures were not square: it cannot"
    ):
        import_checkpoint([tmp_path / "x.pt"], 32)


def test_generators_of_the_toolkit_are_unwrapped_too(tmp_path):
    ours = CycleGAN(CycleGAN.Config(size=32, width=4, blocks=2))
    ours.init_weights()
    theirs = toolkit_names(ours.gen_a2b, 5)
    torch.save({"state_dict": theirs, "epoch": 9}, tmp_path / "netG_A2B.pth")
    torch.save({"netG_B2A": toolkit_names(ours.gen_b2a, 5), "netG_A2B": theirs}, tmp_path / "both.pth")
    assert import_checkpoint([tmp_path / "netG_A2B.pth"], 32).directions == ("a2b",)
    states = {"G_BA": toolkit_names(ours.gen_b2a, 5), "D_A": {"model.0.weight": torch.ones(3)}, "epoch": 3}
    torch.save(states, tmp_path / "one.pth")
    assert import_checkpoint([tmp_path / "one.pth"], 32).directions == ("b2a",)
    torch.save(states | {"G_AB": theirs}, tmp_path / "checkpoint.pth")
    assert import_checkpoint([tmp_path / "checkpoint.pth"], 32).directions == ("a2b", "b2a")
    both = import_checkpoint([tmp_path / "both.pth"], 32)
    x = torch.rand(1, 3, 32, 32)
    for way in ("a2b", "b2a"):
        assert torch.allclose(both.translate(x, way).image, ours.eval().translate(x, way).image, atol=1e-5)


def test_generators_in_a_folder_are_told_from_discriminators_and_older_ones(tmp_path):
    ours = CycleGAN(CycleGAN.Config(size=32, width=4, blocks=2))
    ours.init_weights()
    for name in ("netD_A", "netD_B", "netG_A2B", "netG_B2A"):
        torch.save(toolkit_names(ours.gen_a2b, 5), tmp_path / f"{name}.pth")
    assert [file.stem for file in checkpoints_in(tmp_path)] == ["netG_A2B", "netG_B2A"]
    steps = tmp_path / "steps"
    steps.mkdir()
    for name in ("5_net_G_A", "5_net_G_B", "10_net_G_A", "10_net_G_B", "10_net_D_A"):
        (steps / f"{name}.pth").touch()
    assert [file.stem for file in checkpoints_in(steps)] == ["10_net_G_A", "10_net_G_B"]
    ways = tmp_path / "ways"
    ways.mkdir()
    for name in ("5_netG_A2B", "5_netG_B2A", "10_netG_A2B", "10_netG_B2A"):
        (ways / f"{name}.pth").touch()
    assert [file.stem for file in checkpoints_in(ways)] == ["10_netG_A2B", "10_netG_B2A"]
    (steps / "10_net_G_B.pth").unlink()
    with pytest.raises(UserError, match="holds 4 checkpoints, none of which is known by its name: give one or two"):
        checkpoints_in(steps)


def test_the_authors_networks_under_other_names_of_layers(tmp_path):
    states = generators()
    others = {"DownBlock.": "down_layer.", "UpBlock2.": "up_layer.", "FC.": "fc.", "UpBlock1_": "ResNetAdaILNBlock_"}
    for way in ("A2B", "B2A"):
        state = states[f"gen{way}"]
        for ours, theirs in others.items():
            assert any(name.startswith(ours) for name in state)
            state = {theirs + n.removeprefix(ours) if n.startswith(ours) else n: t for n, t in state.items()}
        torch.save(state, tmp_path / f"netG_{way}.pth")
    system = import_checkpoint([tmp_path], 32)
    for way in ("a2b", "b2a"):
        made = system.get_submodule(f"gen_{way}").state_dict()
        for name, ours in released_names(system, f"gen_{way}").items():
            assert torch.equal(made[ours], states[f"gen{way.upper()}"][name])


def test_one_network_under_two_names_becomes_two(tmp_path):
    states = released()
    torch.save(states | {"genB2A": states["genA2B"]}, tmp_path / "x_params_1.pt")
    save_model(import_checkpoint([tmp_path / "x_params_1.pt"], 32), tmp_path / "m", step=0)
    system = load_model(tmp_path / "m")
    assert torch.equal(system.gen_a2b.down[0][0].weight, system.gen_b2a.down[0][0].weight)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda n, t: (n.replace("block.1.", "block.0.").replace("block.5.", "block.3."), t), "padded otherwise"),
        (lambda n, t: (n, (t * 9).to(torch.int8)), "of another network"),
        (lambda n, t: (n, t.to(torch.complex64)), "of another network"),
    ],
)
def test_heirs_of_the_toolkit_that_compute_otherwise_are_refused(change, sentence, tmp_path):
    ours = CycleGAN(CycleGAN.Config(size=32, width=4, blocks=2))
    ours.init_weights()
    torch.save(dict(change(n, t) for n, t in toolkit_names(ours.gen_a2b, 5).items()), tmp_path / "latest_net_G_A.pth")
    with pytest.raises(UserError, match=sentence):
        import_checkpoint([tmp_path / "latest_net_G_A.pth"], 32)


def test_files_of_others_are_not_said_to_be_dangerous_ones_of_pytorch(tmp_path):
    for content in (b"\x80\x02}q\x00.", b"\x08\x07\x12\x07pytorch" + bytes(range(99)), b"\x04\0\0\0\x01\0\0\0"):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(UserError, match="is no file of PyTorch: give a"):
            import_checkpoint([tmp_path / "x.pth"])
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as script:
        for name in ("data.pkl", "constants.pkl", "code/model.py"):
            script.writestr(f"script/{name}", b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match="is a program of TorchScript, and code of others is never run here"):
        import_checkpoint([tmp_path / "script.pt"])
    part = tmp_path / "tf" / "UGATIT.model-9.data-00000-of-00001"
    part.parent.mkdir()
    part.write_bytes(bytes(range(99)))
    for given in (part, part.parent):
        with pytest.raises(UserError, match=r"TensorFlow without its \.index: put that beside it"):
            import_checkpoint([given])


def test_a_zip_file_of_a_mac_whose_list_is_cut_to_32_bits_is_read(shared, tmp_path):
    """As the authors' own two are, of more than 4 GiB: sizes and places are modulo that."""
    source = next((shared / "parity_tensorflow" / "light").rglob("*.index")).parent
    files = [file for file in sorted(source.iterdir()) if file.is_file()]
    listed = b""
    with (tmp_path / "selfie2anime.zip").open("wb") as archive:
        for file in [None, *files]:
            name = ("run/" if file is None else f"run/{file.name}").encode()
            data = b"" if file is None else file.read_bytes()
            method, place = (0, 0) if file is None else (8, 8)
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            packed = b"" if file is None else packer.compress(data) + packer.flush()
            start = archive.tell()
            archive.write(struct.pack("<4s5H3I2H", b"PK\3\4", 20, place, method, 0, 0, 0, 0, 0, len(name), 0) + name)
            archive.write(packed)
            if file:
                archive.write(struct.pack("<4s3I", b"PK\7\x08", zlib.crc32(data), len(packed), len(data)))
            about = (zlib.crc32(data), len(packed), len(data), len(name), 0, 0, 0, 0, 0, start)
            listed += struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, place, method, 0, 0, *about) + name
        end = archive.tell()
        archive.write(listed)
        count = len(files) + 1
        archive.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(listed), end - 1000, 0))
    with zipfile.ZipFile(tmp_path / "selfie2anime.zip") as archive, pytest.raises(zipfile.BadZipFile):
        archive.extractall(tmp_path / "listed")
    unpack(tmp_path / "selfie2anime.zip", tmp_path / "out")
    for file in files:
        assert (tmp_path / "out" / "run" / file.name).read_bytes() == file.read_bytes()
    assert import_checkpoint([tmp_path / "selfie2anime.zip"]).directions == ("a2b", "b2a")
    whole = (tmp_path / "selfie2anime.zip").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "damaged.zip").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    (tmp_path / "short.zip").write_bytes(whole[:14] + whole[end:])
    for name in ("damaged", "short"):
        with pytest.raises(UserError, match=rf"{name}.zip cannot be unpacked \(.*\): get it again"):
            import_checkpoint([tmp_path / f"{name}.zip"])
