"""Following a run in TensorBoard or Weights & Biases, beside what its folder keeps anyway."""

import secrets
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker, WandBTracker
from torch import Tensor

from ugatit.io.errors import UserError, package
from ugatit.io.files import write_text
from ugatit.io.sheet import as_bytes, shown


def need_trackers(names: tuple[str, ...]) -> None:
    """Raises UserError if what a run shall be followed in is not installed."""
    for name in names:
        package(name, "track")


def start_tracking(accelerator: Accelerator, names: tuple[str, ...], run: Path, step: int, settings: Any):
    """Let a run be followed.

    Args:
        accelerator: of the run, whose ``log`` then tells all of them.
        names: of what it is followed in.
        run: its folder, which ``tensorboard/`` or ``wandb/`` is written in.
        step: after which it goes on.
        settings: the run's, as JSON has them.

    Raises:
        UserError: Weights & Biases cannot be reached.
        OSError: the folder cannot be written.
    """
    if not accelerator.is_main_process:
        return
    trackers: list[Any] = []
    if "tensorboard" in names:
        trackers.append(TensorBoardTracker("tensorboard", run, purge_step=step + 1))
    if "wandb" in names:
        trackers.append(
            WandBTracker("ugatit", dir=run, name=run.name, id=wandb_id(run), resume="allow", config=settings)
        )
    accelerator.log_with = trackers
    try:
        accelerator.init_trackers("ugatit")
    except OSError:
        raise
    except Exception as error:  # wandb's exceptions have no common class below this
        raise UserError(
            f"`track=wandb`: Weights & Biases cannot be used ({' '.join(str(error).split()):.200}): run wandb login, "
            "or set WANDB_MODE=offline."
        ) from None


def wandb_id(run: Path) -> str:
    """What Weights & Biases calls a run by, kept in the run's folder so that a resumed one goes on there."""
    path = run / "wandb" / "id"
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text("utf-8")


def track_pictures(accelerator: Accelerator, columns: dict[str, Tensor], step: int) -> None:
    """Show a preview sheet's columns, each N x channels x H x W in [-1, 1], where the run is followed."""
    images = {name: as_bytes(shown(x)).permute(0, 2, 3, 1).cpu().numpy() for name, x in columns.items()}
    for tracker in accelerator.trackers:
        form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        tracker.log_images(images, step=step, **form)
