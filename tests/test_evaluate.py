"""Figures against direct evaluations, folders and models, and what can go wrong."""

import json
import shutil
import unicodedata
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from PIL import Image

from conftest import run_here, run_torchrun, tiny_model, write_picture
from ugatit.commands import evaluate as command
from ugatit.data.finding import find_pictures, find_tests
from ugatit.evaluation.evaluate import (
    Evaluator,
    evaluate_folders,
    evaluate_model,
    match,
    need_own,
    translation_name,
    usable,
    write_translations,
)
from ugatit.evaluation.features import load_features, perceptual_distance
from ugatit.evaluation.metrics import LEAST, Files, Protocol, attention_rank, fid, kid, paired
from ugatit.io.errors import UserError
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator

OFFLINE = Protocol(features="efficientnet-lite0")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def evaluator():
    return Evaluator(OFFLINE, CPU)


def features(count: int, shift: float, seed: int) -> torch.Tensor:
    return torch.randn(count, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def direct_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased MMD, pair by pair."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    same_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    same_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return same_x + same_y - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_kid_is_the_unbiased_mmd_of_the_polynomial_kernel():
    real, fake = features(13, 0.0, 1), features(13, 0.3, 2)
    mean, std, size = kid(real, fake, Protocol(subset_size=13, subsets=3))  # every subset is the whole set
    assert mean == pytest.approx(100 * direct_mmd(real.numpy(), fake.numpy()), rel=1e-10)
    assert std == pytest.approx(0, abs=1e-8) and size == 13


def test_kid_over_subsets_has_the_mean_of_the_whole():
    real, fake = features(40, 0.0, 1), features(40, 0.3, 2)
    mean, std, size = kid(real, fake, Protocol(subsets=2000))
    assert size == 20 and std > 0
    assert mean == pytest.approx(100 * direct_mmd(real.numpy(), fake.numpy()), abs=5 * std / 2000**0.5)
    assert (mean, std, size) == kid(real, fake, Protocol(subsets=2000))
    assert mean != kid(real, fake, Protocol(subsets=2000, seed=1))[0]


def test_fid_is_scipy_s():
    real, fake = features(60, 0.0, 1), features(50, 0.3, 2) * 1.3
    means = [f.numpy().mean(0) for f in (real, fake)]
    covariances = [np.cov(f.numpy(), rowvar=False) for f in (real, fake)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert fid(real, fake) == pytest.approx(expected, rel=1e-8)
    assert fid(real, real) == pytest.approx(0, abs=1e-6)


def test_subsets_larger_than_a_set_are_refused():
    with pytest.raises(UserError, match=r"`subset_size=11` .* 10 pictures"):
        kid(features(10, 0, 1), features(12, 0, 2), Protocol(subset_size=11))


def test_attention_rank_is_spearman_s(evaluator):
    x, truth = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    heatmap = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    change = (x - truth).abs().mean(1).unflatten(1, (8, 4)).unflatten(3, (8, 4)).mean((2, 4))
    expected = [scipy.stats.spearmanr(h.flatten(), c.flatten()).statistic for h, c in zip(heatmap, change, strict=True)]
    assert attention_rank(heatmap, x, truth).tolist() == pytest.approx(expected, abs=1e-5)
    assert attention_rank(change[:, None], x, truth).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_perceptual_distance_grows_with_the_difference(evaluator):
    x = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert perceptual_distance(evaluator.network, x, x).tolist() == [0, 0]
    near, far = (perceptual_distance(evaluator.network, x, y) for y in (x // 4 * 4, 255 - x))
    assert (near > 0).all() and (far > near).all()


def folder(path, count, seed=0, **options):
    for i in range(count):
        write_picture(path / f"{i}.png", seed + i, **options)
    return path


def test_a_set_against_itself_and_against_another(evaluator, tmp_path, capsys):
    real, other = folder(tmp_path / "real", 8), folder(tmp_path / "other", 8, seed=50)
    (other / "broken.png").write_bytes(b"broken")
    same = evaluate_folders(evaluator, real, real, 64, True, tmp_path / "same")
    assert same["kid_mean"] < 0.5 and same["fid"] < 1e-3
    assert (same["l1"], same["perceptual"]) == (0, 0) and same["ssim"] == pytest.approx(1)
    assert not capsys.readouterr().err
    apart = evaluate_folders(evaluator, real, other, 64, True, tmp_path / "apart")
    assert apart["l1"] > 0.1 and apart["ssim"] < 0.9 and apart["fid"] > 10
    (said,) = capsys.readouterr().err.splitlines()
    assert "broken.png" in said
    written = json.loads((tmp_path / "apart" / "metrics.json").read_text())
    assert written == apart and written["kid_subset_size"] == 4
    assert len(written["protocol"]["feature_weights_sha256"]) == 64
    assert "64 x 64" in written["protocol"]["resize"]
    with Image.open(tmp_path / "apart" / "sheet.png") as sheet:
        assert sheet.height > 700
    for pair in ((real, real / "within"), (real / "within", real)):
        (real / "within").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="would count for both"):
            evaluate_folders(evaluator, *pair, 64, False, tmp_path / "x")
    (real / "7.png").unlink()
    with pytest.raises(UserError, match="no picture named 7"):
        evaluate_folders(evaluator, real, other, 64, True, tmp_path / "x")
    with pytest.raises(UserError, match="at least 4"):
        evaluate_folders(evaluator, folder(tmp_path / "few", 3), other, 64, False, tmp_path / "x")


def test_paired_distances_are_plain_means(evaluator, tmp_path):
    for name, value in (("a", 100), ("b", 151)):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (40, 40), (value,) * 3).save(tmp_path / name / f"{i}.png")
    sets = [Files(sorted((tmp_path / name).iterdir()), 32) for name in "ab"]
    assert paired(evaluator.network, *sets, CPU)["l1"] == pytest.approx(0.2)


def test_a_model_is_measured_both_ways(data, tmp_path):
    system = UGATIT(UGATITConfig(size=32, width=2, blocks=1, light=True))
    system.init_weights()
    save_model(system, tmp_path / "model", 0)
    for name in ("testA", "testB"):
        folder(data / name, 5, seed=ord(name[-1]))
    options = ["--features", "efficientnet-lite0", "--subsets", 5]
    made = run_here("evaluate", tmp_path / "model", data, "--paired", "-o", tmp_path / "out", *options)
    assert made.returncode == 0, made.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for direction in ("a2b", "b2a"):
        row = metrics[direction]
        assert row["pictures"] == {"real": 5, "fake": 5} and row["kid_subset_size"] == 2
        assert row["kid_both_mean"] == pytest.approx((row["kid_mean"] + row["kid_source_mean"]) / 2)
        assert 0 < row["cycle_l1"] < 1 and 0 < row["l1"] < 1 and -1 <= row["attention_rank"] <= 1
        assert len(list((tmp_path / "out" / direction).glob("*.png"))) == 5
    assert "KID x 100" in made.stderr and "579344248a93" in made.stderr and "kid seed: 0" in made.stderr
    again = run_here("evaluate", tmp_path / "model", data, "--paired", "-o", tmp_path / "again", *options)
    assert again.returncode == 0
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == metrics


def test_two_processes_measure_what_one_does(data, tmp_path):
    save_model(tiny_model(), tmp_path / "model", 0)
    for name in ("testA", "testB"):
        folder(data / name, 19, seed=ord(name[-1]))  # more than a batch
    options = [tmp_path / "model", data, "--paired", "--features", "efficientnet-lite0", "--subsets", 5, "-o"]
    alone = run_here("evaluate", *options, tmp_path / "one")
    both = run_torchrun(2, "evaluate", *options, tmp_path / "two")
    assert alone.returncode == both.returncode == 0, both.stderr
    last = max((tmp_path / "one" / "a2b").iterdir()).name
    for part in ("metrics.json", "sheet.png", f"a2b/{last}"):
        assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "two" / part).read_bytes(), part
    assert both.stderr.count("Written to") == 1 and len(list((tmp_path / "two" / "b2a").iterdir())) == 19


def test_tests_are_the_pictures_that_training_holds_out(data):
    files, roots, _ = find_tests(data, 0.1, 0)
    assert {k: len(v) for k, v in files.items()} == {"A": 2, "B": 2} and roots["A"] == data / "testA"
    for name in ("testA", "testB"):
        for file in (data / name).iterdir():
            file.unlink()
        (data / name).rmdir()
    files, roots, _ = find_tests(data, 0.4, 3)
    held_out = find_pictures(data, None, None, 0.4, 3)
    assert files == {"A": held_out.test_a, "B": held_out.test_b} and roots["A"] == data / "trainA"
    assert 0 < len(files["A"]) < 6


def test_inception_without_a_network_or_with_another_file_says_what_to_do(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match="`weights"):
        load_features("inception", None, CPU)
    with pytest.raises(UserError, match="does not exist"):
        load_features("inception", tmp_path / "none.pth", CPU)
    (tmp_path / "x.pth").write_bytes(b"x")
    with pytest.raises(UserError, match="is no file of PyTorch"):
        load_features("inception", tmp_path / "x.pth", CPU)
    torch.save({"a": torch.zeros(1)}, tmp_path / "y.pth")
    with pytest.raises(UserError, match="does not fit"):
        load_features("inception", tmp_path / "y.pth", CPU)
    with pytest.raises(UserError, match="leave it out"):
        load_features("efficientnet-lite0", tmp_path / "y.pth", CPU)


def test_inception_with_weights_from_a_file(monkeypatch, tmp_path):
    """Random weights: what is tested is that a file in torch-fidelity's form is loaded and run."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: pytest.fail("asked")
    )
    states = []
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, _: states.append(self.state_dict()))
        torch.save({}, tmp_path / "empty.pth")
        FeatureExtractorInceptionV3("x", ["2048"], str(tmp_path / "empty.pth"))
    torch.save(states[0], tmp_path / "inception.pth")
    network = load_features("inception", tmp_path / "inception.pth", CPU)
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert network.pool(x).shape == (2, 2048)
    assert perceptual_distance(network, x, x).tolist() == [0, 0]


@pytest.mark.parametrize(
    "arguments, names",
    [
        ([], "MODEL and DATA"),
        (["--real", "{tmp}"], "--fake"),
        (["{tmp}/model", "{tmp}", "--real", "{tmp}", "--fake", "{tmp}"], "MODEL and DATA"),
        (["--real", "{tmp}/none", "--fake", "{tmp}", "--features", "efficientnet-lite0"], "--real"),
        (["--real", "{tmp}", "--fake", "{tmp}", "--size", "5"], "--size"),
        (["model", "data", "--size", "64"], "--size is for --real and --fake, a model has its own: leave it out"),
        (["model", "data", "--range", "0", "1"], "--range is for --real and --fake, a model has its own: leave it out"),
        (["--real", "{tmp}", "--fake", "{tmp}", "--subsets", "1"], "--subsets"),
        (["--real", "{tmp}", "--fake", "{tmp}", "--features", "vgg"], "features"),
        (["--real", "{tmp}", "--fake", "{tmp}", "--features", "efficientnet-lite0"], "usable pictures"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, names, tmp_path):
    made = run_here("evaluate", *[a.format(tmp=tmp_path) for a in arguments])
    assert made.returncode == 2
    assert names in made.stderr + made.stdout and "Traceback" not in made.stderr


def test_cats_are_nearer_to_cats_than_to_dogs(shared, evaluator, tmp_path):
    cats, dogs = (sorted((shared / "data" / "cat2dog" / f"train{side}").iterdir()) for side in "AB")
    some, others, strangers = (evaluator.extract(Files(files, 256)) for files in (cats[::4], cats[2::4], dogs[1::2]))
    halves, across = evaluator.compare(some, others), evaluator.compare(some, strangers)
    assert abs(halves["kid_mean"]) < 2 and across["kid_mean"] > 20
    assert halves["fid"] < across["fid"] / 2


def test_attention_maps_are_no_translations(tmp_path, capsys):
    names = ["a.png", "a.attention.png", "b.jpg", "b.jpg.attention.png", "c.attention.png", "d.png", "e.png"]
    for i, name in enumerate(names):
        write_picture(tmp_path / name, i)
    found = usable(tmp_path, "--fake")
    assert [file.name for file in found] == ["a.png", "b.jpg", "c.attention.png", "d.png", "e.png"]
    assert "left out: 2 attention maps" in capsys.readouterr().err


def test_nothing_of_another_model_s_evaluation_stays(evaluator, tmp_path):
    tests = {side: [write_picture(tmp_path / side / f"{i}.png", i) for i in range(4)] for side in "AB"}
    write_picture(tmp_path / "out" / "b2a" / "00000-0.png", 1)
    made = evaluate_model(evaluator, Translator(tiny_model("cartoongan"), "cpu"), tests, None, tmp_path / "out")
    assert "b2a" not in made and not (tmp_path / "out" / "b2a").exists()


def test_translations_of_an_earlier_evaluation_go(tmp_path):
    translator = Translator(tiny_model(light=True), "cpu")
    files = [write_picture(tmp_path / f"{i}.png", i) for i in range(3)]
    for count in (3, 2):
        write_translations(translator, files[:count], "a2b", None, tmp_path / "out")
        assert len(list((tmp_path / "out").iterdir())) == count


def test_counterparts_are_those_of_the_same_whole_name_first(tmp_path):
    fake, truth = ([tmp_path / side / name for name in ("cat.jpg", "cat.png", "s.001", "s.002")] for side in "ab")
    assert match(fake, tmp_path / "a", truth, tmp_path / "b") == truth
    assert match([tmp_path / "a" / "dog.png"], tmp_path / "a", [tmp_path / "b" / "dog.jpg"], tmp_path / "b")
    with pytest.raises(UserError, match=r"cat.jpg and cat.png are both called like cat.webp: rename one"):
        match([tmp_path / "a" / "cat.webp"], tmp_path / "a", truth, tmp_path / "b")


def test_what_cannot_be_measured_is_told_before_the_work(tmp_path, monkeypatch):
    for side in "ab":
        for number in range(4):
            write_picture(tmp_path / side / f"{number}.png", number)
    (tmp_path / "b" / "3.png").rename(tmp_path / "b" / "other.png")
    evaluator = Evaluator.__new__(Evaluator)
    evaluator.protocol = Protocol()
    for options, told in (
        ({"pairs": True}, "no picture named 3, the counterpart"),
        ({"pairs": False, "size": 9}, "`subset_size=9` is more than the 4 pictures"),
    ):
        evaluator.protocol = Protocol(subset_size=options.pop("size", None))
        with pytest.raises(UserError, match=told):
            evaluate_folders(evaluator, tmp_path / "b", tmp_path / "a", 32, out=tmp_path / "out", **options)


def test_results_among_the_test_pictures_are_refused(data, tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    options = "--features", "efficientnet-lite0", "-o", data / "testA"
    done = run_here("evaluate", tmp_path / "model", data, *options)
    assert done.returncode == 2 and "where results would count as pictures: give another -o" in done.stderr


def test_folders_of_several_kinds_are_refused(tmp_path):
    """What the CycleGAN toolkit writes beside each other, and what `ugatit evaluate` does."""
    for i in range(LEAST):
        for kind in ("real_A", "fake_B", "rec_A"):
            write_picture(tmp_path / "images" / f"{i}_{kind}.png", i)
        write_picture(tmp_path / "out" / "a2b" / f"{i:05d}-{i}.png", i)
        write_picture(tmp_path / "one" / f"{i}_fake_B.png", i)
    (tmp_path / "out" / "metrics.json").write_text("{}")
    with pytest.raises(
        UserError, match="several kinds, whose names end with _fake_B, _real_A, _rec_A: put those of one"
    ):
        usable(tmp_path / "images", "`fake`")
    with pytest.raises(UserError, match=r"is what ugatit evaluate wrote: give .*a2b, the translations of one way"):
        usable(tmp_path / "out", "`fake`")
    assert len(usable(tmp_path / "one", "`fake`")) == LEAST


def test_counterparts_are_found_behind_numbers_and_before_the_toolkit_s_endings():
    fake, truth = Path("fake"), Path("truth")
    names = ["00003-cat.png", "dog_fake_B.png", "cow.jpg", "00004-0.png", "00007-x.png"]
    pictures = [truth / name for name in ("cat.png", "dog.png", "cow.png", "0.png", "00007-x.png", "x.png")]
    found = match([fake / name for name in names], fake, pictures, truth)
    assert [file.name for file in found] == ["cat.png", "dog.png", "cow.png", "0.png", "00007-x.png"]
    with pytest.raises(UserError, match="no picture named 00001-bird, the counterpart"):
        match([fake / "00001-bird.png"], fake, pictures, truth)


def test_accents_written_in_two_ways_are_one_name():
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    apart = unicodedata.normalize("NFD", name)
    assert apart != name and match([Path("f") / name], Path("f"), [Path("t") / apart], Path("t")) == [Path("t") / apart]


def test_a_range_is_for_the_folder_that_needs_one(evaluator, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        values = rng.integers(0, 256, (32, 32), np.uint8)
        (tmp_path / "real").mkdir(exist_ok=True)
        (tmp_path / "fake").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "real" / f"{i}.png")
        Image.fromarray(values.astype(np.float32) / 255).save(tmp_path / "fake" / f"{i}.tif")
    made = evaluate_folders(evaluator, tmp_path / "real", tmp_path / "fake", 32, True, tmp_path / "out", range=(0, 1))
    assert made["l1"] == pytest.approx(0, abs=1e-6), "the same pictures"
    with pytest.raises(UserError, match="`range` is for pictures of more than 8 bits, of which neither folder has one"):
        evaluate_folders(evaluator, tmp_path / "real", tmp_path / "real", 32, False, tmp_path / "out", range=(0, 1))


def test_a_model_away_from_its_run_is_told_to_be_measured_on_what_it_may_have_seen(tmp_path, monkeypatch, capsys):
    for name, value in (("Evaluator", Mock()), ("evaluate_model", lambda *_: {}), ("add_figures", lambda *_: False)):
        monkeypatch.setattr(command, name, value)
    save_model(tiny_model(), tmp_path / "run" / "model", step=0)
    shutil.copytree(tmp_path / "run" / "model", tmp_path / "model")
    (tmp_path / "run" / "checkpoints").mkdir()
    for side in "AB":
        for i in range(12):
            write_picture(tmp_path / "data" / f"train{side}" / f"{i}.png", i + 50 * (side == "B"))

    def told(model) -> bool:
        command.measured(
            command.EvaluateConfig(Protocol(), str(tmp_path / model), tmp_path / "data", out=tmp_path / "out")
        )
        return "of which the model may have seen some" in " ".join(capsys.readouterr().err.split())

    assert told("model") and not told("run/model")
    for side in "AB":
        shutil.copytree(tmp_path / "data" / f"train{side}", tmp_path / "data" / f"test{side}")
    assert not told("model")


def test_translations_of_others_are_not_replaced(tmp_path):
    """A photograph may be called like one, by its date."""
    for number in range(3):
        write_picture(tmp_path / "a2b" / translation_name(number, Path("ours.jpg")), 1)
    need_own(tmp_path)
    for name in ("holiday.png", "20240101-holiday.png", "00000-holiday.jpg"):
        write_picture(tmp_path / "b2a" / name, 1)
        with pytest.raises(
            UserError, match=rf"b2a has other files \({name}\), which would be lost: give another `out`"
        ):
            need_own(tmp_path)
        (tmp_path / "b2a" / name).unlink()


def test_the_name_of_a_translation_is_one_that_disks_take(tmp_path):
    names = {
        translation_name(number, Path("ö" * 122 + end)) for number, end in ((0, "a.jpg"), (0, "b.jpg"), (1, "a.jpg"))
    }
    assert len(names) == 3 and max(len(name.encode()) for name in names) <= 255
    assert {name[:6] for name in names} == {"00000-", "00001-"} and all(name.endswith(".png") for name in names)


def test_what_no_figure_can_be_made_of_is_said():
    features = torch.rand(8, 5)
    for wrong, why in (
        (Protocol(subsets=0), "`subset_size=4` and `subsets=0`: give 2 or more"),
        (Protocol(subset_size=1), "`subset_size=1`"),
        (Protocol(subset_size=0), "`subset_size=0`"),
        (Protocol(subset_size=9), "is more than the 8 pictures"),
    ):
        with pytest.raises(UserError, match=why):
            kid(features, features, wrong)
    with pytest.raises(UserError, match="The smaller set has 3 pictures, at least 4 are needed"):
        kid(features, features[:3], Protocol())
    for other in (torch.rand(8, 4), features.numpy(), features[0]):
        for figure in (fid, lambda *x: kid(*x, Protocol())):
            with pytest.raises(UserError, match="are no features of one network"):
                figure(features, other)
    with pytest.raises(UserError, match="`features=vgg` is not known: use inception or efficientnet-lite0"):
        load_features("vgg", None, torch.device("cpu"))
