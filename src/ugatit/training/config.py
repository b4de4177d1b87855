"""What a run is trained with: its settings, typed and checked, and the record of them in the run's folder."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from pydantic import Field, TypeAdapter, ValidationError

from ugatit.io.errors import UserError, first_problem, words_of
from ugatit.io.files import write_json, writing
from ugatit.io.processes import this_process
from ugatit.systems import REGISTRY
from ugatit.systems.base import Recipe

ModelConfig = TypeVar("ModelConfig")
RUN_CANNOT = "give another `out`, or resume it where it can be written"
# Another seed or share would hold out pictures that were trained on; another start is one of another run; and the
# weights of one decoder's norm fit into another's, and would mean something else there.
FIXED = ("system", "preset", "seed", "holdout", "start", "decoder_norm")


@dataclass(frozen=True)
class TrainConfig(Generic[ModelConfig]):
    """Everything that a run depends on."""

    model: ModelConfig
    recipe: Recipe
    data: tyro.conf.Positional[Path | None] = None
    """The folder with trainA and trainB inside, and perhaps testA and testB; a zip or tar file of such a folder;
    hub:user/name, a data set of the Hugging Face hub; or paper:horse2zebra, one of the paper's. DATA#cats,dogs tells
    what A and B are called in what is no folder."""
    source: Path | None = None
    """A folder of domain A's pictures, instead of DATA."""
    target: Path | None = None
    """A folder of domain B's pictures, instead of DATA."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The folder for everything that the run makes. If it is not given, runs/DATA-PRESET or runs/DATA-SYSTEM-PRESET."""
    start: Path | None = None
    """A model whose weights a new run begins with wherever they fit: a folder of your own, an imported one, or one that
    was trained on smaller pictures; one of the package's; or one of the hub, like user/name. What begins afresh is
    said."""
    system: str = "ugatit"
    """The method to train."""
    preset: str = "paper"
    """The preset that the defaults of the other options come from."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share of a domain's pictures that is kept for testing where it has no test folder, about; each is chosen by
    its name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The random seed of weights, order, augmentation and noise."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """The mixed precision: bf16 or fp16. no computes in float32 throughout."""
    tf32: bool = False
    """On NVIDIA cards from Ampere on, convolutions and matrix products in float32 round their factors to TF32's 10 bits
    of 23, which is faster."""
    fast: bool = True
    """Faster forms of the paper's formulas are used where they suit. With --no-fast all is computed as the paper writes
    it."""
    compile: bool = False
    """torch.compile makes its own fast forms of the paper's formulas, instead of those that come with the package; that
    takes minutes at the start, and pays on cards."""
    graph: bool = True
    """On an NVIDIA card the kernels of a step are recorded once, as a CUDA graph, and then launched together, which
    saves most of a small step's time. Several processes, and methods that keep past pictures, do without."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """The number of processes that decode pictures. If it is not given, 4 on CUDA and 1 on the CPU. With 0 the training
    process decodes."""
    cache: Annotated[float, Field(ge=0)] = 0
    """How many GiB of pictures, at the size that training needs, are kept in the run's folder until it is done, so that
    all processes decode them only once."""
    log_every: Annotated[int, Field(ge=1)] = 50
    """Metrics are written every so many steps."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """What the run can be followed in, beside its folder: tensorboard, wandb (Weights & Biases), or both."""
    preview_every: Annotated[int, Field(ge=0)] = 1000
    """A preview sheet is written every so many steps. 0 writes none."""
    preview_pictures: Annotated[int, Field(ge=1)] = 4
    """The number of test pictures of each domain on a preview sheet."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """KID of the translated test pictures is measured every so many steps, and the best model kept in RUN/best, beside
    the last in RUN/model. It needs the extra offline. 0 measures nothing."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000
    """A checkpoint is written every so many steps."""
    keep_last: Annotated[int, Field(ge=1)] = 2
    """The number of newest checkpoints that are kept."""
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Checkpoints at multiples of so many steps are kept for good. 0 keeps none."""


def run_adapter(system: str) -> TypeAdapter:
    """Reads, writes and checks a `TrainConfig` of the named system.

    Raises:
        UserError: there is no such system.
    """
    if system not in REGISTRY:
        raise UserError(f"`system={system}` is not known: choose one of {', '.join(REGISTRY)}.")
    return TypeAdapter(TrainConfig[REGISTRY[system].Config])  # type: ignore[misc,arg-type]


def preset_config(system: str, preset: str) -> TrainConfig:
    """The defaults of a preset.

    Raises:
        UserError: there is no such system or preset.
    """
    run_adapter(system)
    presets = REGISTRY[system].presets
    if preset not in presets:
        raise UserError(f"`preset={preset}` is not known: {system} has {', '.join(presets)}.")
    chosen = presets[preset]
    return TrainConfig(model=chosen.model, recipe=chosen.recipe, system=system, preset=preset)


def check_range(value: Any, adapter: TypeAdapter | None = None) -> Any:
    """Check every field's range.

    Args:
        value: a dataclass.
        adapter: of its type, where that has parts that only a caller knows.

    Returns:
        The same with every value of its field's type.

    Raises:
        UserError: one is out of range; the message names the option.
    """
    for name, given in settings_in(asdict(value)):
        if isinstance(given, float) and not math.isfinite(given):
            raise UserError(f"`{name}` = {given}: give a finite number.")
    adapter = adapter or TypeAdapter(type(value))
    try:
        return adapter.validate_python(adapter.dump_python(value))
    except ValidationError as error:
        path, problem = first_problem(error).split(" = ", 1)
        if error.errors()[0]["type"] == "too_short":
            raise UserError(f"`{setting_of(path)}` has no value: give one or more, or leave it out.") from None
        raise UserError(f"`{setting_of(path)}` = {problem}: choose another value.") from None


def settings_in(fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, those of the dataclasses within among them."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from settings_in(value)
        else:
            yield name, value


def setting_of(path: str) -> str:
    """The name of a field, such as "model.adv_weight" or, in a tuple, "seeds.1"."""
    names = [part for part in path.split(".") if part.isidentifier()]  # pydantic also names numbers and kinds
    return names[-1]


# The record: RUN/config.json is the run as it is now, and its "history" what was changed when it was resumed


def read_run(run: Path) -> TrainConfig:
    """The configuration of an existing run.

    Raises:
        UserError: the folder holds no run, or its configuration is damaged.
    """
    if run.is_file():
        raise UserError(f"{run} is a file: give the folder of a run.")
    path = run / "config.json"
    try:
        record = json.loads(path.read_text("utf-8-sig"))  # as some editors write it
        if "config" in record:
            whose = f"the run's, {run.parent}" if (run.parent / "checkpoints").is_dir() else "the folder of a run"
            raise UserError(f"{run} is a model's folder, which is not resumed: give {whose}.")
        record.setdefault("track", ["tensorboard"])  # as every run was before it could be chosen
        config = run_adapter(record["system"]).validate_python(record)
        known = {"history", *(name for name, _ in settings_in(asdict(config)))}
        if unknown := [name for name, _ in settings_in(record) if name not in known]:
            raise UserError(f"{path} has unknown settings ({', '.join(unknown)}): take them out, or update ugatit.")
        return config
    except FileNotFoundError:
        where = ", which must be on every machine" if this_process().processes > 1 else ""
        raise UserError(
            f"{run} holds no run to resume, it has no config.json: give the folder that ugatit train wrote{where}."
        ) from None
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({first_problem(error)}): restore it to resume the run.") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({words_of(error)}): restore it to resume the run.") from None


def write_run(config: TrainConfig, run: Path, change: dict[str, Any] | None = None) -> None:
    """Write the run's configuration.

    Args:
        config: as the run goes on.
        run: its folder.
        change: to be added to its history.

    Raises:
        UserError: the folder cannot be written.
    """
    path = run / "config.json"
    record = run_adapter(config.system).dump_python(config, mode="json")
    history = json.loads(path.read_text("utf-8")).get("history", []) if path.exists() else []
    record["history"] = [*history, change] if change else history
    with writing(run, RUN_CANNOT):
        write_json(path, record, indent=2)


def changed_settings(before: TrainConfig, now: TrainConfig) -> dict[str, list[Any]]:
    """What is not as it was, by the option's name: the old value and the new; the run's own folder does not count.

    Raises:
        UserError: it is something that cannot change within a run.
    """
    for name in FIXED:
        had, given = (getattr(config, name, getattr(config.model, name, None)) for config in (before, now))
        if had != given:
            raise UserError(
                f"`{name}` cannot be changed by `resume`, the run has {had}: leave it out, or start another run."
            )
    old, new = (settings_of(config) for config in (before, now))
    return {name: [old[name], value] for name, value in new.items() if value != old[name]}


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """All settings by the names of their options, as JSON has them; without the run's folder, and what is no option."""
    record = run_adapter(config.system).dump_python(config, mode="json")
    parts = record.pop("model"), record.pop("recipe"), record
    left = "out", "faces_a", "faces_b"
    return {name.replace("_", "-"): value for part in parts for name, value in part.items() if name not in left}


def shared_settings(config: TrainConfig) -> dict[str, Any]:
    """What a model's card tells of the settings, by the names of their options: without places on this machine."""
    chosen = {name: getattr(config, name) for name in ("system", "preset", "seed", "precision")}
    chosen |= asdict(config.model) | asdict(config.recipe)
    left = "faces_a", "faces_b"
    return {
        name.replace("_", "-"): list(value) if isinstance(value, tuple) else value
        for name, value in chosen.items()
        if name not in left and value is not None and not isinstance(value, Path)
    }
