"""U-GAT-IT: unsupervised image-to-image translation with attention and adaptive layer-instance normalisation."""

from typing import TYPE_CHECKING, Any

from ugatit.io.errors import UserError

if TYPE_CHECKING:
    from ugatit.translation.translator import Translator

__all__ = ["Translator", "UserError"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`Translator`, imported with PyTorch when it is asked for: the command line's help does not wait for it."""
    if name == "Translator":
        from ugatit.translation.translator import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
