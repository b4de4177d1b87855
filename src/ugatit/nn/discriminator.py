"""PatchGAN discriminator with CAM attention and spectral norm (paper Tables 5 and 6)."""

from typing import NamedTuple

from torch import Tensor, nn

from ugatit.nn.cam import Cam, heatmap
from ugatit.nn.spectral import SpectralConv2d

LOCAL_HALVINGS = 3  # Table 5: 70 x 70 patches
GLOBAL_HALVINGS = 5  # Table 6: 286 x 286 patches


class Judgement(NamedTuple):
    """What a discriminator says of N pictures."""

    logit: Tensor  # N x 1 x h x w, one a patch
    cam_logit: Tensor | None  # N x 2; None without CAM
    heatmap: Tensor | None  # N x 1 x (h + 1) x (w + 1), not scaled; None without CAM


def global_halvings(size: int) -> int:
    """How many stride-2 layers the global discriminator has: Table 6's five, fewer where less than 4 x 4 would be left.

    Args:
        size: side of the training pictures in pixels, at least 32.
    """
    halvings = LOCAL_HALVINGS
    while halvings < GLOBAL_HALVINGS and size >> (halvings + 1) >= 4:
        halvings += 1
    return halvings


class CamDiscriminator(nn.Module):
    """Table 5 (``halvings=3``) or Table 6 (``halvings=5``).

    Args:
        channels: of the pictures.
        width: of the first layer; each layer doubles it.
        halvings: number of stride-2 layers.
        cam: whether there is a CAM; without, the encoder's maps go to the classifier as they are.
    """

    def __init__(self, channels: int, width: int, halvings: int, cam: bool = True):
        super().__init__()
        widths = [channels] + [width << i for i in range(halvings + 1)]
        layers: list[nn.Module] = []
        for i in range(halvings + 1):
            stride = 2 if i < halvings else 1
            layers += [
                SpectralConv2d(widths[i], widths[i + 1], 4, stride),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.encoder = nn.Sequential(*layers)
        self.cam = Cam(widths[-1], nn.LeakyReLU(0.2, inplace=True), spectral=True) if cam else None
        self.classifier = SpectralConv2d(widths[-1], 1, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Judgement:
        """Judge pictures N x channels x H x W in [-1, 1]."""
        features = self.encoder(x)
        if self.cam is None:
            return Judgement(self.classifier(features), None, None)
        attended, cam_logit = self.cam(features)
        return Judgement(self.classifier(attended), cam_logit, heatmap(attended))
