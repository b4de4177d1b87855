"""Print a script that lets bash, zsh or fish complete commands, options and their values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from ugatit.commands.parsing import parse
from ugatit.io.errors import UserError


@dataclass(frozen=True)
class CompletionConfig:
    """Print a script that lets bash, zsh or fish complete commands, options and their values."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """The shell. Add to ~/.bashrc: eval "$(ugatit completion bash)"; for zsh: ugatit completion zsh > FOLDER/_ugatit,
    where $fpath has FOLDER; for fish: ugatit completion fish > ~/.config/fish/completions/ugatit.fish."""


def kinds() -> dict[str, Any]:
    """What each command reads its arguments into."""
    from ugatit.apps.desk import ServeConfig
    from ugatit.apps.prepare import PrepareConfig
    from ugatit.apps.study import StudyConfig
    from ugatit.commands.demo import DemoConfig
    from ugatit.commands.evaluate import EvaluateConfig
    from ugatit.commands.export import ExportConfig
    from ugatit.commands.importing import ImportConfig
    from ugatit.commands.inspect import InspectConfig
    from ugatit.commands.translate import TranslateConfig
    from ugatit.experiments.ablate import AblateConfig
    from ugatit.experiments.compare import CompareConfig
    from ugatit.systems.ugatit import UGATITConfig
    from ugatit.training.config import TrainConfig

    @dataclass(frozen=True)
    class Training(TrainConfig[UGATITConfig]):
        """Train a translator on two folders of pictures, or continue a run."""

        resume: Path | None = None  # which is read before the defaults of the others are known

    return {
        "demo": DemoConfig,
        "prepare": PrepareConfig,
        "train": Training,
        "translate": TranslateConfig,
        "evaluate": EvaluateConfig,
        "inspect": InspectConfig,
        "ablate": AblateConfig,
        "compare": CompareConfig,
        "import": ImportConfig,
        "export": ExportConfig,
        "serve": ServeConfig,
        "study": StudyConfig,
        "completion": CompletionConfig,
    }


def main(arguments: list[str]) -> None:
    options = parse(CompletionConfig, "ugatit completion", arguments)
    wanted = ["--tyro-print-completion", options.shell]
    try:
        tyro.extras.subcommand_cli_from_dict(kinds(), prog="ugatit", args=wanted, config=(OmitArgPrefixes,))
    except AssertionError:  # how older versions say that they do not know a shell
        raise UserError(f"This version of tyro cannot complete in {options.shell}: pip install -U tyro.") from None
