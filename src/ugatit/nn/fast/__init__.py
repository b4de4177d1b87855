"""The functions of `ugatit.nn` under the same names, faster or smaller; tests hold each against the plain one."""

from ugatit.nn.fast.cam import attend
from ugatit.nn.fast.factored import product
from ugatit.nn.fast.norm import layer_instance_norm
from ugatit.nn.fast.out import few_maps, out_conv
from ugatit.nn.fast.spectral import spectral_conv
from ugatit.nn.fast.up import up_conv
from ugatit.nn.fast.winograd import conv3, winograd_wins


def always(*_: object, **__: object) -> bool:
    """Suits everything."""
    return True


FORMS = {  # name: the function, and whether it suits arguments
    "attend": (attend, always),
    "conv3": (conv3, winograd_wins),
    "layer_instance_norm": (layer_instance_norm, always),
    "out_conv": (out_conv, few_maps),
    "product": (product, always),
    "spectral_conv": (spectral_conv, always),
    "up_conv": (up_conv, always),
}
