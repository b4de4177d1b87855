"""One file a method. `REGISTRY` maps the name that `--system` takes to the class."""

from ugatit.systems.base import System
from ugatit.systems.ugatit import UGATIT

REGISTRY: dict[str, type[System]] = {"ugatit": UGATIT}
