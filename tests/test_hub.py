"""Sharing: a model's card, and models on the hub, against a stand-in of its HTTP interface."""

import errno
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from huggingface_hub import constants

from conftest import write_picture
from hub import TOKEN, Hub, commit_of, hub
from test_train import tiny
from ugatit import Translator
from ugatit.cli import main
from ugatit.io.errors import UserError
from ugatit.training.trainer import train
from ugatit.translation.card import OURS, add_figures


@pytest.fixture(scope="module")
def the_hub():
    with hub() as held:
        yield held


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("shared")
    for i, name in enumerate(("trainA", "trainB", "testA", "testB")):
        write_picture(place / "cats, dogs" / name / "0.png", i)
    return train(tiny(place / "cats, dogs", place / "my run", steps=2, preview_every=2))


@pytest.fixture
def online(the_hub, tmp_path, monkeypatch) -> Hub:
    """The stand-in where the hub would be, and nothing on this machine of it."""
    point_to(the_hub.address, tmp_path / "home", monkeypatch)
    return the_hub


def point_to(address: str, home: Path, monkeypatch) -> None:
    """What HF_ENDPOINT and HF_HOME do, which the hub's library reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_run_s_model_has_a_card_without_places_of_the_machine(model):
    text = (model / "README.md").read_text()
    head, body = text.split("---\n")[1:3]
    meta = yaml.safe_load(head)
    assert meta["library_name"] == "ugatit" and meta["pipeline_tag"] == "image-to-image"
    assert meta["license"] == "unknown" and meta["datasets"] == ["cats-dogs"]
    assert "# my run" in body and "2 steps on cats, dogs: 1 + 1 pictures" in body and "| cycle-weight | 10.0 |" in body
    assert str(model.parents[1]) not in text
    assert (model / "sheet.png").read_bytes() == (model.parent / "previews" / "step-00000002.png").read_bytes()
    code = [line.strip() for line in body.split("## Use")[1].splitlines() if line.startswith("    ")]
    assert len(code) == 4 and code[3].startswith("ugatit translate USER/my-run ")


def test_the_three_lines_of_the_card_work(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "picture.jpg", 1)
    lines = [x.strip() for x in (model / "README.md").read_text().split("## Use")[1].splitlines() if x[:4] == "    "]
    exec("\n".join(lines[:3]).replace("USER/my-run", str(model)))
    assert (tmp_path / "translated.png").is_file()


def test_measured_figures_come_into_the_card_and_go_with_other_weights(model, tmp_path):
    figures = {"kid_mean": 3.411, "kid_std": 0.2, "fid": 55.5, "pictures": {"real": 81, "fake": 80}}
    metrics = {"protocol": {"features": "f", "resize": "r", "ugatit": "0"}, "a2b": figures}
    before = (model / "README.md").read_text()
    assert add_figures(model, metrics)
    text = (model / "README.md").read_text()
    assert "| A to B | 3.41 ± 0.20 | 55.5 | 81 |" in text and "Not measured" not in text
    assert text.split("## Training")[1] == before.split("## Training")[1]
    (tmp_path / "README.md").write_text(text.replace(OURS, "Mine."))
    assert not add_figures(tmp_path, metrics) and "Mine." in (tmp_path / "README.md").read_text()
    (model / "README.md").write_text(before)


def test_a_card_that_its_owner_took_over_is_left_alone(data, tmp_path):
    run = tmp_path / "run"
    train(tiny(data, run, steps=2))
    (run / "model" / "README.md").write_text("my own words")
    train(tiny(data, run, steps=4), resume=True)
    assert (run / "model" / "README.md").read_text() == "my own words"


def test_a_model_goes_to_the_hub_with_its_card_and_comes_back(online, model, tmp_path):
    translator = Translator.load(model)
    assert translator.push_to_hub("me/cats", token=TOKEN) == f"{online.address}/me/cats"
    translator.push_to_hub("me/cats", token=TOKEN, revision="v1")
    sent = online.repos["models/me/cats"]
    assert set(sent) == {"main", "v1"}
    assert set(sent["main"]) == {"README.md", "config.json", "sheet.png", "translator.safetensors"}
    mine, theirs = (model / "README.md").read_text(), sent["v1"]["README.md"].decode()
    assert mine.replace(f"{OURS}\n\n", "").replace("USER/my-run", "me/cats") == theirs and "me/cats" in theirs
    write_picture(tmp_path / "p.png", 3)
    for number, name in enumerate(("me/cats", "me/cats@v1", f"me/cats@{commit_of('v1')}")):
        out = tmp_path / f"out{number}"
        assert main(["translate", name, str(tmp_path / "p.png"), "-o", str(out)]) == 0
        assert (out / "p.png").is_file()
    assert commit_of("v1") in str(Translator.from_pretrained("me/cats", revision="v1").folder)


def test_a_model_without_a_card_gets_one_that_names_it(online, model, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("config.json", "translator.safetensors"):
        shutil.copyfile(model / name, plain / name)
    Translator.load(plain).push_to_hub("me/plain", token=TOKEN, private=True)
    assert "models/me/plain" in online.private
    card = online.repos["models/me/plain"]["main"]["README.md"].decode()
    assert "# plain" in card and "How it was trained is not known here." in card


def test_what_shall_be_private_is_not_sent_where_all_can_see_it(online, model):
    online.repos["models/me/open"] = {"main": {}}
    with pytest.raises(UserError, match="me/open is on the hub and public: make it private there"):
        Translator.load(model).push_to_hub("me/open", token=TOKEN, private=True)
    assert online.repos["models/me/open"] == {"main": {}}


def test_what_shall_be_public_is_not_sent_where_nobody_sees_it(online, model):
    online.repos["models/me/closed"] = {"main": {}}
    online.private.add("models/me/closed")
    with pytest.raises(UserError, match="me/closed is on the hub and private: make it public there"):
        Translator.load(model).push_to_hub("me/closed", token=TOKEN, private=False)
    assert online.repos["models/me/closed"] == {"main": {}}


def test_its_owner_s_card_stays_and_the_model_before_goes(online, model, tmp_path):
    before = {"README.md": b"license: cc-by-4.0", "training.safetensors": b"old", "sheet.png": b"old", "mine.txt": b"?"}
    online.repos["models/me/kept"] = {"main": before}
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("config.json", "translator.safetensors"):
        shutil.copyfile(model / name, plain / name)
    Translator.load(plain).push_to_hub("me/kept", token=TOKEN)
    there = online.repos["models/me/kept"]["main"]
    assert there.keys() == {"README.md", "mine.txt", "config.json", "translator.safetensors"}
    assert there["README.md"] == before["README.md"]
    Translator.load(model).push_to_hub("me/kept", token=TOKEN)
    assert b"cc-by" not in there["README.md"], "a card of the model's own replaces it"


def test_only_the_model_s_own_files_are_downloaded(online, model):
    files = {file.name: file.read_bytes() for file in model.iterdir()}
    others = {"run.py": b"!", "model.bin": b"!", "sub/config.json": b"{}", "large.safetensors": b"!"}
    online.repos["models/me/more"] = {"main": files | others}
    online.asked.clear()
    Translator.load("me/more")
    assert set(online.asked) == {"config.json", "translator.safetensors", "training.safetensors"}


def test_a_private_model_needs_a_token(online, model, tmp_path, monkeypatch, capsys):
    online.repos["models/me/secret"] = {"main": {file.name: file.read_bytes() for file in model.iterdir()}}
    online.private.add("models/me/secret")
    write_picture(tmp_path / "p.png", 3)
    command = ["translate", "me/secret", str(tmp_path / "p.png"), "-o", str(tmp_path / "out")]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "private" in told and "hf auth login" in told
    with pytest.raises(UserError, match="private"):
        Translator.load("me/secret", token="hf_wrong")
    Translator.load("me/secret", token=TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(command) == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("me/known@v9", "has no revision v9): give a branch"),
        ("me/nothing", "there is no such model, or it is private"),
        ("me/a/b", "does not exist"),
        ("me/known@", "does not exist"),
    ],
)
def test_what_the_hub_has_not_is_said_in_a_sentence(online, name, told):
    online.repos["models/me/known"] = {"main": {}}
    with pytest.raises(UserError, match=re.escape(told)):
        Translator.load(name)
    with pytest.raises(UserError, match="`revision=v1` is of a model on the hub, and cat2dog is here: leave it out"):
        Translator.load("cat2dog", revision="v1")


def test_a_hub_that_refuses_or_is_away_is_said_in_a_sentence(online, model, tmp_path, monkeypatch):
    translator = Translator.load(model)
    with pytest.raises(UserError, match=r"me/other cannot be uploaded to the hub .* hf auth login"):
        translator.push_to_hub("me/other", token="hf_wrong")
    point_to("http://127.0.0.1:9", tmp_path / "other home", monkeypatch)
    with pytest.raises(UserError, match="me/other cannot be uploaded to the hub"):
        translator.push_to_hub("me/other", token=TOKEN)
    with pytest.raises(UserError, match="cannot be had from the hub"):
        Translator.load("me/away")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Exception("peer closed connection"), r"the download ended early, Exception\): start again"),
        (OSError(errno.ENOSPC, "No space left on device"), r"the disk is full\): free some space"),
    ],
)
def test_a_download_that_ends_early_says_what_to_do(error, told, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=error))
    with pytest.raises(UserError, match=told):
        Translator.load("me/model")


def test_what_cannot_be_saved_makes_no_empty_model_on_the_hub(online, model, monkeypatch):
    def refuse(*_, **__):
        raise UserError("This has no weights.")

    translator = Translator.load(model)
    monkeypatch.setattr(translator, "save", refuse)
    with pytest.raises(UserError, match="no weights"):
        translator.push_to_hub("me/empty", token=TOKEN)
    assert "models/me/empty" not in online.repos


def test_a_revision_is_named_once():
    with pytest.raises(UserError, match="names one already"):
        Translator.load("me/cats@v1", revision="v2")
