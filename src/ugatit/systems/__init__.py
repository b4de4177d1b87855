"""One file a method. `REGISTRY` maps the name that `--system` takes to the class."""

from ugatit.systems.aggan import AGGAN
from ugatit.systems.base import System
from ugatit.systems.cartoongan import CartoonGAN
from ugatit.systems.cyclegan import CycleGAN
from ugatit.systems.drit import DRIT
from ugatit.systems.munit import MUNIT
from ugatit.systems.ugatit import UGATIT
from ugatit.systems.unit import UNIT

REGISTRY: dict[str, type[System]] = {
    "ugatit": UGATIT,
    "cyclegan": CycleGAN,
    "unit": UNIT,
    "munit": MUNIT,
    "drit": DRIT,
    "aggan": AGGAN,
    "cartoongan": CartoonGAN,
}
