"""Make the model that the demo shows at once, src/ugatit/emoji/model, from a run: python tools/ship_model.py RUN

The run was, in 35 minutes of one core,

    ugatit train src/ugatit/emoji --preset quick --adv-weight 0.1 --steps 5000 --ema 0.999 -o RUN
"""

import sys
from pathlib import Path

from ugatit.apps.demo import SHIPPED
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator


def main(run: Path) -> None:
    system = Translator.load(run, "cpu").system
    for name in system.translators:
        system.get_submodule(name).half()  # half the size; reading makes it float32 again
    save_model(system, SHIPPED, step=0, with_training=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
