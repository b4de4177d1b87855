"""What is fetched from the Hugging Face hub: models and data sets, and why one cannot be had."""

from pathlib import Path
from typing import Literal

from ugatit.io.errors import UserError
from ugatit.io.files import is_full

LOG_IN = "run hf auth login, or set HF_TOKEN"


def fetched(
    name: str,
    what: Literal["model", "data set"],
    files: list[str],
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """The folder on this machine of something on the hub, downloaded if it is not there yet.

    Args:
        name: like "user/name".
        what: it is.
        files: patterns of those to take.
        revision: a branch, tag or commit; the main branch if not given.
        token: for what is private; that of this machine's log-in if not given.

    Raises:
        UserError: it cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    kind = "model" if what == "model" else "dataset"
    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision, token=token, allow_patterns=files))
    except GatedRepoError:
        reason, advice = "its owner must let you", f"ask on its page, then {LOG_IN}"
    except RevisionNotFoundError:
        reason, advice = f"it has no revision {revision}", "give a branch, tag or commit that it has"
    except RepositoryNotFoundError:
        reason = f"there is no such {what}, or it is private"
        advice = f"check the name, or, for a private one, {LOG_IN}"
    except LocalEntryNotFoundError:
        reason, advice = "it is not on this machine, and the hub cannot be reached", "check the path, or the connection"
    except (HfHubHTTPError, HFValidationError) as error:
        reason, advice = type(error).__name__, "give a folder here, or a hub id like user/name"
    except Exception as error:  # the hub's library and its HTTP client have no common class
        full = is_full(error)
        reason = "the disk is full" if full else f"the download ended early, {type(error).__name__}"
        advice = "free some space and start again" if full else "start again, it goes on where it ended"
    here = "is no folder here and " if what == "model" else ""
    raise UserError(f"The {what} {name} {here}cannot be had from the hub ({reason}): {advice}.")
