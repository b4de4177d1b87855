"""Models where they lie: in a folder, in the package, or on the Hugging Face hub."""

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi

from ugatit.io.errors import UserError, on_one_line
from ugatit.io.hub import LOG_IN, fetched
from ugatit.systems.base import System
from ugatit.translation.card import CARD_FILES, card_text, shared_card

# By whole names: a pattern would match in sub-folders too.
MODEL_FILES = ["config.json", "translator.safetensors", "training.safetensors"]
SHIPPED = Path(__file__).parents[1] / "models"  # those that come with the package, loaded by their names
PHOTOS = SHIPPED.with_name("photos")  # made by tools/make_photos.py, a folder for each of these models
HUB_ID = re.compile(r"(?P<name>[^/@]+/[^/@]+)(@(?P<revision>[^@]+))?")


def find_model(path_or_hub_id: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The model folder of that path; that comes with the package; or of that hub id, downloaded (JSON and safetensors
    only).

    Args:
        path_or_hub_id: where it is; a hub id, "user/name", may name its revision, "user/name@v1".
        revision: a branch, tag or commit of the hub's; the main branch if not given.
        token: of the hub, for private models; that of this machine's log-in if not given.

    Raises:
        UserError: there is no such model.
    """
    given, path = str(path_or_hub_id), Path(path_or_hub_id).expanduser()
    if not given:
        raise UserError("No model was named: give a folder like RUN/model, or a hub id like user/name.")
    if path.is_file() and path.suffix in (".json", ".safetensors", ".onnx"):
        raise UserError(f"{path} is a file, and a model is a folder: give {path.parent}.")
    if path.is_file():
        raise UserError(f"{path} is a file, and a model is a folder: try ugatit import {path} -o MODEL first.")
    if revision and (path.exists() or is_shipped(given)):
        raise UserError(f"`revision={revision}` is of a model on the hub, and {given} is here: leave it out.")
    if (path / "model" / "config.json").is_file():  # a run's folder
        return path / "model"
    if is_shipped(given):
        return SHIPPED / path
    found = HUB_ID.fullmatch(given)
    if path.is_dir():
        return path
    if not found or path.is_absolute():
        names = " or ".join(sorted(folder.name for folder in SHIPPED.iterdir()))
        raise UserError(
            f"The model {given} does not exist: give a folder like RUN/model, {names}, which come "
            "with the package, or a hub id like user/name."
        )
    if revision and found["revision"]:
        raise UserError(f"`revision={revision}`: {given} names one already: leave one of them out.")
    return fetched(found["name"], "model", MODEL_FILES, found["revision"] or revision, token)


def save_with_card(save: Callable[[Path], None], system: System, folder: Path | None, name: str, place: Path) -> None:
    """Write what translation needs of a model, with its card and its sheet.

    Args:
        save: writes the former into a folder.
        system: the model.
        folder: where it was loaded from, if it has a card and a sheet; without a card it gets one.
        name: what it is called.
        place: the folder to write.
    """
    save(place)
    for file in CARD_FILES:
        if folder and (folder / file).is_file():
            shutil.copyfile(folder / file, place / file)
    if not (place / "README.md").exists():
        (place / "README.md").write_text(card_text(system, name), "utf-8")


def push(
    save: Callable[[Path], None],
    system: System,
    folder: Path | None,
    repo_id: str,
    private: bool | None,
    token: str | None,
    revision: str | None,
) -> str:
    """Upload what translation needs of a model to the hub, with its card.

    Args:
        save: writes that into a folder.
        system: the model.
        folder: where it was loaded from, if it has a card and a sheet.
        repo_id: "user/name".
        private: whether others may not see it; as its owner's repositories are if None.
        token: of the hub.
        revision: the branch that it is uploaded to, made if there is none; the main branch if not given.

    Returns:
        Its address.

    Raises:
        UserError: the hub refuses, or what is to be private is there and is public, or the other way about.
    """
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        save_with_card(save, system, folder, repo_id.split("/")[-1], place)
        card = place / "README.md"
        card.write_text(shared_card(card.read_text("utf-8", "replace"), repo_id), "utf-8")
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            if private is not None and private != (found := bool(api.repo_info(repo_id).private)):
                has, wanted = ("private", "public") if found else ("public", "private")
                raise UserError(f"{repo_id} is on the hub and {has}: make it {wanted} there, or give another name.")
            if revision:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            if not (folder and (folder / "README.md").is_file()) and api.file_exists(
                repo_id, "README.md", revision=revision
            ):
                card.unlink()  # its owner's says more
            api.upload_folder(
                repo_id=repo_id,
                folder_path=place,
                revision=revision,
                commit_message="Upload a ugatit model",
                delete_patterns=["training.safetensors", "sheet.png"],  # of the model before
            )
        except UserError:
            raise
        except Exception as error:  # the hub's library and its HTTP client have no common class
            raise UserError(f"{repo_id} cannot be uploaded to the hub ({on_one_line(error)}): {LOG_IN}.") from None
    return str(address)


def model_name(path_or_hub_id: str | Path) -> str:
    """What a model is called: the last part of its path that says something."""
    path = Path(path_or_hub_id).resolve()
    return path.parent.name if path.name == "model" else path.name


def is_shipped(path_or_hub_id: str | Path) -> bool:
    """Whether a model of the package is meant by its name; a person's own that is called like it goes first."""
    path = Path(path_or_hub_id)
    own = (path / "config.json").exists() or (path / "model" / "config.json").exists()
    return len(path.parts) == 1 and (SHIPPED / path).is_dir() and not own


def photographs(path_or_hub_id: str | Path) -> list[Path]:
    """Pictures that come with the package for one of its models; none for others."""
    return sorted((PHOTOS / path_or_hub_id).iterdir()) if is_shipped(path_or_hub_id) else []
