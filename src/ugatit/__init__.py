"""U-GAT-IT: unsupervised image-to-image translation with attention and adaptive layer-instance normalisation."""

from ugatit.errors import UserError
from ugatit.translate import Translator

__all__ = ["Translator", "UserError"]
__version__ = "0.1.0"
