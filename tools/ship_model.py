"""Make the model that the demo shows at once, in src/ugatit/emoji/model. It was trained, in STEPS_TIME, with

ugatit train src/ugatit/emoji --preset quick --steps 20000 --ema 0.999 -o runs/shipped
python tools/ship_model.py runs/shipped
"""

import sys
from pathlib import Path

from ugatit.demo import SHIPPED
from ugatit.systems.folder import save_model
from ugatit.translate import Translator


def main(run: Path) -> None:
    system = Translator.load(run, "cpu").system
    for name in system.translators:
        system.get_submodule(name).half()  # half the size; reading makes it float32 again
    save_model(system, SHIPPED, step=0, with_training=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
